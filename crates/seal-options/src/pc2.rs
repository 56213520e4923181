//! Settings of `pc2-exec`.

use std::num::NonZeroUsize;

use seal_types::Stage;

use crate::common::Common;
use crate::forms::{self, COUNT, YES_OR_NO};
use crate::row::{About, Row};
use crate::{Environment, Fault, Settings, Sources, isa};

/// More memory for buffers than any machine has: 16 TiB.
const MOST_MEMORY_MIB: u64 = 1 << 24;
/// More nodes than these take longer to check one by one than the whole sector takes to make.
const MOST_CHECK_NODES: u64 = 1 << 20;

/// What `pc2-exec` serves with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pc2 {
    /// What all executors have.
    pub common: Common,
    /// How many sectors are worked on at the same time.
    pub concurrent: Option<NonZeroUsize>,
    /// The most memory for buffers in MiB, for each sector.
    pub memory_mib: u64,
    /// Nodes of the result that are computed again from the written files.
    pub check_nodes: u64,
    /// Whether layers are not compared with the digests that PC1 recorded.
    pub skip_layer_digests: bool,
    /// Whether columns are computed on a GPU.
    pub gpu_columns: bool,
    /// Whether trees and the replica are computed on a GPU.
    pub gpu_trees: bool,
    /// The most columns at a time on a GPU.
    pub most_columns: Option<NonZeroUsize>,
    /// The most leaves of a tree at a time on a GPU.
    pub most_leaves: Option<NonZeroUsize>,
    /// Which GPUs may be used, as the driver reads it.
    pub visible_gpus: Option<String>,
    /// Whether the CPU does the work where no GPU is usable.
    pub gpu_optional: bool,
    /// The instructions of the Poseidon kernel, if not the fastest.
    pub isa: Option<&'static str>,
    flags: Flags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    columns: Option<bool>,
    trees: Option<bool>,
}

impl Pc2 {
    /// The name of the environment for trees on a GPU.
    pub const TREES: &'static str = "FIL_PROOFS_USE_GPU_TREE_BUILDER";
    /// The name of the environment for columns on a GPU.
    pub const COLUMNS: &'static str = "FIL_PROOFS_USE_GPU_COLUMN_BUILDER";
}

/// The only value of `SEAL_GPU`.
pub(crate) const OPTIONAL: &str = "optional";

static ROWS: &[Row<Pc2>] = &[
    Row {
        about: About::option("--concurrent", "N").form(COUNT).default("1").meaning(
            "How many sectors are worked on at the same time; further tasks wait in their order",
        ),
        set: |pc2, text| forms::count(text).map(|count| pc2.concurrent = Some(count)),
    },
    Row {
        about: About::option("--memory-mib", "MIB")
            .form("a number of MiB, at most 16777216")
            .default("2048")
            .everywhere()
            .meaning(
                "The most memory for buffers in MiB, for each sector worked on. Far less is used \
                 with few cpus",
            ),
        set: |pc2, text| {
            let mib = forms::number(text).filter(|mib| *mib <= MOST_MEMORY_MIB)?;
            pc2.memory_mib = mib;
            Some(())
        },
    },
    Row {
        about: About::option("--check-nodes", "N")
            .form("a number of nodes, at most 1048576")
            .default("40")
            .everywhere()
            .meaning(
                "Nodes of the result that are computed again from the written files before \
                 anything gets its name; 0 turns the check off. What a GPU computes is compared \
                 with the CPU in any case",
            ),
        set: |pc2, text| {
            let nodes = forms::number(text).filter(|nodes| *nodes <= MOST_CHECK_NODES)?;
            pc2.check_nodes = nodes;
            Some(())
        },
    },
    Row {
        about: About::flag("--skip-layer-digests").everywhere().meaning(
            "Do not compare the layers with the digests that PC1 recorded. The comparison costs a \
             few percent of a cpu for each layer, and finds files that were damaged between PC1 \
             and PC2",
        ),
        set: |pc2, text| forms::yes_or_no(text).map(|yes| pc2.skip_layer_digests = yes),
    },
    Row {
        about: About::variable(Pc2::TREES).form(YES_OR_NO).without("on the CPU").meaning(
            "1: trees and replica on a GPU, and columns too unless \
             FIL_PROOFS_USE_GPU_COLUMN_BUILDER is 0",
        ),
        set: |pc2, text| forms::yes_or_no(text).map(|yes| pc2.flags.trees = Some(yes)),
    },
    Row {
        about: About::variable(Pc2::COLUMNS)
            .form(YES_OR_NO)
            .without("as for trees")
            .meaning("1: columns on a GPU"),
        set: |pc2, text| forms::yes_or_no(text).map(|yes| pc2.flags.columns = Some(yes)),
    },
    Row {
        about: About::variable("FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE")
            .form(COUNT)
            .meaning("The most columns at a time on a GPU"),
        set: |pc2, text| forms::count(text).map(|most| pc2.most_columns = Some(most)),
    },
    Row {
        about: About::variable("FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE")
            .form(COUNT)
            .meaning("The most leaves of a tree at a time on a GPU"),
        set: |pc2, text| forms::count(text).map(|most| pc2.most_leaves = Some(most)),
    },
    Row {
        about: About { empty_is_a_value: true, ..About::variable("CUDA_VISIBLE_DEVICES") }
            .form("a list of GPUs")
            .without("all")
            .meaning("Which GPU, by index or UUID; the first of them is used"),
        set: |pc2, text| {
            pc2.visible_gpus = Some(text.to_owned());
            Some(())
        },
    },
    Row {
        about: About::variable("SEAL_GPU").form(OPTIONAL).meaning(
            "optional: where a GPU is asked for and none is usable, or it computes wrongly, the \
             CPU does the work; otherwise that is an error at start, and of tasks",
        ),
        set: |pc2, text| (text.trim() == OPTIONAL).then(|| pc2.gpu_optional = true),
    },
    Row {
        about: About::variable("FIL_PROOFS_ROWS_TO_DISCARD").form("2").default("2").meaning(
            "Rows of tree R last that are not kept. With any other number, window PoSt of \
                 other software rejects the tree",
        ),
        set: |_, text| (text.trim() == "2").then_some(()),
    },
    Row {
        about: About::variable(isa::FORCE_ISA)
            .form(isa::FORM)
            .without("the fastest there is")
            .meaning(
                "Instructions of the Poseidon kernel: ifma (AVX-512), fma (AVX2 and FMA) or \
                 portable; the others are of pc1-exec and do nothing here",
            ),
        set: |pc2, text| isa::own(Stage::Pc2, text).map(|own| pc2.isa = own),
    },
];

impl Settings for Pc2 {
    const STAGE: Stage = Stage::Pc2;

    fn rows() -> &'static [Row<Self>] {
        ROWS
    }

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    /// Today's software ignores the columns' flag and lets the trees' flag govern both, so the
    /// second alone means both here too: nobody who relies on it silently gets columns on the CPU.
    fn finish(&mut self, _: &Sources, _: &Environment, _: &mut Vec<Fault>) {
        self.gpu_trees = self.flags.trees.unwrap_or(false);
        self.gpu_columns = self.flags.columns.unwrap_or(self.gpu_trees);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_does_what_it_says_and_the_trees_flag_alone_means_both() {
        for (columns, trees, wanted) in [
            (None, None, (false, false)),
            (None, Some("1"), (true, true)),
            (None, Some("0"), (false, false)),
            (Some("1"), None, (true, false)),
            (Some("0"), None, (false, false)),
            (Some("1"), Some("1"), (true, true)),
            (Some("0"), Some("1"), (false, true)),
            (Some("1"), Some("0"), (true, false)),
            (Some("0"), Some("0"), (false, false)),
            (Some("true"), Some("False"), (true, false)),
            (None, Some(""), (false, false)),
        ] {
            let flags = [(Pc2::COLUMNS, columns), (Pc2::TREES, trees)];
            let set: Vec<_> =
                flags.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
            let pc2 = crate::judge::<Pc2>(&[], &Environment::of(&set)).expect("understood");
            assert_eq!((pc2.gpu_columns, pc2.gpu_trees), wanted, "{set:?}");
        }
    }
}
