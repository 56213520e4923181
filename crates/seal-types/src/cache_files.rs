//! Names of the files in a sector's cache directory.
//!
//! Other software finds these files by name, so the names are those of `rust-fil-proofs`:
//! `sc-02-data-<id>.dat` for stores, `p_aux` and `t_aux` for the auxiliary data.

use crate::{Porep, TreeShape};

/// File of the binary SHA-256 tree over the data.
pub const TREE_D: &str = "sc-02-data-tree-d.dat";
/// File with `comm_c` and `comm_r_last`.
pub const P_AUX: &str = "p_aux";
/// File with the store configurations that C1 reads.
pub const T_AUX: &str = "t_aux";

/// Our own record of which layers are finished: hidden, and outside the patterns by which other
/// software looks for layers and trees.
pub const MANIFEST: &str = ".seal-exec.json";

/// Store id of a layer, counted from 1.
pub fn layer_id(layer: u32) -> String {
    format!("layer-{layer}")
}

/// File of a layer, counted from 1.
pub fn layer_file(layer: u32) -> String {
    format!("sc-02-data-layer-{layer}.dat")
}

/// File of base tree `index` of tree C.
pub fn tree_c_file(shape: TreeShape, index: u32) -> String {
    tree_file("tree-c", shape, index)
}

/// File of base tree `index` of tree R last.
pub fn tree_r_last_file(shape: TreeShape, index: u32) -> String {
    tree_file("tree-r-last", shape, index)
}

/// All files that sealing makes in the cache directory of a sector.
pub fn files_of_sector(porep: &Porep) -> Vec<String> {
    let trees = (0..porep.shape.base_trees())
        .flat_map(|tree| [tree_c_file(porep.shape, tree), tree_r_last_file(porep.shape, tree)]);
    let others = [TREE_D, P_AUX, T_AUX, MANIFEST].map(str::to_owned);
    (1..=porep.layers).map(layer_file).chain(trees).chain(others).collect()
}

/// A single base tree goes without a number.
fn tree_file(id: &str, shape: TreeShape, index: u32) -> String {
    if shape.base_trees() == 1 {
        format!("sc-02-data-{id}.dat")
    } else {
        format!("sc-02-data-{id}-{index}.dat")
    }
}

/// Whether `name` is a file that sealing under another replica id may have left in a cache
/// directory: layers, tree C, tree R last, the auxiliary files, and our own temporaries.
///
/// `filecoin-proofs` trusts layers by their size alone and reuses an existing tree C, so these
/// must go before another replica id is sealed in the same directory. Tree D is not among them:
/// it depends on the data only.
pub fn is_remains_of_sealing(name: &str) -> bool {
    let store = |id: &str| {
        name.strip_prefix("sc-02-data-")
            .is_some_and(|rest| rest.starts_with(id) && rest.ends_with(".dat"))
    };
    let temporary = name.starts_with('.') && name.ends_with(".part");
    name == P_AUX
        || name == T_AUX
        || temporary
        || ["layer-", "tree-c", "tree-r-last"].into_iter().any(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_trees_are_numbered_only_where_there_are_several() {
        let one = TreeShape { base: 8, sub: 1, top: 1 };
        let many = TreeShape { base: 8, sub: 8, top: 2 };
        assert_eq!(tree_c_file(one, 0), "sc-02-data-tree-c.dat");
        assert_eq!(tree_r_last_file(many, 15), "sc-02-data-tree-r-last-15.dat");
    }

    #[test]
    fn all_files_of_a_sector_are_named_once() {
        let porep = "StackedDrg64GiBV1_1".parse::<crate::RegisteredProof>().expect("one").porep();
        let names = files_of_sector(&porep);
        assert_eq!(names.len(), 11 + 2 * 16 + 4);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        let kept = |name: &&String| !is_remains_of_sealing(name);
        assert_eq!(names.iter().filter(kept).collect::<Vec<_>>(), [TREE_D, MANIFEST]);
    }

    #[test]
    fn remains_are_told_from_tree_d_and_foreign_files() {
        for name in ["p_aux", "t_aux", "sc-02-data-layer-11.dat", ".p_aux.part"] {
            assert!(is_remains_of_sealing(name), "{name}");
        }
        for name in ["sc-02-data-tree-c-7.dat", "sc-02-data-tree-r-last.dat"] {
            assert!(is_remains_of_sealing(name), "{name}");
        }
        for name in [TREE_D, "note.txt", "layer-1", "sc-02-data-layer-1.dat.bak", ".part"] {
            assert_eq!(is_remains_of_sealing(name), name == ".part", "{name}");
        }
        // It tells what of the layers is left, so it is replaced and not removed.
        assert!(!is_remains_of_sealing(MANIFEST));
    }
}
