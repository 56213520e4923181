//! A C2 task: what can be wrong with it, found before anything is proved, and its parts in the
//! published crates' terms.

use std::collections::BTreeMap;

use filecoin_hashers::{Domain, Hasher};
use filecoin_proofs::{DefaultPieceDomain, DefaultPieceHasher, DefaultTreeHasher};
use rayon::prelude::*;
use seal_types::{ReplicaId, shown, shown_reason};
use seal_wire::{C1Output, C2Task};
use serde_json::value::RawValue;
use storage_proofs_core::merkle::{MerkleProofTrait, MerkleTreeTrait};
use storage_proofs_core::proof::ProofScheme;
use storage_proofs_porep::stacked::{self, StackedDrg, Tau, generate_replica_id};

use crate::Groth16Error;
use crate::vanilla::{Expectation, Fault, VanillaProof, check_element};

pub(crate) type Challenge<Tree> = stacked::Proof<Tree, DefaultPieceHasher>;
pub(crate) type VanillaProofs<Tree> = Vec<Vec<Challenge<Tree>>>;
pub(crate) type PublicInputs = stacked::PublicInputs<TreeDomain, DefaultPieceDomain>;
type TreeDomain = <DefaultTreeHasher as Hasher>::Domain;

/// Everything about a task that does not depend on the shape of its trees.
pub(crate) fn check_task(task: &C2Task) -> Result<(), Groth16Error> {
    let c1 = &task.c1out;
    let proof = c1.registered_proof;
    let bad =
        |fault: Fault| Groth16Error::BadC1Output { proof, at: fault.at, reason: fault.reason };
    for (name, value) in [("comm_r", c1.comm_r.0), ("comm_d", c1.comm_d.0), ("seed", c1.seed.0)] {
        if value == [0; 32] {
            return Err(bad(Fault::new("it is all zero").within(name)));
        }
    }
    for (name, value) in
        [("comm_r", c1.comm_r.0), ("comm_d", c1.comm_d.0), ("replica_id", c1.replica_id.0)]
    {
        check_element(&value).map_err(|fault| bad(fault.within(name)))?;
    }
    let expected = expected_replica_id(task);
    if c1.replica_id != expected {
        return Err(Groth16Error::OtherSector {
            proof,
            found: c1.replica_id,
            expected,
            prover_id: task.prover_id,
            sector_id: task.sector_id,
        });
    }
    let text = proofs_of_shape(c1)?;
    let partitions: Vec<Vec<VanillaProof>> = serde_json::from_str(text.get())
        .map_err(|error| bad(Fault::new(shown_reason(&error)).within("vanilla_proofs")))?;
    Expectation::of(proof)
        .check(&partitions)
        .map_err(|fault| bad(fault.within(proof.shape_name()).within("vanilla_proofs")))
}

fn expected_replica_id(task: &C2Task) -> ReplicaId {
    let id: TreeDomain = generate_replica_id::<DefaultTreeHasher, _>(
        &task.prover_id.0,
        task.sector_id.0,
        &task.c1out.ticket.0,
        task.c1out.comm_d.0,
        &task.c1out.registered_proof.porep_id().0,
    );
    let mut bytes = [0; 32];
    bytes.copy_from_slice(id.as_ref());
    ReplicaId(bytes)
}

/// The proofs, which stand under the name of the sector's shape.
fn proofs_of_shape(c1: &C1Output) -> Result<&RawValue, Groth16Error> {
    let proof = c1.registered_proof;
    let bad = |reason: String| Groth16Error::BadC1Output {
        proof,
        at: "vanilla_proofs".to_owned(),
        reason,
    };
    let by_shape: BTreeMap<String, &RawValue> =
        serde_json::from_str(c1.vanilla_proofs.get()).map_err(|error| bad(shown_reason(&error)))?;
    let expected = proof.shape_name();
    let names: Vec<&str> = by_shape.keys().map(String::as_str).collect();
    if names != [expected.as_str()] {
        let names = names.join(", ");
        return Err(bad(format!("proofs for {:?}, expected {expected}", shown(&names))));
    }
    by_shape.into_values().next().ok_or_else(|| bad(format!("no proofs, expected {expected}")))
}

pub(crate) fn vanilla_proofs<Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>>(
    c1: &C1Output,
) -> Result<VanillaProofs<Tree>, Groth16Error> {
    // Some of what the published types want, such as their markers, `check_task` does not look at.
    serde_json::from_str(proofs_of_shape(c1)?.get()).map_err(|error| Groth16Error::BadC1Output {
        proof: c1.registered_proof,
        at: format!("vanilla_proofs.{}", c1.registered_proof.shape_name()),
        reason: shown_reason(&error),
    })
}

pub(crate) fn public_inputs(c1: &C1Output) -> Result<PublicInputs, Groth16Error> {
    let tree = |bytes: &[u8; 32]| {
        TreeDomain::try_from_bytes(bytes).map_err(Groth16Error::upstream("read an element"))
    };
    let comm_d = DefaultPieceDomain::try_from_bytes(&c1.comm_d.0)
        .map_err(Groth16Error::upstream("read comm_d"))?;
    Ok(stacked::PublicInputs {
        replica_id: tree(&c1.replica_id.0)?,
        seed: Some(c1.seed.0),
        tau: Some(Tau { comm_d, comm_r: tree(&c1.comm_r.0)? }),
        k: None,
    })
}

/// Verifies the vanilla proofs as C1 does, and the two paths that its verification does not walk.
pub(crate) fn verify_vanilla<Tree>(
    c1: &C1Output,
    params: &stacked::PublicParams<Tree>,
    public: &PublicInputs,
    vanilla: &VanillaProofs<Tree>,
) -> Result<(), Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let whole =
        StackedDrg::<Tree, DefaultPieceHasher>::verify_all_partitions(params, public, vanilla)
            .map_err(Groth16Error::upstream("verify the vanilla proofs"))?;
    let paths = || {
        vanilla.par_iter().flatten().all(|proof| {
            let node = proof.comm_d_proofs.path_index();
            proof.comm_d_proofs.validate(node) && proof.comm_r_last_proof.validate(node)
        })
    };
    if whole && paths() {
        return Ok(());
    }
    Err(Groth16Error::BadVanillaProofs {
        proof: c1.registered_proof,
        comm_r: c1.comm_r,
        comm_d: c1.comm_d,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::{captured, prove, prover};
    use seal_wire::ErrorCode;
    use serde_json::{Value, json};

    /// Proves a captured task after `change`, without parameters, and returns why not.
    fn refused(change: impl FnOnce(&mut Value)) -> Groth16Error {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut task = captured();
        change(&mut task);
        prove(&prover(dir.path()), &task).expect_err("there are no parameters")
    }

    fn check_refused(change: impl FnOnce(&mut Value), named: &[&str]) {
        let error = refused(change);
        assert_eq!(error.code(), ErrorCode::BadInput, "{error}");
        let text = error.to_string();
        for named in named {
            assert!(text.contains(named), "{named}: {text}");
        }
    }

    fn challenge(task: &mut Value, challenge: usize) -> &mut Value {
        &mut task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"][0][challenge]
    }

    #[test]
    fn elements_at_or_above_the_modulus_are_named() {
        let bad = json!(vec![0xff; 32]);
        for name in ["comm_r", "comm_d", "replica_id"] {
            let change = |task: &mut Value| task["c1out"][name] = bad.clone();
            check_refused(change, &[name, "ffffffff", "modulus"]);
        }
        for (pointer, place) in [
            ("/comm_d_proofs/data/Single/root", "comm_d_proofs.root"),
            ("/comm_d_proofs/data/Single/path/path/5/hashes/0", "path[5].hashes[0]"),
            ("/comm_r_last_proof/data/Single/leaf", "comm_r_last_proof.leaf"),
            ("/replica_column_proofs/c_x/column/rows/1", "c_x.column.rows[1]"),
            (
                "/replica_column_proofs/exp_parents/7/inclusion_proof/data/Single/root",
                "exp_parents[7].inclusion_proof.root",
            ),
            ("/labeling_proofs/1/parents/36", "labeling_proofs[1].parents[36]"),
        ] {
            let change = |task: &mut Value| {
                *challenge(task, 1).pointer_mut(pointer).expect("there") = bad.clone();
            };
            check_refused(change, &["vanilla_proofs.StackedDrg2KiBV1[0][1].", place, "modulus"]);
        }
    }

    #[test]
    fn proofs_of_the_wrong_shape_are_refused_without_a_panic() {
        let drop_last = |pointer: &'static str| {
            move |task: &mut Value| {
                let list = challenge(task, 0).pointer_mut(pointer).expect("there");
                list.as_array_mut().expect("a list").pop();
            }
        };
        for (pointer, named) in [
            ("/comm_d_proofs/data/Single/path/path", "5 levels, expected 6"),
            ("/comm_r_last_proof/data/Single/path/path/0/hashes", "6 siblings, expected 7"),
            ("/replica_column_proofs/c_x/column/rows", "1 rows, expected 2"),
            ("/replica_column_proofs/drg_parents", "5 parents, expected 6"),
            ("/replica_column_proofs/exp_parents", "7 parents, expected 8"),
            ("/labeling_proofs", "1 layers, expected 2"),
            ("/labeling_proofs/0/parents", "labeling_proofs[0]"),
            ("/encoding_proof/parents", "encoding_proof"),
        ] {
            check_refused(drop_last(pointer), &[named]);
        }
        check_refused(
            |task| {
                let path = "/comm_r_last_proof/data/Single/path/path/1/index";
                *challenge(task, 0).pointer_mut(path).expect("there") = json!(8);
            },
            &["index 8 of 8 nodes"],
        );
        check_refused(
            |task| challenge(task, 0)["comm_d_proofs"] = json!("text"),
            &["vanilla_proofs", "invalid type"],
        );
    }

    /// No check of ours looks at the markers of the published types; reading those finds it.
    #[test]
    fn a_marker_of_the_wrong_type_is_bad_input() {
        for place in ["c_x", "drg_parents/0", "exp_parents/7"] {
            for value in [json!(7), json!("x"), json!([]), json!({})] {
                let change = |task: &mut Value| {
                    let pointer = format!("/replica_column_proofs/{place}/column/_h");
                    *challenge(task, 1).pointer_mut(&pointer).expect("there") = value;
                };
                check_refused(change, &["vanilla_proofs.StackedDrg2KiBV1", "expected unit"]);
            }
        }
    }

    #[test]
    fn what_a_c1_output_holds_is_not_repeated_whole() {
        let long = "x".repeat(1 << 20);
        for change in [
            json!({ long.clone(): [] }),
            json!({ "StackedDrg2KiBV1": long.clone() }),
            json!({ "StackedDrg2KiBV1": [[{ long.clone(): 1 }]] }),
            json!(long),
        ] {
            let error = refused(|task| task["c1out"]["vanilla_proofs"] = change);
            let length = error.to_string().len();
            assert!(length < 1024, "{length} bytes");
        }
    }

    #[test]
    fn wrong_numbers_of_partitions_and_challenges_are_told() {
        check_refused(
            |task| {
                let proofs = &mut task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"];
                let partition = proofs[0].clone();
                proofs.as_array_mut().expect("a list").push(partition);
            },
            &["2 partitions, expected 1"],
        );
        check_refused(
            |task| task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"] = json!([[]]),
            &["[0]", "0 challenges, expected 2"],
        );
        check_refused(
            |task| task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"] = json!([]),
            &["0 partitions, expected 1"],
        );
    }

    #[test]
    fn proofs_under_another_shapes_name_are_refused() {
        check_refused(
            |task| {
                let proofs = task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"].take();
                task["c1out"]["vanilla_proofs"] = json!({ "StackedDrg8MiBV1": proofs });
            },
            &["StackedDrg8MiBV1", "StackedDrg2KiBV1"],
        );
        check_refused(|task| task["c1out"]["vanilla_proofs"] = json!({}), &["StackedDrg2KiBV1"]);
        check_refused(|task| task["c1out"]["vanilla_proofs"] = json!(7), &["vanilla_proofs"]);
    }

    #[test]
    fn a_c1_output_of_another_sector_is_told_as_such() {
        let other_sector = |task: &mut Value| task["sector_id"] = json!(7);
        let other_prover = |task: &mut Value| task["prover_id"] = json!(vec![1; 32]);
        let other_ticket = |task: &mut Value| task["c1out"]["ticket"][0] = json!(0);
        let other_graph =
            |task: &mut Value| task["c1out"]["registered_proof"] = json!("StackedDrg2KiBV1");
        check_refused(other_sector, &["another sector", "sector 7"]);
        check_refused(other_prover, &["another sector"]);
        check_refused(other_ticket, &["another sector"]);
        check_refused(other_graph, &["another sector"]);
    }

    #[test]
    fn commitments_and_seed_must_not_be_zero() {
        for name in ["comm_r", "comm_d", "seed"] {
            check_refused(|task| task["c1out"][name] = json!(vec![0; 32]), &[name, "zero"]);
        }
    }

    #[test]
    fn proofs_that_do_not_hold_are_found_before_proving() {
        // Another seed asks for other challenges; the rest is a sibling or a label gone bad in
        // each part, of which the published verification walks all but the first two paths.
        check_refused(|task| task["c1out"]["seed"][0] = json!(0), &["do not verify"]);
        for pointer in [
            "/comm_d_proofs/data/Single/path/path/3/hashes/0/0",
            "/comm_r_last_proof/data/Single/path/path/1/hashes/6/0",
            "/replica_column_proofs/c_x/inclusion_proof/data/Single/path/path/0/hashes/0/0",
            "/replica_column_proofs/drg_parents/0/inclusion_proof/data/Single/path/path/1/hashes/0/0",
        ] {
            let change = |task: &mut Value| {
                let byte = challenge(task, 1).pointer_mut(pointer).expect("there");
                *byte = json!(byte.as_u64().expect("a byte") ^ 1);
            };
            check_refused(change, &["do not verify"]);
        }
    }

    #[test]
    fn labels_that_differ_from_the_parents_columns_are_found() {
        let pointer = "/replica_column_proofs/drg_parents/2/column/rows/0/0";
        let change = |task: &mut Value| {
            let byte = challenge(task, 0).pointer_mut(pointer).expect("there");
            *byte = json!(byte.as_u64().expect("a byte") ^ 1);
        };
        check_refused(change, &["[0][0].labeling_proofs[0]", "differ"]);
        let change = |task: &mut Value| challenge(task, 0)["labeling_proofs"][0]["node"] = json!(1);
        check_refused(change, &["labeling_proofs[0]", "node 1"]);
    }
}
