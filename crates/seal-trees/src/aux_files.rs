//! The auxiliary files of a sector, which C1 reads: `p_aux` and `t_aux`.
//!
//! Both are bincode 1 of structures whose fields and their order are those of `rust-fil-proofs`
//! 12 to 19.1.

use std::path::Path;

use seal_types::{Commitment, Porep, layer_id};
use serde::{Deserialize, Serialize};

use crate::TreesError;
use crate::tree::Layout;
use crate::tree_d::tree_d_layout;

/// Where a store lies and how large it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreConfig {
    /// Directory of the store.
    pub path: String,
    /// The file is called `sc-02-data-<id>.dat`, or numbered where there are several base trees.
    pub id: String,
    /// Nodes of the store; of one base tree where there are several, discarded rows included.
    pub size: Option<u64>,
    /// Rows above the leaves that are not in the file (nor are the leaves then).
    pub rows_to_discard: u64,
}

/// What `t_aux` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporaryAux {
    /// The layers in their order.
    pub labels: Vec<StoreConfig>,
    /// Tree D.
    pub tree_d: StoreConfig,
    /// Tree R last.
    pub tree_r_last: StoreConfig,
    /// Tree C.
    pub tree_c: StoreConfig,
}

impl TemporaryAux {
    /// For a sector in `cache_dir`.
    pub fn new(porep: &Porep, cache_dir: &Path) -> Result<Self, TreesError> {
        let path = cache_dir
            .to_str()
            .ok_or_else(|| TreesError::PathNotUtf8 { path: cache_dir.to_path_buf() })?;
        let store = |id: String, size: u64, rows_to_discard: u32| StoreConfig {
            path: path.to_owned(),
            id,
            size: Some(size),
            rows_to_discard: rows_to_discard.into(),
        };
        let base = Layout::new(porep.shape.base as usize, porep.base_tree_leaves(), 0)?;
        let (_, tree_d) = tree_d_layout(porep.nodes())?;
        let rows_to_discard = porep.rows_to_discard();
        Ok(Self {
            labels: (1..=porep.layers)
                .map(|layer| store(layer_id(layer), porep.nodes(), 0))
                .collect(),
            tree_d: store("tree-d".to_owned(), tree_d.file_nodes(), 0),
            tree_r_last: store("tree-r-last".to_owned(), base.file_nodes(), rows_to_discard),
            tree_c: store("tree-c".to_owned(), base.file_nodes(), 0),
        })
    }

    /// The bytes of `t_aux`.
    pub fn to_bytes(&self) -> Vec<u8> {
        bincode::serialize(self).expect("strings and numbers always serialise into memory")
    }
}

/// The bytes of `p_aux`.
pub fn p_aux_bytes(comm_c: &Commitment, comm_r_last: &Commitment) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&comm_c.0);
    bytes[32..].copy_from_slice(&comm_r_last.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;

    #[test]
    fn t_aux_has_the_published_layout() {
        let porep = "StackedDrg32GiBV1_1".parse::<RegisteredProof>().expect("a proof").porep();
        let aux = TemporaryAux::new(&porep, Path::new("/c")).expect("UTF-8");
        let mut wanted = Vec::new();
        let number = |n: u64, out: &mut Vec<u8>| out.extend_from_slice(&n.to_le_bytes());
        let mut store = |id: &str, size: u64, discard: u64| {
            number(2, &mut wanted);
            wanted.extend_from_slice(b"/c");
            number(id.len() as u64, &mut wanted);
            wanted.extend_from_slice(id.as_bytes());
            wanted.push(1);
            number(size, &mut wanted);
            number(discard, &mut wanted);
        };
        for layer in 1..=11 {
            store(&format!("layer-{layer}"), 1 << 30, 0);
        }
        store("tree-d", (1 << 31) - 1, 0);
        // One base tree: 2^27 leaves and everything above.
        store("tree-r-last", 153_391_689, 2);
        store("tree-c", 153_391_689, 0);
        let wanted = [11_u64.to_le_bytes().to_vec(), wanted].concat();
        assert_eq!(aux.to_bytes(), wanted);
        assert_eq!(bincode::deserialize::<TemporaryAux>(&wanted).expect("its own bytes"), aux);
    }

    #[test]
    fn a_directory_that_is_not_utf_8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let porep = RegisteredProof::all().next().expect("twenty").porep();
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/c\xff"));
        let error = TemporaryAux::new(&porep, path).unwrap_err();
        assert!(matches!(error, TreesError::PathNotUtf8 { .. }), "{error}");
    }
}
