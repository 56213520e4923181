//! A look at what was computed: bad memory and bad cores are real, and their labels spoil a
//! sector without anybody noticing until its proof fails.

use seal_sha256::{BASE_PARENTS, Kernel, LabelPrefix};
use seal_types::{NODE_SIZE, ReplicaId};

use crate::{PARENTS, Parents, SdrError};

/// Labels computed again of each layer, beside the first and the last. A core that spoils one
/// label in 200 is found in the first layer all but certainly (1 in 170 escapes), and it costs a
/// few milliseconds where a layer takes minutes.
const SAMPLES: u64 = 1024;

/// Computes a sample of the labels of `layer` again with the portable kernel, from the labels in
/// memory, and compares. `previous` must still hold the previous layer; it is not read for layer 1.
///
/// Parents are best taken from the [`crate::Graph`], which shares no memory with what made the
/// labels. `core` is the cpu that did, if one did it all.
pub fn check_labels(
    parents: &impl Parents,
    replica_id: ReplicaId,
    layer: u32,
    labels: &[[u8; NODE_SIZE]],
    previous: &[[u8; NODE_SIZE]],
    core: Option<u32>,
) -> Result<(), SdrError> {
    let prefix = LabelPrefix::new(Kernel::portable(), replica_id.0);
    for node in samples(labels.len(), replica_id, layer) {
        if labels[node] != label(parents, &prefix, layer, node, labels, previous) {
            return Err(SdrError::WrongLabel { layer, node: node as u64, core });
        }
    }
    Ok(())
}

fn label(
    parents: &impl Parents,
    prefix: &LabelPrefix,
    layer: u32,
    node: usize,
    labels: &[[u8; NODE_SIZE]],
    previous: &[[u8; NODE_SIZE]],
) -> [u8; NODE_SIZE] {
    if node == 0 {
        return prefix.label_without_parents(layer);
    }
    let nodes = parents.parents(node);
    let (number, pick) = (node as u64, |i: usize| {
        let labels = if i < BASE_PARENTS { labels } else { previous };
        labels[nodes[i] as usize]
    });
    if layer == 1 {
        prefix.label(layer, number, &std::array::from_fn::<_, BASE_PARENTS, _>(pick))
    } else {
        prefix.label(layer, number, &std::array::from_fn::<_, PARENTS, _>(pick))
    }
}

/// First and last node, and between them one of each stretch, another one for each replica and
/// layer. Small layers are checked whole.
fn samples(nodes: usize, replica_id: ReplicaId, layer: u32) -> impl Iterator<Item = usize> {
    let last = (nodes as u64).saturating_sub(1);
    let count = SAMPLES.min(last);
    let seed = u64::from_le_bytes(*replica_id.0.first_chunk().expect("32 bytes"));
    (0..nodes.min(1) as u64 * (count + 2)).filter_map(move |i| {
        let node = match i.checked_sub(2) {
            None if i == 0 => 0,
            None => last,
            Some(i) => {
                let (from, to) = (i * last / count, (i + 1) * last / count);
                from + scrambled(seed ^ u64::from(layer) << 32 ^ i) % (to - from)
            }
        };
        usize::try_from(node).ok()
    })
}

/// A number all of whose bits depend on all bits of `value` (the finaliser of SplitMix64).
fn scrambled(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;
    use seal_types::{Porep, RegisteredProof};
    use std::collections::BTreeSet;

    const REPLICA_ID: ReplicaId = ReplicaId([5; 32]);

    fn porep(name: &str) -> Porep {
        name.parse::<RegisteredProof>().expect("a registered proof").porep()
    }

    #[test]
    fn right_labels_pass_and_every_wrong_one_of_a_small_sector_is_found() {
        for name in ["StackedDrg2KiBV1", "StackedDrg2KiBV1_1"] {
            let porep = porep(name);
            let graph = Graph::new(&porep);
            let mut layers = test_support::plain::label_layers(&porep, REPLICA_ID);
            let check = |layers: &[Vec<_>], layer: usize| {
                let previous = if layer == 1 { &[][..] } else { &layers[layer - 2] };
                let number = u32::try_from(layer).expect("small");
                check_labels(&graph, REPLICA_ID, number, &layers[layer - 1], previous, Some(3))
            };
            for layer in 1..=layers.len() {
                check(&layers, layer).expect("right");
                for node in 0..layers[layer - 1].len() {
                    layers[layer - 1][node][31] ^= 0x20;
                    let error = check(&layers, layer).expect_err("wrong");
                    // What depends on the wrong label looks wrong too, and may be seen first.
                    let SdrError::WrongLabel { layer: found, core: Some(3), .. } = error else {
                        panic!("{error}");
                    };
                    assert_eq!(found as usize, layer);
                    layers[layer - 1][node][31] ^= 0x20;
                }
            }
        }
    }

    #[test]
    fn a_core_that_errs_now_and_then_is_found() {
        let porep = porep("StackedDrg8MiBV1_1");
        let graph = Graph::new(&porep);
        let nodes = 1 << 14;
        let labels = test_support::plain::label_first_nodes(&porep, REPLICA_ID, 1, nodes).remove(0);
        check_labels(&graph, REPLICA_ID, 1, &labels, &[], None).expect("right");
        // One label in a hundred is wrong.
        let mut erring = labels.clone();
        for label in erring.iter_mut().skip(57).step_by(100) {
            label[0] ^= 1;
        }
        let error = check_labels(&graph, REPLICA_ID, 1, &erring, &[], None).expect_err("wrong");
        assert!(error.to_string().contains("layer 1"), "{error}");
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn samples_are_spread_over_the_whole_layer() {
        let all = |nodes| samples(nodes, REPLICA_ID, 7).collect::<BTreeSet<_>>();
        for nodes in [1, 2, 64, 1024, 1025] {
            assert_eq!(all(nodes), (0..nodes).collect(), "{nodes}");
        }
        assert!(all(0).is_empty());
        let nodes = 1 << 30;
        let found = all(nodes);
        assert!(found.len() as u64 > SAMPLES && found.last() == Some(&(nodes - 1)));
        let largest_gap = found.iter().zip(found.iter().skip(1)).map(|(a, b)| b - a).max();
        assert!(largest_gap.expect("many") <= 2 * nodes / 1024, "{largest_gap:?}");
        let others: BTreeSet<_> = samples(nodes, REPLICA_ID, 8).collect();
        assert!(found.intersection(&others).count() < 10, "layers have samples of their own");
    }
}
