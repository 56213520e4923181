//! Which colour means what.

use seal_config::StageName;

/// Cores and GPUs that nobody uses.
pub(super) const FREE: &str = "#eeeeee";

/// The colours of a stage's executors: four shades, then from the first again.
pub(super) fn of_executor(stage: StageName, index: usize) -> &'static str {
    let shades = match stage {
        StageName::Pc1 => ["#5b8fd6", "#8db5e8", "#4a74ad", "#a9c7ee"],
        StageName::Pc2 => ["#59a14f", "#8cd17d", "#3f7f37", "#b3e2a7"],
        StageName::C2 => ["#f28e2b", "#ffbe7d", "#d9771a", "#ffd5a8"],
        _ => ["#a07cbf", "#c5aedb", "#835fa3", "#dccfe9"],
    };
    shades[index % shades.len()]
}
