//! The vanilla proofs of a C1 output, checked before the published crates see them.
//!
//! The crates take an element at or above the field's modulus, a missing row or a path of the
//! wrong length for a defect of the program and panic. They also do not compare everything they
//! read: what the circuit uses but their own verification passes over (labels of parents, the
//! paths to data and replica) would show only as a proof that does not verify. So everything is
//! looked at here, and the error names the place and the value.

use blstrs::Scalar;
use seal_types::{RegisteredProof, TreeShape};
use serde::Deserialize;

/// Parents within a layer, and from the layer before.
const DRG_PARENTS: usize = 6;
/// Parents from the layer before.
const EXP_PARENTS: usize = 8;
/// How many parents are hashed into a label, repetitions included.
const HASHED_PARENTS: usize = 37;
/// Challenges per partition of production sizes: 176 over 10 partitions, rounded up.
const PRODUCTION_CHALLENGES: usize = 18;
/// Challenges per partition of test sizes.
const TEST_CHALLENGES: usize = 2;

/// A field element as 32 little-endian bytes.
type Element = [u8; 32];

/// The vanilla proof of one challenge, in the terms of the JSON text.
#[derive(Deserialize)]
pub(crate) struct VanillaProof {
    comm_d_proofs: MerkleProof,
    comm_r_last_proof: MerkleProof,
    replica_column_proofs: ReplicaColumnProofs,
    labeling_proofs: Vec<LabelProof>,
    encoding_proof: LabelProof,
}

#[derive(Deserialize)]
struct ReplicaColumnProofs {
    c_x: ColumnProof,
    drg_parents: Vec<ColumnProof>,
    exp_parents: Vec<ColumnProof>,
}

#[derive(Deserialize)]
struct ColumnProof {
    column: Column,
    inclusion_proof: MerkleProof,
}

#[derive(Deserialize)]
struct Column {
    index: u32,
    rows: Vec<Element>,
}

#[derive(Deserialize, PartialEq, Eq)]
struct LabelProof {
    parents: Vec<Element>,
    layer_index: u32,
    node: u64,
}

#[derive(Deserialize)]
struct MerkleProof {
    data: MerkleData,
}

/// Named for the number of tree levels that are joined.
#[derive(Deserialize)]
enum MerkleData {
    Single { root: Element, leaf: Element, path: Path },
    Sub { root: Element, leaf: Element, base_proof: Path, sub_proof: Path },
    Top { root: Element, leaf: Element, base_proof: Path, sub_proof: Path, top_proof: Path },
}

#[derive(Deserialize)]
struct Path {
    path: Vec<PathElement>,
}

#[derive(Deserialize)]
struct PathElement {
    hashes: Vec<Element>,
    index: usize,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: String,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { at: String::new(), reason: reason.into() }
    }

    /// Puts `step` before the path to the place.
    pub(crate) fn within(mut self, step: impl std::fmt::Display) -> Self {
        let separator = if self.at.is_empty() || self.at.starts_with('[') { "" } else { "." };
        self.at = format!("{step}{separator}{}", self.at);
        self
    }
}

type Checked = Result<(), Fault>;

/// Whether 32 bytes are a field element. `Err` tells the value.
pub(crate) fn check_element(element: &Element) -> Checked {
    let scalar: Option<Scalar> = Scalar::from_bytes_le(element).into();
    if scalar.is_some() {
        return Ok(());
    }
    let hex: String = element.iter().map(|byte| format!("{byte:02x}")).collect();
    Err(Fault::new(format!("{hex} (little-endian) is not below the field's modulus")))
}

fn check_elements(elements: &[Element]) -> Checked {
    each(elements, check_element)
}

/// Checks every item and names the index of the first bad one.
fn each<T>(items: &[T], mut check: impl FnMut(&T) -> Checked) -> Checked {
    items.iter().enumerate().try_for_each(|(index, item)| {
        check(item).map_err(|fault| fault.within(format!("[{index}]")))
    })
}

fn check_count(what: &str, found: usize, expected: usize) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(Fault::new(format!("{found} {what}, expected {expected}")))
}

/// What the vanilla proofs of a registered proof look like.
pub(crate) struct Expectation {
    partitions: usize,
    challenges: usize,
    layers: usize,
    shape: TreeShape,
    /// Levels of tree D above the leaves.
    data_levels: usize,
    /// Levels of a base tree of tree C or tree R above the leaves.
    base_levels: usize,
}

impl Expectation {
    pub(crate) fn of(proof: RegisteredProof) -> Self {
        let porep = proof.porep();
        let production = proof.partitions() > 1;
        Self {
            partitions: proof.partitions() as usize,
            challenges: if production { PRODUCTION_CHALLENGES } else { TEST_CHALLENGES },
            layers: porep.layers as usize,
            shape: porep.shape,
            data_levels: porep.nodes().ilog2() as usize,
            base_levels: porep.base_tree_leaves().ilog(u64::from(porep.shape.base)) as usize,
        }
    }

    /// Checks the vanilla proofs of all partitions.
    pub(crate) fn check(&self, partitions: &[Vec<VanillaProof>]) -> Checked {
        check_count("partitions", partitions.len(), self.partitions)?;
        each(partitions, |challenges| {
            check_count("challenges", challenges.len(), self.challenges)?;
            each(challenges, |proof| self.check_proof(proof))
        })
    }

    fn check_proof(&self, proof: &VanillaProof) -> Checked {
        self.check_data_proof(&proof.comm_d_proofs).map_err(|f| f.within("comm_d_proofs"))?;
        self.check_tree_proof(&proof.comm_r_last_proof)
            .map_err(|fault| fault.within("comm_r_last_proof"))?;
        let columns = &proof.replica_column_proofs;
        self.check_columns(columns).map_err(|fault| fault.within("replica_column_proofs"))?;
        self.check_labels(proof)
    }

    fn check_data_proof(&self, proof: &MerkleProof) -> Checked {
        let MerkleData::Single { root, leaf, path } = &proof.data else {
            return Err(Fault::new("a path of several trees, expected one of a single tree"));
        };
        check_ends(root, leaf)?;
        check_path(path, self.data_levels, 2).map_err(|fault| fault.within("data.Single.path"))
    }

    fn check_tree_proof(&self, proof: &MerkleProof) -> Checked {
        let TreeShape { base, sub, top } = self.shape;
        let (root, leaf, paths) = match &proof.data {
            MerkleData::Single { root, leaf, path } => (root, leaf, vec![("path", path, base)]),
            MerkleData::Sub { root, leaf, base_proof, sub_proof } => {
                (root, leaf, vec![("base_proof", base_proof, base), ("sub_proof", sub_proof, sub)])
            }
            MerkleData::Top { root, leaf, base_proof, sub_proof, top_proof } => (
                root,
                leaf,
                vec![
                    ("base_proof", base_proof, base),
                    ("sub_proof", sub_proof, sub),
                    ("top_proof", top_proof, top),
                ],
            ),
        };
        let joined = 1 + usize::from(sub > 1) + usize::from(top > 1);
        check_count("joined trees in the path", paths.len(), joined)?;
        check_ends(root, leaf)?;
        paths.into_iter().enumerate().try_for_each(|(index, (name, path, arity))| {
            let levels = if index == 0 { self.base_levels } else { 1 };
            check_path(path, levels, arity as usize).map_err(|fault| fault.within(name))
        })
    }

    fn check_columns(&self, columns: &ReplicaColumnProofs) -> Checked {
        let check = |column: &ColumnProof| self.check_column(column);
        check(&columns.c_x).map_err(|fault| fault.within("c_x"))?;
        let parents = |list: &[ColumnProof], count| {
            check_count("parents", list.len(), count).and_then(|()| each(list, check))
        };
        parents(&columns.drg_parents, DRG_PARENTS).map_err(|f| f.within("drg_parents"))?;
        parents(&columns.exp_parents, EXP_PARENTS).map_err(|f| f.within("exp_parents"))
    }

    fn check_column(&self, proof: &ColumnProof) -> Checked {
        let rows = &proof.column.rows;
        check_count("rows", rows.len(), self.layers)
            .and_then(|()| check_elements(rows))
            .map_err(|fault| fault.within("column.rows"))?;
        self.check_tree_proof(&proof.inclusion_proof)
            .map_err(|fault| fault.within("inclusion_proof"))
    }

    /// Labels must follow from the parents' columns, which are what the circuit sees.
    fn check_labels(&self, proof: &VanillaProof) -> Checked {
        let columns = &proof.replica_column_proofs;
        let labels = &proof.labeling_proofs;
        check_count("layers", labels.len(), self.layers)
            .map_err(|fault| fault.within("labeling_proofs"))?;
        let mut layer = 0;
        each(labels, |label| {
            layer += 1;
            check_label(label, layer, columns)
        })
        .map_err(|fault| fault.within("labeling_proofs"))?;
        if labels.last() != Some(&proof.encoding_proof) {
            let fault = Fault::new("it differs from the labelling proof of the last layer");
            return Err(fault.within("encoding_proof"));
        }
        Ok(())
    }
}

fn check_ends(root: &Element, leaf: &Element) -> Checked {
    check_element(root).map_err(|fault| fault.within("root"))?;
    check_element(leaf).map_err(|fault| fault.within("leaf"))
}

fn check_path(path: &Path, levels: usize, arity: usize) -> Checked {
    check_count("levels", path.path.len(), levels)?;
    each(&path.path, |element| {
        check_count("siblings", element.hashes.len(), arity - 1)?;
        if element.index >= arity {
            return Err(Fault::new(format!("index {} of {arity} nodes", element.index)));
        }
        check_elements(&element.hashes).map_err(|fault| fault.within("hashes"))
    })
}

fn check_label(label: &LabelProof, layer: usize, columns: &ReplicaColumnProofs) -> Checked {
    check_elements(&label.parents).map_err(|fault| fault.within("parents"))?;
    if label.layer_index as usize != layer {
        return Err(Fault::new(format!("layer {}, expected {layer}", label.layer_index)));
    }
    let node = u64::from(columns.c_x.column.index);
    if label.node != node {
        return Err(Fault::new(format!("node {}, but its column is of node {node}", label.node)));
    }
    let drg = columns.drg_parents.iter().map(|parent| &parent.column.rows[layer - 1]);
    let before = if layer > 1 { &columns.exp_parents[..] } else { &[] };
    let exp = before.iter().map(|parent| &parent.column.rows[layer - 2]);
    let once: Vec<&Element> = drg.chain(exp).collect();
    if !label.parents.iter().eq(once.into_iter().cycle().take(HASHED_PARENTS)) {
        return Err(Fault::new("its parents differ from the parents' columns"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use filecoin_proofs::{DefaultTreeHasher, SectorShape2KiB, SectorShape16KiB, SectorShape32KiB};
    use rand::rngs::OsRng;
    use storage_proofs_core::merkle::{DiskTree, MerkleTreeTrait, generate_tree};

    #[test]
    fn elements_below_the_modulus_are_good_and_no_others() {
        // The order of the scalar field of BLS12-381, least significant byte first.
        let mut modulus = [0; 32];
        modulus[..16]
            .copy_from_slice(&0x53bd_a402_fffe_5bfe_ffff_ffff_0000_0001_u128.to_le_bytes());
        modulus[16..]
            .copy_from_slice(&0x73ed_a753_299d_7d48_3339_d808_09a1_d805_u128.to_le_bytes());
        let mut below = modulus;
        below[0] = 0;
        assert_eq!(check_element(&below), Ok(()));
        let fault = check_element(&modulus).unwrap_err();
        assert!(fault.reason.starts_with("01000000ffffffff"), "{}", fault.reason);
        assert!(check_element(&[0xff; 32]).is_err());
    }

    #[test]
    fn places_read_like_paths() {
        let fault = Fault::new("bad").within("[3]").within("hashes").within("[0]").within("path");
        assert_eq!(fault.at, "path[0].hashes[3]");
    }

    #[test]
    fn challenges_and_levels_are_those_of_the_published_crates() {
        for proof in RegisteredProof::all().filter(|proof| proof.number() < 15) {
            let ours = Expectation::of(proof);
            let config = crate::circuit::porep_config(proof).expect("a registered proof");
            let theirs = filecoin_proofs::parameters::setup_params(&config).expect("registered");
            assert_eq!(ours.challenges, theirs.challenges.num_challenges_per_partition());
            assert_eq!(ours.layers, theirs.num_layers);
            assert_eq!(1 << ours.data_levels, theirs.nodes);
            let base = 8_usize.pow(ours.base_levels as u32);
            assert_eq!(base * ours.shape.base_trees() as usize, theirs.nodes);
        }
    }

    /// A path in a tree of `Shape` over `nodes` leaves, by the published crates.
    fn published_path<Shape: MerkleTreeTrait>(nodes: usize) -> MerkleProof {
        type Disk<S> = DiskTree<
            DefaultTreeHasher,
            <S as MerkleTreeTrait>::Arity,
            <S as MerkleTreeTrait>::SubTreeArity,
            <S as MerkleTreeTrait>::TopTreeArity,
        >;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = Some(dir.path().to_path_buf());
        let (_, tree) = generate_tree::<Disk<Shape>, _>(&mut OsRng, nodes, path);
        let proof = tree.gen_proof(nodes - 1).expect("a leaf of the tree");
        let json = serde_json::to_string(&proof).expect("serializable");
        serde_json::from_str(&json).expect("the published structure")
    }

    /// The shapes of production sectors, over trees small enough to make here.
    #[test]
    fn paths_through_joined_trees_are_those_of_the_published_crates() {
        let expectation = |name: &str| {
            let porep = seal_types::Porep {
                sector_size: name.parse().expect("a size"),
                shape: TreeShape::of(name.parse().expect("a size")),
                ..RegisteredProof::all().next().expect("twenty").porep()
            };
            let base_levels = porep.base_tree_leaves().ilog(8) as usize;
            let (partitions, challenges, layers) = (1, 2, 2);
            let data_levels = porep.nodes().ilog2() as usize;
            let shape = porep.shape;
            Expectation { partitions, challenges, layers, shape, data_levels, base_levels }
        };
        let paths = [
            ("2KiB", published_path::<SectorShape2KiB>(64)),
            ("16KiB", published_path::<SectorShape16KiB>(512)),
            ("32KiB", published_path::<SectorShape32KiB>(1024)),
        ];
        for (expected, _) in &paths {
            for (name, path) in &paths {
                let checked = expectation(expected).check_tree_proof(path);
                assert_eq!(checked.is_ok(), expected == name, "{name} as {expected}: {checked:?}");
            }
        }
    }
}
