//! Parents of nodes by the published graph, computed one by one: no parents cache is made or read.

use anyhow::{Context, ensure};
use filecoin_hashers::poseidon::PoseidonHasher;
use filecoin_proofs::constants::{DRG_DEGREE, EXP_DEGREE};
use seal_types::{ApiVersion, RegisteredProof};
use serde::Serialize;
use storage_proofs_core::api_version::ApiVersion as PublishedVersion;
use storage_proofs_core::drgraph::Graph;
use storage_proofs_porep::stacked::StackedBucketGraph;

/// A node and its parents: 6 of its own layer, then 8 of the layer before.
#[derive(Serialize)]
pub(crate) struct NodeParents {
    node: u64,
    parents: Vec<u32>,
}

pub(crate) fn parents(proof: RegisteredProof, nodes: &[u64]) -> anyhow::Result<Vec<NodeParents>> {
    let porep = proof.porep();
    let version = match porep.api_version {
        ApiVersion::V1_0 => PublishedVersion::V1_0_0,
        ApiVersion::V1_1 => PublishedVersion::V1_1_0,
        ApiVersion::V1_2 => PublishedVersion::V1_2_0,
    };
    let size = usize::try_from(porep.nodes()).context("too many nodes for this machine")?;
    let graph = StackedBucketGraph::<PoseidonHasher>::new_stacked(
        size,
        DRG_DEGREE,
        EXP_DEGREE,
        porep.porep_id.0,
        version,
    )?;
    nodes
        .iter()
        .map(|&node| {
            ensure!(node < porep.nodes(), "node {node} of {} nodes", porep.nodes());
            let mut parents = vec![0; graph.degree()];
            graph.parents(usize::try_from(node)?, &mut parents)?;
            Ok(NodeParents { node, parents })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_differ_in_where_the_predecessor_stands() {
        let of = |name: &str| {
            let proof = name.parse().expect("a registered proof");
            parents(proof, &[40]).expect("a node of the graph").remove(0).parents
        };
        assert_eq!(of("StackedDrg2KiBV1")[5], 39);
        assert_eq!(of("StackedDrg2KiBV1_1")[0], 39);
        assert_eq!(of("StackedDrg32GiBV1_1")[0], 39);
    }

    #[test]
    fn nodes_outside_the_graph_are_refused() {
        let proof = "StackedDrg2KiBV1".parse().expect("a registered proof");
        assert!(parents(proof, &[64]).is_err());
    }
}
