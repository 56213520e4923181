//! The reference of all settings of executors.

use std::fmt::Write;

use seal_types::Stage;

use crate::row::{About, Unset};
use crate::rows_of;

const TITLE: &str = "\
# Settings of the executors

Each executor takes settings from its command line and from its environment.
An option overrides the environment, and the environment overrides the default.
An empty value of the environment counts as not set, unless the meaning says otherwise.
A value that is not of the form in the table stops the start, and the message names the setting, the value and the form.

Under `seal-supervisor`, options are the `args` and names of the environment the `envs` of a `[[processors.<stage>]]` table; `seal-supervisor config --check` and `seal-plan check` judge them by the same tables.
`seal-plan` and `seal-supervisor` have settings of their own: see their `--help` and [config.md](config.md).

";

/// The reference, in Markdown.
pub fn reference() -> String {
    let mut text = TITLE.to_owned();
    let tables: Vec<_> = Stage::ALL.into_iter().map(rows_of).collect();
    let is_common =
        |about: &About| tables.iter().all(|rows| rows.iter().any(|row| std::ptr::eq(*row, about)));
    for (stage, rows) in Stage::ALL.into_iter().zip(&tables) {
        let own = rows.iter().filter(|about| !is_common(about));
        section(&mut text, &format!("`{}`", stage.executor()), own.copied());
    }
    let common = tables.first().into_iter().flatten().filter(|about| is_common(about));
    section(&mut text, "All executors", common.copied());
    text
}

fn section(text: &mut String, title: &str, rows: impl Iterator<Item = &'static About>) {
    let _ = writeln!(text, "## {title}\n\n| option | environment | form | default | meaning |");
    text.push_str("|---|---|---|---|---|\n");
    for about in rows {
        let named = |name: Option<&str>| name.map(|name| format!("`{name}`")).unwrap_or_default();
        let option = match (about.option, about.value) {
            (Some(option), Some(value)) => format!("`{option} {value}`"),
            (option, _) => named(option),
        };
        let default = match about.default {
            Unset::Value(value) => format!("`{value}`"),
            Unset::Else(what) => what.to_owned(),
            Unset::Nothing => String::new(),
        };
        let (variable, form) = (named(about.variable), about.form);
        let _ =
            writeln!(text, "| {option} | {variable} | {form} | {default} | {} |", about.meaning);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Rewrites the document when it is stale, and fails so that the change is looked at.
    #[test]
    fn the_page_is_that_of_the_tables() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/options.md");
        let made = format!("{}\n", super::reference().trim_end());
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        if there != made {
            std::fs::write(&path, made).expect("the document can be written");
            panic!("docs/options.md was stale and has been written anew; look at the change");
        }
    }
}
