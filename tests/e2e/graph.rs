//! Graphs and labels of production size against outside judges: a plain implementation and the
//! published crate.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use seal_sdr::{Graph, Watch, label_layer};
use seal_sha256::{Kernel, LabelPrefix};
use seal_types::{RegisteredProof, ReplicaId};
use serde_json::Value;
use test_support::client::binary;
use test_support::{data, plain};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

#[test]
fn the_first_million_labels_of_a_32_gib_sector_equal_plain_ones() -> Result<()> {
    const NODES: usize = 1 << 20;
    let porep = "StackedDrg32GiBV1_1".parse::<RegisteredProof>()?.porep();
    let replica_id = ReplicaId(data::derive("replica", "first-labels"));
    let prefix = LabelPrefix::new(Kernel::detect(), replica_id.0);
    let mut labels = vec![[0; 32]; NODES];
    label_layer(&Graph::new(&porep), &prefix, 1, &mut labels, &[], QUIET)?;

    let expected = plain::label_first_nodes(&porep, replica_id, 1, NODES);
    let first_difference = labels.iter().zip(&expected[0]).position(|(ours, plain)| ours != plain);
    ensure!(first_difference.is_none(), "node {first_difference:?} differs");
    Ok(())
}

#[test]
fn sampled_nodes_of_production_graphs_have_the_published_parents() -> Result<()> {
    for name in [
        "StackedDrg32GiBV1",
        "StackedDrg32GiBV1_1",
        "StackedDrg64GiBV1",
        "StackedDrg64GiBV1_1",
        "StackedDrg32GiBV1_1_Feat_SyntheticPoRep",
        "StackedDrg64GiBV1_2_Feat_NonInteractivePoRep",
    ] {
        let proof: RegisteredProof = name.parse()?;
        let graph = Graph::new(&proof.porep());
        let last = u32::try_from(graph.nodes() - 1)?;
        // Both ends, around powers of two, and a spread of others.
        let mut nodes = vec![0, 1, 2, 3, last - 1, last];
        nodes.extend((4..32).map(|bit| (1_u32 << bit).min(last)));
        nodes.extend((4..32).map(|bit| ((1_u32 << bit) - 1).min(last)));
        nodes.extend((0..200_u32).map(|i| i.wrapping_mul(2_654_435_761) % last));

        let output = Command::new(binary("oracle")?)
            .args(["parents", "--proof", name, "--node"])
            .args(nodes.iter().map(u32::to_string))
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let published: Value = serde_json::from_slice(&output.stdout)?;
        let published = published.as_array().context("a list")?;
        ensure!(published.len() == nodes.len(), "{} answers", published.len());
        for (node, answer) in nodes.iter().zip(published) {
            let parents: Vec<u32> = serde_json::from_value(answer["parents"].clone())?;
            ensure!(answer["node"] == *node, "the answer is of node {}", answer["node"]);
            ensure!(parents == graph.parents(*node), "{name}: node {node}");
        }
    }
    Ok(())
}
