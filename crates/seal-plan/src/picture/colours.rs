//! Which colour means what.

use seal_config::StageName;

/// Cores and GPUs that nobody uses.
pub(super) const FREE: &str = "#eeeeee";

/// The thread of a core whose other thread is used, and that nobody uses itself.
pub(super) const IDLE: &str = "#f3efe2";

/// The colours of a stage's executors: eight, one for each node of two sockets of four, then from
/// the first again. All are light enough for dark texts, since a text can lie on several.
pub(super) fn of_executor(stage: StageName, index: usize) -> &'static str {
    let shades = match stage {
        StageName::Pc1 => {
            ["#5b8fd6", "#a9c7ee", "#6fb7e9", "#d3e3f8", "#7c9fdc", "#8fd0ee", "#b9c4f2", "#79a9c9"]
        }
        StageName::Pc2 => {
            ["#59a14f", "#8cd17d", "#6fb08f", "#c6ebbb", "#a3b95c", "#7fc6a4", "#d5df9b", "#8aa86f"]
        }
        StageName::C2 => {
            ["#f28e2b", "#ffbe7d", "#e8a33d", "#ffd9b3", "#f0a58f", "#e6c35c", "#f7c4b4", "#d99a63"]
        }
        _ => {
            ["#a07cbf", "#c5aedb", "#b98ac9", "#e1d4ee", "#9f8fd0", "#d9a9d6", "#bdb4e6", "#b592ad"]
        }
    };
    shades[index % shades.len()]
}
