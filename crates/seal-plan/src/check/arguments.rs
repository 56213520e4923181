//! Arguments that our executors do not know: they would not start with them.

use seal_config::{StageName, nearest};

use super::{Checking, Severity};

/// The options of our executors that serve, with whether each takes a value.
pub(super) fn options(stage: StageName) -> &'static [(&'static str, bool)] {
    match stage {
        StageName::Pc1 => &[
            ("--concurrent", true),
            ("--parents", true),
            ("--replace-finished", false),
            // After `processor pc1`, as the worker's own processor has them.
            ("--hugepage-files-path", true),
            ("--hugepage_files_path", true),
            ("--hugepage-files-path-pattern", true),
            ("--hugepage_files_path_pattern", true),
        ],
        StageName::Pc2 => &[
            ("--check-nodes", true),
            ("--concurrent", true),
            ("--memory-mib", true),
            ("--skip-layer-digests", false),
        ],
        StageName::C2 => &[
            ("--allow-test-params", false),
            ("--circuit-cache", true),
            ("--concurrent", true),
            ("--device", true),
            ("--memory", true),
            ("--params-memory", true),
            ("--preload", true),
        ],
        _ => &[],
    }
}

impl Checking<'_> {
    pub(super) fn arguments(&mut self) {
        for executor in self.scheme.executors.clone().iter().filter(|executor| executor.ours) {
            let known = options(executor.stage);
            let tables = self.config.executors.get(&executor.stage);
            let table = tables.and_then(|tables| tables.get(executor.index));
            let args = table.map(|table| table.args.clone()).unwrap_or_default();
            let mut args = args.iter().map(String::as_str).peekable();
            while let Some(arg) = args.next() {
                let (name, inline) = match arg.split_once('=') {
                    Some((name, _)) => (name, true),
                    None => (arg, false),
                };
                let trouble = match known.iter().find(|(option, _)| *option == name) {
                    Some((_, true)) if !inline => match args.next() {
                        Some(_) => None,
                        None => Some((format!("{name} has no value"), None)),
                    },
                    Some((_, false)) if inline => Some((format!("{name} takes no value"), None)),
                    Some(_) => None,
                    None if name.starts_with('-') => {
                        // What follows is its value, presumably.
                        args.next_if(|next| !inline && !next.starts_with('-'));
                        let options = known.iter().map(|(option, _)| *option);
                        Some((format!("{name} is not an option of it"), nearest(name, options)))
                    }
                    // The command that serves, and its stage.
                    None if name == "processor" || name == executor.stage.name() => None,
                    None => Some((format!("{name:?} is not understood"), None)),
                };
                let Some((reason, meant)) = trouble else { continue };
                let program = executor.stage.served().map_or("", |stage| stage.executor());
                self.find(
                    ("args-unknown", Severity::Error),
                    &format!("{}.args", executor.key),
                    format!("{reason}: the executor's start would fail"),
                    match meant {
                        Some(meant) => format!("write {meant}, or remove it"),
                        None => format!("`{program} --help` tells what it understands"),
                    },
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// The options are those in the sources of the executors: each `#[arg(long…)]` of the arguments
    /// they serve with, by each of its names.
    #[test]
    fn the_options_are_those_of_the_executors() {
        for stage in [StageName::Pc1, StageName::Pc2, StageName::C2] {
            let fields_of = |file: &str, arguments: &str| {
                let path = format!("../{stage}-exec/src/{file}");
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
                let text = std::fs::read_to_string(&path).expect("the sources of an executor");
                let start = format!("struct {arguments} {{");
                let (_, rest) = text.split_once(&start).expect("its arguments");
                rest.split_once("\n}").expect("their end").0.to_owned()
            };
            let mut fields = fields_of("cli.rs", "ServeArgs");
            if stage == StageName::Pc1 {
                fields += &fields_of("hugepages.rs", "FilesArgs");
            }
            let mut found = BTreeMap::new();
            for argument in fields.split("#[arg(long").skip(1) {
                let mut lines =
                    argument.lines().skip_while(|line| !line.trim_end().ends_with(")]"));
                let field = lines.nth(1).expect("the field that follows").trim();
                let (name, kind) = field.split_once(':').expect("a name and a type");
                let takes_value = kind.trim().trim_end_matches(',') != "bool";
                found.insert(format!("--{}", name.trim().replace('_', "-")), takes_value);
                let (arg, _) = argument.split_once(")]").expect("the end of the attribute");
                let alias = arg.split_once("alias = \"").and_then(|(_, rest)| rest.split_once('"'));
                found.extend(alias.map(|(alias, _)| (format!("--{alias}"), takes_value)));
            }
            assert!(found.len() >= 2, "{stage}: {found:?}");
            let known: BTreeMap<_, _> =
                options(stage).iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            // Of an executor that is built without a GPU `--device` may be missing.
            for (name, value) in &found {
                assert_eq!(known.get(name), Some(value), "{stage} {name}");
            }
            for name in known.keys().filter(|name| *name != "--device") {
                assert!(found.contains_key(name), "{stage} has no {name}");
            }
        }
    }
}
