//! `seal-supervisor config --check`: a whole configuration held against this machine.

use std::fmt::Write;
use std::path::Path;

use seal_config::Config;
use seal_wire::ExitCode;

use crate::plan::PlanError;
use crate::{Machine, Plan};

/// What is to be said of every stage of a configuration.
pub(crate) struct Checked {
    pub(crate) text: String,
    /// The exit code for it, whatever the warnings.
    pub(crate) code: ExitCode,
    pub(crate) warnings: usize,
}

/// Judges every stage of a configuration.
pub(crate) fn check(config: &Config, own_binary: &Path, machine: &Machine) -> Checked {
    let mut text = String::new();
    let mut code = ExitCode::Success;
    let mut warnings = config.ignored.len();
    for ignored in &config.ignored {
        let _ = writeln!(text, "warning: {ignored}");
    }
    if config.executors.values().all(Vec::is_empty) {
        let _ = writeln!(text, "{}: no stage has executors", config.path.display());
        code = ExitCode::Config;
    }
    for (stage, tables) in &config.executors {
        let mut plan = match Plan::new(config, *stage, own_binary, None) {
            Ok(plan) => plan,
            Err(PlanError::NoBin { .. } | PlanError::NoExecutor { .. }) => {
                let _ = writeln!(text, "{stage}: left to the worker: no bin is named");
                continue;
            }
            Err(error) => {
                let _ = writeln!(text, "{stage}: {error}");
                code = ExitCode::Config;
                continue;
            }
        };
        plan.settle_on(machine);
        let mut problems = plan.problems(machine);
        problems.extend(plan.refused_settings(machine));
        let verdict = if problems.is_empty() { "good" } else { "cannot be started here" };
        let _ = writeln!(text, "{stage}: {} executor(s), {verdict}", tables.len());
        for problem in &problems {
            let _ = writeln!(text, "  error: {problem}");
        }
        if !problems.is_empty() && code == ExitCode::Success {
            code = ExitCode::Start;
        }
        for doubt in plan.doubts(machine) {
            warnings += 1;
            let _ = writeln!(text, "  warning: {doubt}");
        }
        for (name, warning) in plan.env_warnings() {
            warnings += 1;
            let _ = writeln!(text, "  warning: {} {warning}", name.display());
        }
    }
    Checked { text, code, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (String, ExitCode) {
        let Checked { text, code, .. } = checked_with_warnings(text);
        (text, code)
    }

    fn checked_with_warnings(text: &str) -> Checked {
        let root = tempfile::tempdir().expect("a temporary directory");
        test_support::write_sysfs(root.path(), "0-3", &["0-1", "2-3"]).expect("writable");
        let machine = Machine::described(root.path()).expect("readable");
        let config = seal_config::parse(Path::new("w.toml"), text).expect("well formed");
        check(&config, Path::new("/bin/sh"), &machine)
    }

    #[test]
    fn every_stage_is_judged() {
        let (text, code) = checked(
            "[[processors.add_pieces]]\n[[processors.snap_prove]]\nbin = '/bin/cat'\n\
             envs = { FIL_PROOFS_MAXIMIZE_CACHING = '1' }\ninherit_envs = false\n\
             [[processors.c2]]\nbin = '/bin/true'\ncgroup.cpuset = '2-7'\n",
        );
        assert_eq!(code, ExitCode::Start);
        for line in [
            "add_pieces: left to the worker: no bin is named",
            "snap_prove: 1 executor(s), good",
            "  warning: FIL_PROOFS_MAXIMIZE_CACHING has no effect",
            "c2: 1 executor(s), cannot be started here",
            "  error: processors.c2[0] (line 6): cgroup.cpuset = \"2-7\": cpus 4-7 are missing",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        let (text, code) = checked(
            "[processors.limit]\npc1 = 3\n[processors.limitation.concurrent]\npc1 = 2\n\
             [[processors.pc1]]\nbin = '/bin/true'\ninherit_envs = false",
        );
        assert_eq!(code, ExitCode::Success, "{text}");
        let warning = "warning: w.toml:2: processors.limit.pc1 has no effect: ";
        assert!(text.starts_with(warning), "{text}");
        let good = "[[processors.pc1]]\nbin = '/bin/true'\ninherit_envs = false";
        let (good, before) = (checked_with_warnings(good), "[processors.limit]\npc1 = 3\n");
        assert_eq!(good.warnings, good.text.matches("warning: ").count());
        let more = format!("{before}[processors.limitation.concurrent]\npc1 = 2\n");
        let more = checked_with_warnings(
            &(more + "[[processors.pc1]]\nbin = '/bin/true'\ninherit_envs = false"),
        );
        assert_eq!(more.warnings, good.warnings + 1, "{}", more.text);
    }

    #[test]
    fn a_configuration_of_nothing_or_of_the_supervisor_itself_is_wrong() {
        let (text, code) = checked("[processors]");
        assert_eq!((text.as_str(), code), ("w.toml: no stage has executors\n", ExitCode::Config));
        let (text, code) = checked("[[processors.pc1]]\nbin = '/bin/sh'");
        assert_eq!(code, ExitCode::Config);
        assert!(text.contains("is the supervisor itself"), "{text}");
        let (_, code) = checked("[[processors.pc1]]\nbin = '/bin/cat'\ninherit_envs = false");
        assert_eq!(code, ExitCode::Success);
    }
}
