//! What an executor makes of its arguments and environment, for whoever does not start it.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use seal_types::{Stage, shown};

use crate::row::About;
use crate::{C2, Environment, Fault, Pc1, Pc2, Settings, Source, nearest};

/// The settings with which the executor would serve, or all that is wrong with them.
pub fn judge<S: Settings>(
    arguments: &[String],
    environment: &Environment,
) -> Result<S, Vec<Fault>> {
    let (settings, faults) = look::<S>(arguments, environment);
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// The settings as far as they are good, and all that is wrong with them.
pub fn look<S: Settings>(arguments: &[String], environment: &Environment) -> (S, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut left: Vec<&str> = arguments.iter().map(String::as_str).collect();
    loop {
        let command = S::command("");
        let name = S::STAGE.executor();
        match command.try_get_matches_from(std::iter::once(name).chain(left.iter().copied())) {
            Ok(matches) => {
                let asked = matches.subcommand_matches("processor");
                let stage = asked.and_then(|asked| asked.get_one::<String>("stage"));
                faults.extend(stage.and_then(|stage| refused_stage(stage, S::STAGE)));
                let (settings, more) = S::read(&matches, environment);
                faults.extend(more);
                return (settings, faults);
            }
            Err(error) => {
                // The rest is looked at without what is wrong: each fault is found once.
                let at = position_of(&error, &left);
                faults.push(of_command_line::<S>(&error, at.and_then(|at| left.get(at).copied())));
                match at {
                    Some(at) => {
                        let wrong = left.remove(at);
                        // What follows an option that is not known is its value, presumably.
                        let is_value = |next: &&str| !next.starts_with('-') && *next != "processor";
                        if error.kind() == ErrorKind::UnknownArgument
                            && wrong.starts_with('-')
                            && !wrong.contains('=')
                            && left.get(at).is_some_and(is_value)
                        {
                            left.remove(at);
                        }
                    }
                    None => left.clear(),
                }
            }
        }
    }
}

/// The settings of an executor of any stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// Of PC1.
    Pc1(Pc1),
    /// Of PC2.
    Pc2(Pc2),
    /// Of C2.
    C2(C2),
}

impl Options {
    /// As [`look`], for the executor of `stage`.
    pub fn look(
        stage: Stage,
        arguments: &[String],
        environment: &Environment,
    ) -> (Self, Vec<Fault>) {
        match stage {
            Stage::Pc1 => {
                let (pc1, faults) = look(arguments, environment);
                (Self::Pc1(pc1), faults)
            }
            Stage::Pc2 => {
                let (pc2, faults) = look(arguments, environment);
                (Self::Pc2(pc2), faults)
            }
            Stage::C2 => {
                let (c2, faults) = look(arguments, environment);
                (Self::C2(c2), faults)
            }
        }
    }

    /// How many tasks the executor works on at the same time by itself; `None` is any number.
    pub fn concurrent(&self) -> Option<std::num::NonZeroUsize> {
        match self {
            Self::Pc1(pc1) => pc1.concurrent,
            Self::Pc2(pc2) => pc2.concurrent,
            Self::C2(c2) => c2.concurrent,
        }
    }
}

/// What is wrong where the executor of a stage is asked to serve `asked`, if that is another one.
pub fn refused_stage(asked: &str, own: Stage) -> Option<Fault> {
    let stage = asked.parse::<Stage>().ok();
    let other = stage.map_or("the executor of that stage", Stage::executor);
    (stage != Some(own)).then(|| Fault {
        source: Source::Argument("processor".to_owned()),
        value: Some(asked.to_owned()),
        reason: format!("{} serves {own} only", own.executor()),
        remedy: format!("write {own}, or start {other}"),
    })
}

/// Which argument an error is about.
fn position_of(error: &clap::Error, arguments: &[&str]) -> Option<usize> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let asks = ["--help", "-h", "help", "--version", "-V"];
        return arguments.iter().position(|argument| asks.contains(argument));
    }
    let wrong =
        [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue];
    let named = wrong.into_iter().find_map(|kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    })?;
    // `--name <VALUE>` is how an option with a value is named.
    let named = named.split([' ', '=']).next()?;
    arguments.iter().position(|argument| argument.split('=').next() == Some(named))
}

fn of_command_line<S: Settings>(error: &clap::Error, argument: Option<&str>) -> Fault {
    let text = argument.unwrap_or_default();
    let name = text.split('=').next().unwrap_or_default();
    let known = S::abouts().find(|about| about.option == Some(name) || is_alias(about, name));
    let reason = match (error.kind(), known) {
        (ErrorKind::UnknownArgument, _) if name.starts_with('-') => {
            "it is not an option of this executor".to_owned()
        }
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, _) => {
            "it is not understood".to_owned()
        }
        (ErrorKind::InvalidValue, Some(_)) => "it has no value".to_owned(),
        (ErrorKind::TooManyValues, Some(_)) => "it takes no value".to_owned(),
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => {
            "the executor prints a text and serves nothing".to_owned()
        }
        _ => {
            let text = error.to_string();
            shown(text.lines().next().unwrap_or_default().trim_start_matches("error: "))
                .into_owned()
        }
    };
    let options = S::abouts().filter_map(|about| about.option);
    let remedy = match (error.kind(), known, nearest(name, options)) {
        (ErrorKind::InvalidValue, Some(about), _) => format!("add {}", about.form),
        (ErrorKind::UnknownArgument, _, Some(option)) => format!("write {option}, or remove it"),
        _ => format!("remove it; `{} --help` names what there is", S::STAGE.executor()),
    };
    let source = match known.and_then(|about| about.option) {
        Some(option) => Source::Option(option),
        None => Source::Argument(text.to_owned()),
    };
    Fault { source, value: None, reason, remedy }
}

fn is_alias(about: &About, name: &str) -> bool {
    about.aliases.contains(&name.trim_start_matches('-'))
}

/// What is said of each setting of the executor of a stage.
pub fn rows_of(stage: Stage) -> Vec<&'static About> {
    match stage {
        Stage::Pc1 => Pc1::abouts().collect(),
        Stage::Pc2 => Pc2::abouts().collect(),
        Stage::C2 => C2::abouts().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use proptest::prelude::*;
    use seal_types::SectorSize;

    use super::*;
    use crate::{C2Device, NodeMemory};

    fn judged<S: Settings>(line: &str, set: &[(&str, &str)]) -> Result<S, Vec<String>> {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        judge::<S>(&arguments, &Environment::of(set))
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn good<S: Settings>(line: &str, set: &[(&str, &str)]) -> S {
        judged(line, set).unwrap_or_else(|faults| panic!("{line} {set:?}: {faults:?}"))
    }

    #[test]
    fn every_default_is_a_value_of_its_form() {
        let pc1 = good::<Pc1>("", &[]);
        assert_eq!((pc1.producers, pc1.lanes, pc1.resume, pc1.smt), (1, 4, true, false));
        assert_eq!((pc1.concurrent, pc1.numa), (None, NodeMemory::Strict));
        assert_eq!(pc1.parents, PathBuf::from("/var/tmp/filecoin-parents"));
        assert_eq!(pc1.common.lock_wait, Duration::from_secs(120));
        let pc2 = good::<Pc2>("", &[]);
        assert_eq!((pc2.memory_mib, pc2.check_nodes), (2048, 40));
        let c2 = good::<C2>("", &[]);
        assert_eq!((c2.ready_within, c2.device), (Duration::from_secs(4), None));
        assert_eq!(
            c2.circuits,
            Some("/var/tmp/filecoin-proof-parameters/seal-exec-circuits".into())
        );
    }

    #[test]
    fn an_option_goes_before_the_environment_and_stands_on_either_side_of_processor() {
        let set = [("SEAL_PC1_CONCURRENT", "3"), ("FIL_PROOFS_PARENT_CACHE", "/env")];
        for (line, concurrent, parents) in [
            ("", 3, "/env"),
            ("--concurrent 5", 5, "/env"),
            ("--concurrent=5 processor pc1 --parents /given", 5, "/given"),
            ("processor pc1 --concurrent 7", 7, "/env"),
        ] {
            let pc1 = good::<Pc1>(line, &set);
            assert_eq!(pc1.concurrent.map_or(0, usize::from), concurrent, "{line}");
            assert_eq!(pc1.parents, PathBuf::from(parents), "{line}");
        }
        let c2 = good::<C2>(
            "--preload 2KiB,8MiB --preload 32GiB --memory 96GiB processor c2 --allow-test-params",
            &[("SEAL_ALLOW_TEST_PARAMS", "0"), ("SEAL_C2_DEVICE", "cuda")],
        );
        let sizes = [SectorSize::KIB_2, SectorSize::MIB_8, SectorSize::GIB_32];
        assert_eq!(c2.preload, sizes);
        assert!(c2.allow_test_params);
        assert_eq!((c2.memory, c2.device), (Some(96 << 30), Some(C2Device::Cuda)));
        assert_eq!(c2.device_by, Some(Source::Variable("SEAL_C2_DEVICE")));
    }

    #[test]
    fn an_empty_value_of_the_environment_is_none_but_where_it_says_something() {
        let set = [
            ("SEAL_WORK_DIR", ""),
            ("SEAL_LOCK_WAIT", ""),
            ("SEAL_PC1_LANES", " "),
            ("SEAL_RUNTIME_DIR", ""),
        ];
        let pc1 = good::<Pc1>("", &set);
        assert_eq!((pc1.work_dir, pc1.lanes, pc1.common.runtime_dir), (None, 4, None));
        let none = good::<Pc2>("", &[("CUDA_VISIBLE_DEVICES", "")]);
        assert_eq!(none.visible_gpus.as_deref(), Some(""));
        assert!(good::<C2>("", &[("BELLMAN_NO_GPU", "")]).no_gpu);
        assert!(!good::<C2>("", &[("BELLMAN_NO_GPU", "0")]).no_gpu);
    }

    #[test]
    fn memory_files_are_named_by_options_before_the_environment() {
        let set = [
            ("HUGEPAGE_FILES_PATH", "/env"),
            ("HUGEPAGE_FILES_PATH_PATTERN", "/env/n$NUMA_NODE_INDEX"),
        ];
        for (options, pattern) in [
            ("", "/env/n$NUMA_NODE_INDEX"),
            ("--hugepage-files-path /mnt/h", "/mnt/h/numa_$NUMA_NODE_INDEX"),
            ("--hugepage_files_path=/mnt/h/", "/mnt/h/numa_$NUMA_NODE_INDEX"),
            ("--hugepage-files-path-pattern /mnt/$NUMA_NODE_INDEX", "/mnt/$NUMA_NODE_INDEX"),
            ("--hugepage_files_path_pattern /mnt/$NUMA_NODE_INDEX", "/mnt/$NUMA_NODE_INDEX"),
            (
                "--hugepage-files-path /x --hugepage-files-path-pattern /y$NUMA_NODE_INDEX",
                "/y$NUMA_NODE_INDEX",
            ),
        ] {
            let pc1 = good::<Pc1>(&format!("processor pc1 {options}"), &set);
            assert_eq!(pc1.memory_files.expect("named").pattern, pattern, "{options}");
        }
        let faults = judged::<Pc1>("--hugepage-files-path-pattern /mnt", &[]).unwrap_err();
        assert!(faults[0].contains("$NUMA_NODE_INDEX in it"), "{faults:?}");
    }

    #[test]
    fn all_faults_are_found_each_with_name_value_and_remedy() {
        let set = [
            ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "abc"),
            ("SEAL_PC1_LANES", "9"),
            ("SEAL_NUMA", "prefered"),
            ("SEAL_FORCE_ISA", "avx3"),
            ("SEAL_LOCK_WAIT", "5"),
            ("VC_CG_CPUSET", "9-1"),
        ];
        let line = "--concurrent 0 --concurent=3 --lanes 2 extra processor pc2";
        let faults = judged::<Pc1>(line, &set).unwrap_err();
        for expected in [
            "--concurent=3: it is not an option of this executor; write --concurrent, or remove it",
            "--lanes: it is not an option",
            "extra: it is not understood",
            "processor=\"pc2\": pc1-exec serves pc1 only; write pc1, or start pc2-exec",
            "--concurrent=\"0\": it has to be a number from 1 on",
            "FIL_PROOFS_MULTICORE_SDR_PRODUCERS=\"abc\": it has to be a number of threads",
            "SEAL_PC1_LANES=\"9\": it has to be a number from 1 to 4; write a number from 1 to 4, \
             or leave it out",
            "SEAL_NUMA=\"prefered\": it has to be strict or preferred",
            "SEAL_FORCE_ISA=\"avx3\"",
            "SEAL_LOCK_WAIT=\"5\"",
            "VC_CG_CPUSET=\"9-1\"",
        ] {
            let found = faults.iter().filter(|fault| fault.starts_with(expected)).count();
            assert_eq!(found, 1, "{expected}: {faults:#?}");
        }
        assert_eq!(faults.len(), 11, "{faults:#?}");
    }

    #[test]
    fn options_without_a_value_and_flags_with_one_are_named() {
        for (line, expected) in [
            ("--concurrent", "--concurrent: it has no value; add a number from 1 on"),
            ("--replace-finished=1", "--replace-finished: it takes no value"),
            ("--help", "--help: the executor prints a text and serves nothing"),
            ("run", "run: it is not understood"),
        ] {
            let faults = judged::<Pc1>(line, &[]).unwrap_err();
            assert!(faults[0].starts_with(expected), "{line}: {faults:?}");
        }
    }

    #[test]
    fn a_gpu_that_is_asked_for_and_forbidden_is_a_fault_that_names_both() {
        let set = [("BELLMAN_NO_GPU", "1"), ("SEAL_C2_DEVICE", "cuda")];
        let faults = judged::<C2>("", &set).unwrap_err();
        let text = "BELLMAN_NO_GPU=\"1\": it asks for no GPU, and SEAL_C2_DEVICE for one; unset \
                    one of them";
        assert_eq!(faults, [text]);
        let faults = judged::<C2>("--device cuda", &set[..1]).unwrap_err();
        assert!(faults[0].contains("and --device for one"), "{faults:?}");
    }

    proptest! {
        /// Whatever the arguments are, they are judged, and twice alike.
        #[test]
        fn any_arguments_are_judged(arguments in prop::collection::vec(
            prop_oneof![
                "-{0,3}[a-z=]{0,12}",
                Just("--concurrent".to_owned()),
                Just("--concurrent=2".to_owned()),
                Just("processor".to_owned()),
                Just("pc1".to_owned()),
                Just("--".to_owned()),
                Just(String::new()),
            ],
            0..6,
        )) {
            let environment = Environment::default();
            let first = judge::<Pc1>(&arguments, &environment);
            prop_assert_eq!(&first, &judge::<Pc1>(&arguments, &environment));
            if let Err(faults) = first {
                prop_assert!(!faults.is_empty());
            }
        }
    }
}
