//! The reference of all keys, and an example that has them all.

use std::fmt::Write;

use seal_types::StageName;

use crate::keys::{SECTIONS, STAGE_KEYS, Section};

const TITLE: &str = "\
# Configuration

The file that `seal-supervisor` reads is a `[processors]` section as venus-worker reads it, and beside it, if wanted, a `[supervisor]` section.
A whole venus-worker.toml will do; its other sections are left alone.
Inside these two, reading is strict: an unknown key, stage or lock, a limit of zero, a bad cpuset or duration stop the start, and the message names file, line, key, value and reason.

`seal-supervisor config --check` judges a file and this machine, `--show` prints what holds with all defaults, `--example` prints a file with every key.
An option of the command line goes before the environment, that before the file, and the file before the default.

";

/// The reference of all keys, in Markdown.
pub fn reference() -> String {
    let mut text = TITLE.to_owned();
    text.push_str("Stages: ");
    let stages: Vec<_> = StageName::ALL.iter().map(|stage| format!("`{stage}`")).collect();
    text.push_str(&stages.join(", "));
    text.push_str(
        ".\nThe supervisor serves every stage whose executors have a `bin`; `pc1`, `pc2` and `c2` \
         have executors of their own.\n\
         Workers call `sealing_daemons` `EMPTY` when they start its processor and in its ready \
         line, and so does the supervisor.\n\
         Durations are written like `\"5s\"` or `\"2m 30s\"`, sizes like `\"64GiB\"`, cpus like \
         `\"0-41,48\"`.\n",
    );
    for section in SECTIONS {
        let Section { title, about, keys, .. } = section;
        let _ = writeln!(text, "\n## {title}\n\n{about}\n");
        text.push_str("| key | form | default | meaning |\n|---|---|---|---|\n");
        for key in *keys {
            let (name, form) = (key.name, key.form);
            let _ = writeln!(text, "| `{name}` | {form} | {} | {} |", key.default, key.meaning);
        }
    }
    text
}

/// A configuration with every key but those that only older software reads, each with its meaning.
/// It is one that can be read, and nothing in it is warned of.
pub fn example() -> String {
    let mut text =
        "# All keys of the configuration of seal-supervisor. Only [processors] and one\n\
                    # [[processors.<stage>]] table are needed; everything else has a default.\n"
            .to_owned();
    for Section { header, about, keys, .. } in SECTIONS {
        text.push('\n');
        wrap(&mut text, about);
        let _ = writeln!(text, "{header}");
        for key in keys.iter().filter(|key| !key.example.is_empty()) {
            let default = match key.default {
                "" => String::new(),
                default => format!(" Default: {}.", default.replace('`', "")),
            };
            wrap(&mut text, &format!("{}.{default}", sentence(&key.meaning.replace('`', ""))));
            if key.name.starts_with('<') {
                let _ = writeln!(text, "{}", key.example);
            } else {
                let _ = writeln!(text, "{} = {}", key.name, key.example);
            }
        }
    }
    debug_assert!(STAGE_KEYS.iter().all(|key| text.contains(key.name)));
    text
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Adds a comment in lines of at most 100 characters.
fn wrap(text: &mut String, comment: &str) {
    let mut line = "#".to_owned();
    for word in comment.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            text.push_str(&line);
            text.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::{ConfigError, parse};

    fn read(text: &str) -> Result<crate::Config, ConfigError> {
        parse(Path::new("example.toml"), text)
    }

    /// The full name of a key of the table as it is in the example.
    fn full_name(section: &Section, key: &crate::keys::Key) -> String {
        let table = section.header.trim_matches(['[', ']']);
        let table =
            if section.header.starts_with("[[") { format!("{table}[0]") } else { table.into() };
        let name = match key.name.starts_with('<') {
            true => key.example.split(' ').next().expect("a word"),
            false => key.name,
        };
        format!("{table}.{name}")
    }

    #[test]
    fn the_example_is_accepted_and_has_every_key_of_today() {
        let config = read(&example()).unwrap_or_else(|error| panic!("{error}\n{}", example()));
        for section in SECTIONS {
            for key in section.keys {
                let name = full_name(section, key);
                let is_written = !key.example.is_empty();
                assert_eq!(config.places.get(&name).is_some(), is_written, "{name}");
            }
        }
        assert_eq!(config.ignored, []);
    }

    #[test]
    fn the_reference_has_every_key_that_is_read() {
        let names = |keys: &[crate::keys::Key]| -> BTreeSet<String> {
            keys.iter().map(|key| key.name.split('.').next().expect("a part").to_owned()).collect()
        };
        let stages: BTreeSet<String> = StageName::ALL.iter().map(ToString::to_string).collect();
        for (text, section, more) in [
            ("[[processors.pc1]]\nzzzz = 1", "[[processors.pc1]]", BTreeSet::new()),
            ("[processors]\n[supervisor.pc1]\nzzzz = 1", "[supervisor.pc1]", BTreeSet::new()),
            (
                "[processors.ext_locks]\ngpu1 = 1\n[supervisor.locks.gpu1]\nzzzz = 1",
                "[supervisor.locks.gpu1]",
                BTreeSet::new(),
            ),
            (
                "[processors]\n[supervisor]\nzzzz = 1",
                "[supervisor]",
                stages
                    .iter()
                    .cloned()
                    .chain(names(STAGE_KEYS))
                    .chain(["locks".to_owned()])
                    .collect(),
            ),
        ] {
            let error = read(text).expect_err("an unknown key").to_string();
            let known = error.split("known are ").nth(1).expect("known keys are listed");
            let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
            let section = SECTIONS.iter().find(|s| s.header == section).expect("in the table");
            let documented: BTreeSet<_> = names(section.keys).into_iter().chain(more).collect();
            assert_eq!(known, documented, "{text}");
        }
        let error = read("[processors]\nzzzz = 1").expect_err("an unknown key").to_string();
        let known = error.split("known are ").nth(1).expect("known keys are listed");
        for name in known.split(", ").filter(|name| !stages.contains(*name)) {
            let header = format!("[processors.{name}");
            assert!(SECTIONS.iter().any(|section| section.header.starts_with(&header)), "{name}");
        }
    }

    /// Rewrites the document when it is stale, and fails so that the change is looked at.
    #[test]
    fn the_document_is_this_reference() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
        let wanted = format!(
            "{}\n## Example\n\n`seal-supervisor config --example` prints it.\n\n```toml\n{}```\n",
            reference(),
            example()
        );
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        if there != wanted {
            std::fs::write(&path, wanted).expect("the document can be written");
            panic!("docs/config.md was stale and has been written anew; look at the change");
        }
    }
}
