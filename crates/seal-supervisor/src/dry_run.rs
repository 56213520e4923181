//! What would be started, for people.

use std::fmt::Write;

use seal_host::Binding;
use seal_limits::Resource;

use crate::{ExecutorPlan, Machine, Plan};

/// Describes the plan, and what stands against it on `machine`.
pub fn describe(plan: &Plan, machine: &Machine) -> String {
    let mut text = format!("stage {}: {} executor(s)\n", plan.stage, plan.executors.len());
    for (resource, count) in &plan.counts {
        let used =
            plan.executors.iter().any(|executor| executor.needs.iter().any(|n| n == resource));
        let line = match resource {
            Resource::Limit(_) => format!("  at most {count} task(s) of {} at once", plan.stage),
            Resource::Lock(name) if used => {
                format!("  lock {name}: at most {count} task(s) at once, all stages together")
            }
            Resource::Lock(_) => continue,
        };
        push(&mut text, &line);
    }
    if !plan.stagger.is_zero() {
        let stagger = humantime::format_duration(plan.stagger);
        push(&mut text, &format!("  at least {stagger} between two starts"));
    }
    if plan.settings.retry > 0 {
        let retry = plan.settings.retry;
        push(
            &mut text,
            &format!("  a task whose executor died is sent again, at most {retry} time(s)"),
        );
    }
    for executor in &plan.executors {
        describe_executor(&mut text, executor);
    }
    let warnings = plan.env_warnings();
    if !warnings.is_empty() {
        text.push_str("\nenvironment:\n");
    }
    for (name, warning) in warnings {
        push(&mut text, &format!("  {} {warning}", name.display()));
    }
    for doubt in plan.doubts(machine) {
        push(&mut text, &format!("\nprobably not meant: {doubt}"));
    }
    let mut problems = plan.problems(machine);
    problems.extend(plan.refused_settings(machine));
    if problems.is_empty() {
        text.push_str("\nThis machine has what the executors need.\n");
        return text;
    }
    text.push_str("\nThe start would fail on this machine:\n");
    for problem in problems {
        push(&mut text, &format!("  {problem}"));
    }
    text
}

fn describe_executor(text: &mut String, executor: &ExecutorPlan) {
    let mut command = executor.program.display().to_string();
    for arg in &executor.args {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            let _ = write!(command, " {arg}");
        } else {
            let _ = write!(command, " {arg:?}");
        }
    }
    push(text, &format!("\n{} (line {}):", executor.key, executor.line));
    push(text, &format!("  command      {command}"));
    if let Some(cpus) = &executor.placement.cpus {
        let by = match &executor.group {
            Some(group) => format!("cgroup {}", group.tree.version()),
            None => "affinity".to_owned(),
        };
        push(text, &format!("  cpus         {cpus} ({} in all, by {by})", cpus.len()));
    }
    if let Some(node) = executor.placement.preferred_node {
        let how = match executor.placement.binding {
            Binding::Preferred => "preferably",
            Binding::Strict => "only",
        };
        push(text, &format!("  memory       {how} of NUMA node {node}"));
    }
    match executor.concurrent {
        Some(most) => push(text, &format!("  tasks        at most {most} at once")),
        None => push(text, "  tasks        any number at once"),
    }
    let needs: Vec<_> = executor.needs.iter().map(Resource::to_string).collect();
    if !needs.is_empty() {
        push(text, &format!("  each holds   {}", needs.join(", ")));
    }
    for (name, value) in &executor.envs {
        push(text, &format!("  environment  {name}={}", seal_options::shown_value(name, value)));
    }
    if !executor.inherit_envs {
        push(text, "  environment  nothing else");
    }
    let wait = humantime::format_duration(executor.stable_wait);
    let restart = if executor.auto_restart { "restarted when it dies" } else { "not restarted" };
    push(text, &format!("  start        ready within {wait}, {restart}"));
    if let Some(group) = &executor.group {
        push(text, &format!("  cgroup       {}", group.tree.path().join(&group.name).display()));
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use seal_types::StageName;

    use super::*;

    #[test]
    fn a_plan_is_told_whole_and_without_secrets() {
        let text = r#"
            [processors.limitation]
            concurrent.c2 = 2
            staggered.c2 = "90s"
            [processors.ext_locks]
            gpu1 = 1
            unused = 1
            [supervisor.c2]
            retry = 2
            [[processors.c2]]
            bin = "/no/such/c2"
            args = ["--flag", "two words"]
            cgroup = { cpuset = "0-1,8", group_name = "c2" }
            numa_preferred = 1
            concurrent = 3
            locks = ["gpu1"]
            auto_restart = false
            inherit_envs = false
            envs = { CUDA_VISIBLE_DEVICES = "1", API_TOKEN = "secret", FIL_PROOFS_PARENTCACHE = "x" }
        "#;
        let config = seal_config::parse(Path::new("w.toml"), text).expect("well formed");
        let plan = Plan::new(&config, StageName::C2, Path::new("/bin/seal-supervisor"), None)
            .expect("good");
        let root = tempfile::tempdir().expect("a temporary directory");
        test_support::write_sysfs(root.path(), "0-1", &["0-1"]).expect("writable");
        let machine = Machine::described(root.path()).expect("readable");
        let expected = "\
stage c2: 1 executor(s)
  lock gpu1: at most 1 task(s) at once, all stages together
  at most 2 task(s) of c2 at once
  at least 1m 30s between two starts
  a task whose executor died is sent again, at most 2 time(s)

processors.c2[0] (line 10):
  command      /no/such/c2 --flag \"two words\"
  cpus         0-1,8 (3 in all, by affinity)
  memory       preferably of NUMA node 1
  tasks        at most 3 at once
  each holds   lock gpu1, limit c2
  environment  API_TOKEN=(set)
  environment  CUDA_VISIBLE_DEVICES=1
  environment  FIL_PROOFS_PARENTCACHE=(set)
  environment  nothing else
  start        ready within 5s, not restarted

environment:
  FIL_PROOFS_PARENTCACHE is not a known setting; did you mean FIL_PROOFS_PARENT_CACHE?

The start would fail on this machine:
  processors.c2[0] (line 10): there is no executable /no/such/c2
  processors.c2[0] (line 10): cgroup.cpuset = \"0-1,8\": cpus 8 are missing; this machine has 0-1
  processors.c2[0] (line 10): numa_preferred = 1: this machine has NUMA nodes 0
";
        assert_eq!(describe(&plan, &machine), expected);
    }
}
