//! What configurations mean, and what is said against bad ones.

use std::collections::BTreeSet;

use super::*;
use crate::{DEFAULT_STABLE_WAIT, Drain, MemoryBinding, MemoryLimit};

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("w.toml"), text)
}

fn refused(text: &str) -> String {
    match read(text) {
        Ok(config) => panic!("accepted as {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn scheme(name: &str) -> Config {
    let schemes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes");
    load(&schemes.join(name)).expect("a scheme that must work")
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("tests count from 1")
}

#[test]
fn what_a_configuration_holds_is_not_repeated_whole() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!("[processors]\nlimit.{long} = 1"),
        format!("[processors]\n{long} = 1"),
        format!("[[processors.pc1]]\n{long} = 1"),
        format!("[[processors.pc1]]\ncgroup.cpuset = '{long}'"),
        format!("[[processors.pc1]]\nlocks = ['{long}']"),
        format!("[supervisor]\ndrain = '{long}'"),
        format!("[supervisor]\nmetrics = '{long}'"),
        format!("[supervisor]\n{long}"),
    ] {
        let error = refused(&text);
        assert!(error.len() < 4096, "{} bytes for {}", error.len(), &text[..40]);
    }
}

#[test]
fn scheme_a_means_what_its_users_mean() {
    let config = scheme("scheme-a.toml");
    assert_eq!(config.concurrent[&StageName::Pc1], count(28));
    assert!(config.locks.is_empty());
    let pc1 = &config.executors[&StageName::Pc1];
    assert_eq!(pc1.len(), 2);
    assert_eq!(pc1[1].numa_preferred, Some(1));
    assert_eq!(pc1[1].cpus, Some((48..=89).collect()));
    assert_eq!(pc1[1].concurrent, Some(count(14)));
    assert_eq!(pc1[1].envs["FIL_PROOFS_USE_MULTICORE_SDR"], "1");
    assert_eq!(pc1[1].stable_wait, DEFAULT_STABLE_WAIT);
    assert!(pc1[1].auto_restart && pc1[1].inherit_envs);
    assert_eq!((&pc1[1].bin, pc1[1].args.len()), (&None, 0));
    let c2 = &config.executors[&StageName::C2][0];
    assert_eq!(c2.cpus.as_ref().map(seal_types::CpuSet::len), Some(28));
    assert_eq!(c2.concurrent, None);
}

#[test]
fn scheme_b_pairs_stages_by_locks() {
    let config = scheme("scheme-b.toml");
    assert_eq!(config.locks["gpu1"].count, count(1));
    for stage in [StageName::Pc2, StageName::C2] {
        let locks: Vec<_> = config.executors[&stage].iter().map(|e| &e.locks).collect();
        assert_eq!(locks, [&BTreeSet::from(["gpu1".into()]), &BTreeSet::from(["gpu2".into()])]);
    }
}

#[test]
fn a_whole_worker_configuration_is_accepted() {
    let config = read(
        r#"
        [worker]
        name = "here"
        [[sealing_thread]]
        location = "/mnt/1"
        [metrics]
        pc1 = { anything = 1 }
        [processors.limitation.concurrent]
        window_post = 1
        [processors.limitation.staggered]
        pc1 = "5min"
        [processors.limit]
        window_post = 1
        [processors.ext_locks]
        "gpu 0" = 2
        [processors.static_tree_d]
        32GiB = "/mnt/tree-d"
        [[processors.tree_d]]
        [[processors.pc1]]
        bin = "/opt/pc1"
        args = ["processor", "pc1", ""]
        stable_wait = "1m 30s"
        numa_preferred = 0
        cgroup = { group_name = "g", cpuset = "0-3" }
        envs = { EMPTY = "" }
        concurrent = 0x10
        locks = ["gpu 0"]
        auto_restart = false
        inherit_envs = false
        "#,
    )
    .expect("a good configuration");
    assert_eq!(config.concurrent, BTreeMap::from([(StageName::WindowPost, count(1))]));
    assert_eq!(config.ignored, [], "both tables say the same");
    assert_eq!(config.staggered[&StageName::Pc1], Duration::from_secs(300));
    assert_eq!(config.supervisor, SupervisorConfig::default());
    let expected = ExecutorConfig {
        line: 19,
        bin: Some("/opt/pc1".into()),
        args: ["processor", "pc1", ""].map(str::to_owned).into(),
        stable_wait: Duration::from_secs(90),
        numa_preferred: Some(0),
        group_name: Some("g".to_owned()),
        cpus: Some((0..=3).collect()),
        envs: BTreeMap::from([("EMPTY".to_owned(), String::new())]),
        concurrent: Some(count(16)),
        locks: BTreeSet::from(["gpu 0".to_owned()]),
        auto_restart: false,
        inherit_envs: false,
    };
    assert_eq!(config.executors[&StageName::Pc1], [expected]);
}

#[test]
fn a_binary_without_arguments_is_started_as_the_worker_starts_it() {
    for (table, args) in [
        ("bin = 'x'", &["processor", "pc2"][..]),
        ("bin = 'x'\nargs = []", &[]),
        ("bin = 'x'\nargs = ['pc2']", &["pc2"]),
        ("", &[]),
        ("args = ['--concurrent', '2']", &["--concurrent", "2"]),
    ] {
        let config = read(&format!("[[processors.pc2]]\n{table}")).expect("good");
        assert_eq!(config.executors[&StageName::Pc2][0].args, args, "{table}");
    }
    let daemons = read("[[processors.sealing_daemons]]\nbin = 'x'").expect("good");
    let daemons = &daemons.executors[&StageName::SealingDaemons][0];
    assert_eq!(daemons.args, ["processor", "EMPTY"], "workers call it so");
    assert!(refused("[[processors.EMPTY]]").contains("unknown key or stage"));
}

#[test]
fn the_older_table_of_limits_holds_only_where_the_newer_one_is_not() {
    let older = "[processors.limit]\npc1 = 3\nc2 = 2\npc2 = 1\n";
    for (newer, concurrent, ignored) in [
        ("", vec![("pc1", 3), ("pc2", 1), ("c2", 2)], vec![]),
        (
            "[processors.limitation.staggered]\npc1 = '1m'",
            vec![("pc1", 3), ("pc2", 1), ("c2", 2)],
            vec![],
        ),
        (
            "[processors.limitation.concurrent]\npc1 = 2\npc2 = 1",
            vec![("pc1", 2), ("pc2", 1)],
            vec![
                (2, "processors.limit.pc1", "; 2 holds"),
                (3, "processors.limit.c2", "; c2 has no"),
            ],
        ),
        (
            "[processors.limitation.concurrent]",
            vec![],
            vec![
                (2, "processors.limit.pc1", "; pc1 has no limit"),
                (3, "processors.limit.c2", "; c2 has no limit"),
                (4, "processors.limit.pc2", "; pc2 has no limit"),
            ],
        ),
    ] {
        let config = read(&format!("{older}{newer}")).expect("good");
        let held = config.concurrent.iter().map(|(stage, count)| (stage.name(), count.get()));
        assert_eq!(held.collect::<Vec<_>>(), concurrent, "{newer}");
        assert_eq!(config.ignored.len(), ignored.len(), "{newer}: {:?}", config.ignored);
        for (told, (line, key, reason)) in config.ignored.iter().zip(ignored) {
            assert_eq!((told.line, told.key.as_str()), (line, key), "{newer}");
            let text = told.to_string();
            assert!(text.starts_with(&format!("w.toml:{line}: {key} has no effect: ")), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }
}

#[test]
fn c1_is_known_where_a_worker_waits_for_its_limit_and_nowhere_else() {
    let config = read(
        "[processors.limitation]\nconcurrent = { c1 = 2, c2 = 1 }\nstaggered = { c1 = '1m' }\n\
         [processors.limit]\nc1 = 3\nc2 = 1",
    );
    let config = config.expect("as the worker reads it");
    assert_eq!(config.concurrent, BTreeMap::from([(StageName::C2, count(1))]));
    assert!(config.staggered.is_empty() && config.ignored.is_empty());
    let config = read("processors.limit = { c1 = 3 }").expect("as the worker reads it");
    assert!(config.concurrent.is_empty());
    for (text, told) in [
        ("limitation.concurrent.c1 = 0", "w.toml:2: processors.limitation.concurrent.c1 = 0: must"),
        ("limitation.staggered.c1 = 'x'", "staggered.c1 = 'x': not a duration"),
        ("limit.c1 = 'x'", "processors.limit.c1 = 'x': expected a whole number"),
        ("[[processors.c1]]\nbin = 'x'", "unknown key or stage"),
        ("[supervisor.c1]\nretry = 1", "unknown key or stage"),
        (
            "ext_locks.g = 1\n[supervisor.locks.g]\norder = 'priority'\npriority = ['c1']",
            "unknown stage",
        ),
    ] {
        let got = refused(&format!("[processors]\n{text}"));
        assert!(got.contains(told), "{text}\n   gave {got}\n   not  {told}");
    }
}

#[test]
fn a_weight_is_taken_with_a_warning() {
    let config = read("[[processors.pc2]]\n[[processors.pc1]]\nweight = 2").expect("good");
    let [weight] = &*config.ignored else { panic!("{:?}", config.ignored) };
    assert_eq!((weight.line, weight.key.as_str()), (3, "processors.pc1[0].weight"));
    assert!(weight.reason.contains("older workers"), "{weight}");
    let error = refused("[[processors.pc1]]\nweight = 'heavy'");
    assert!(error.contains("processors.pc1[0].weight = 'heavy': expected a whole"), "{error}");
}

#[test]
fn settings_of_a_stage_go_before_those_of_all_stages() {
    let config = read(
        r#"
        [[processors.pc1]]
        [supervisor]
        runtime_dir = "/run/x"
        metrics = 9184
        grace = "3s"
        memlock = "64GiB"
        drain = "task"
        [supervisor.pc1]
        retry = 3
        drain = "now"
        memory = "strict"
        memlock = "unlimited"
        [supervisor.c2]
        deadline = "2h"
        "#,
    );
    let supervisor = config.expect("good").supervisor;
    assert_eq!(supervisor.metrics, Some("127.0.0.1:9184".parse().expect("an address")));
    let [pc1, c2, pc2] =
        [StageName::Pc1, StageName::C2, StageName::Pc2].map(|stage| supervisor.stage(stage));
    assert_eq!((pc1.retry, pc1.drain, c2.drain), (3, Drain::Now, Drain::Task));
    assert_eq!((pc1.grace, c2.grace), (Duration::from_secs(3), Duration::from_secs(3)));
    assert_eq!(pc1.memlock, Some(MemoryLimit::Unlimited));
    assert_eq!(pc2.memlock, Some(MemoryLimit::Bytes(64 << 30)));
    assert_eq!((pc1.memory, pc2.memory), (MemoryBinding::Strict, MemoryBinding::Preferred));
    assert_eq!((c2.deadline, pc1.deadline), (Some(Duration::from_secs(7200)), None));
    let defaults = SupervisorConfig::default();
    assert_eq!([StageName::Pc1, StageName::C2].map(|s| defaults.stage(s).retry), [1, 0]);
}

#[test]
fn locks_are_given_in_the_order_that_is_asked_for() {
    let config = read(
        r#"
        processors.ext_locks = { a = 1, b = 1, c = 2, d = 1 }
        supervisor.locks.b.order = "arrival"
        supervisor.locks.c = { order = "priority", priority = ["pc2", "c2"] }
        supervisor.locks.d.order = "priority"
        "#,
    );
    let locks = config.expect("good").locks;
    assert_eq!(locks["a"].order, LockOrder::Turns);
    assert_eq!(locks["b"].order, LockOrder::Arrival);
    assert_eq!(locks["c"].order, LockOrder::Priority(vec![StageName::Pc2, StageName::C2]));
    let LockOrder::Priority(stages) = &locks["d"].order else { panic!("{locks:?}") };
    let place = |stage| stages.iter().position(|other| *other == stage);
    assert!(place(StageName::C2) < place(StageName::Pc2));
}

#[test]
fn the_place_of_every_value_is_known() {
    let text = "[processors.ext_locks]\ngpu1 = 1\n[[processors.pc1]]\n\
                cgroup.cpuset = \"0-3\"\nenvs = { A = \"b\" }\nlocks = [\"gpu1\"]";
    let places = read(text).expect("good").places;
    for (key, line, value) in [
        ("processors.ext_locks.gpu1", 2, "1"),
        ("processors.pc1[0].cgroup.cpuset", 4, "\"0-3\""),
        ("processors.pc1[0].envs.A", 5, "\"b\""),
        ("processors.pc1[0].locks[0]", 6, "\"gpu1\""),
    ] {
        let place = places.get(key).unwrap_or_else(|| panic!("{key} has no place"));
        assert_eq!((place.line, &text[place.span.clone()]), (line, value), "{key}");
    }
    assert_eq!(places.get("processors.pc1[0].bin"), None);
    assert!(places.iter().any(|(key, _)| key == "processors.pc1[0]"));
}

#[test]
fn bad_settings_of_the_supervisor_are_refused() {
    for (text, message) in [
        ("[supervisor.pc1]\nretrys = 1", "w.toml:3: supervisor.pc1.retrys = 1: unknown key"),
        ("[supervisor.pc1]\nretrys = 1", "did you mean \"retry\"?"),
        ("[supervisor.pc3]", "supervisor.pc3: unknown key or stage"),
        ("[supervisor.pc1]\nretry = -1", "supervisor.pc1.retry = -1: must be between 0"),
        (
            "[supervisor]\ndrain = \"checkpiont\"",
            "w.toml:3: supervisor.drain = \"checkpiont\": must be one of checkpoint, task, now; \
             did you mean \"checkpoint\"?",
        ),
        ("[supervisor]\ngrace = \"0s\"", "must be longer than nothing"),
        ("[supervisor]\nmemlock = \"64G\"", "= \"64G\": not a size; write for example"),
        ("[supervisor]\nmemlock = \"999999999999TiB\"", "not a size"),
        (
            "[supervisor]\nrestart_wait = \"1m\"",
            "w.toml:3: supervisor.restart_wait = \"1m\": longer than restart_wait_max, which is 30s",
        ),
        (
            "[supervisor]\nrestart_wait = \"5s\"\n[supervisor.c2]\nrestart_wait_max = \"2s\"",
            "supervisor.c2.restart_wait_max = \"2s\": shorter than restart_wait, which is 5s",
        ),
        ("[supervisor]\nmetrics = 0", "= 0: not an address"),
        ("[supervisor]\nmetrics = \"localhost\"", "not an address; write a port"),
        ("[supervisor]\nruntime_dir = \"run\"", "must be an absolute path"),
        ("[supervisor]\nhistory = 99999999", "must be between 0 and 10000"),
        ("[supervisor.locks.gpu]\norder = \"turns\"", "this lock is not declared"),
        (
            "ext_locks.g = 1\n[supervisor.locks.g]\npriority = [\"c2\"]",
            "has a meaning only beside order = \"priority\"",
        ),
        (
            "ext_locks.g = 1\n[supervisor.locks.g]\norder = \"priority\"\npriority = [\"c3\"]",
            "supervisor.locks.g.priority[0] = \"c3\": unknown stage",
        ),
    ] {
        let error = refused(&format!("[processors]\n{text}"));
        assert!(error.contains(message), "{text}\n   gave {error}\n   not  {message}");
    }
}

#[test]
fn complaints_name_file_line_key_value_reason_and_the_likely_word() {
    for (text, message) in [
        (
            "[[processors.pc1]]\nconcurent = 3",
            "w.toml:2: processors.pc1[0].concurent = 3: unknown key; known are ",
        ),
        ("[[processors.pc1]]\nconcurent = 3", "; did you mean \"concurrent\"?"),
        ("[processors]\n[[processors.pc3]]", "w.toml:2: processors.pc3: unknown key or stage"),
        ("[processors]\n[[processors.pc3]]", "did you mean \"pc1\"?"),
        (
            "[processors.limitation.concurrent]\n\npcl = 3",
            "w.toml:3: processors.limitation.concurrent.pcl = 3: unknown stage",
        ),
        ("[processors.limitation]\nconcurent.pc1 = 3", "did you mean \"concurrent\"?"),
        (
            "[processors.limitation.concurrent]\npc1 = 0",
            "w.toml:2: processors.limitation.concurrent.pc1 = 0: must be at least 1",
        ),
        ("[processors.ext_locks]\ngpu = 0", "w.toml:2: processors.ext_locks.gpu = 0: must be"),
        ("[processors.ext_locks]\n\"\" = 1", "a lock needs a name"),
        ("[[processors.pc1]]\nconcurrent = 0", "must be at least 1"),
        ("[[processors.pc1]]\nconcurrent = -1", "= -1: must be between 0 and 4294967295"),
        ("[[processors.pc1]]\nconcurrent = \"3\"", "expected a whole number, found string"),
        (
            "[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\n\"gpu2\"]",
            "w.toml:5: processors.c2[0].locks[0] = \"gpu2\": this lock is not declared",
        ),
        (
            "[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\"gpu2\"]",
            "did you mean \"gpu1\"?",
        ),
        (
            "[processors.ext_locks]\ng = 1\n[[processors.c2]]\nlocks = [\"g\", \"g\"]",
            "processors.c2[0].locks[1] = \"g\": this lock is named twice",
        ),
        (
            "[[processors.pc1]]\n[[processors.pc1]]\ncgroup.cpuset = \"41-0\"",
            "w.toml:3: processors.pc1[1].cgroup.cpuset = \"41-0\": the range \"41-0\" runs backwards",
        ),
        ("[[processors.pc1]]\ncgroup.cpus = \"0\"", "did you mean \"cpuset\"?"),
        (
            "[[processors.pc1]]\nstable_wait = \"5\"",
            "w.toml:2: processors.pc1[0].stable_wait = \"5\": not a duration",
        ),
        ("[[processors.pc1]]\nstable_wait = 5", "expected a string, found integer"),
        ("[[processors.pc1]]\nstable_wait = \"0s\"", "must be longer than nothing"),
        ("[processors.limitation.staggered]\npc1 = \"fast\"", "= \"fast\": not a duration"),
        (
            "[processors.limitation.concurrent]\npc1 = 2\n[processors.limit]\npc1 = 0",
            "w.toml:4: processors.limit.pc1 = 0: must be at least 1",
        ),
        ("[processors.pc1]\nbin = \"x\"", "w.toml:1: processors.pc1: expected an array"),
        ("[[processors.pc1]]\nbin = \"\"", "w.toml:2: processors.pc1[0].bin = \"\": must not"),
        (
            "[[processors.pc1]]\ncgroup.group_name = \"../x\"",
            "processors.pc1[0].cgroup.group_name = \"../x\": not a name of a cgroup",
        ),
        ("[[processors.pc1]]\nenvs = { \"A=B\" = \"\" }", "not a name that an environment"),
        ("[[processors.pc1]]\nenvs = { A = 1 }", "envs.A: expected a string, found integer"),
        ("[[processors.pc1]]\nauto_restart = 1", "= 1: expected true or false"),
        ("[processor]\n", "w.toml:1: processors: the file has no [processors] section"),
        ("[processor]\n", "did you mean \"processor\"?"),
        ("[processors]\nx = \n", "w.toml:2: not valid TOML: "),
    ] {
        let got = refused(text);
        assert!(got.contains(message), "{text}\n   gave {got}\n   not  {message}");
    }
}

#[test]
fn no_error_shows_what_may_be_a_secret() {
    for (text, told) in [
        ("envs = 'API_TOKEN=hunter2'", "w.toml:2: processors.pc1[0].envs: expected a table"),
        ("envs = ['API_TOKEN=hunter2']", "processors.pc1[0].envs: expected a table"),
        ("envs = { API_TOKEN = \"hunter2\\u0000\" }", "envs.API_TOKEN: must not contain a NUL"),
        ("envs = { API_TOKEN = ['hunter2'] }", "envs.API_TOKEN: expected a string"),
        ("envs = { API_TOKEN = { x = 'hunter2' } }", "envs.API_TOKEN: expected a string"),
        ("envs = { 'API_TOKEN=hunter2' = '' }", "envs.API_TOKEN: not a name that an env"),
        ("envs = { API_TOKEN = hunter2 }", "w.toml:2: not valid TOML: "),
        ("envs = { API_TOKEN = 'hunter2', API_TOKEN = 'hunter2' }", "not valid TOML: "),
        ("envs = { API_TOKEN = 'hunter2 }", "not valid TOML: "),
        ("env = 'API_TOKEN=hunter2'", "processors.pc1[0].env: unknown key"),
        ("API_TOKEN = 'hunter2'", "processors.pc1[0].API_TOKEN: unknown key"),
    ] {
        let error = refused(&format!("[[processors.pc1]]\n{text}"));
        assert!(error.contains(told), "{text}\n   gave {error}\n   not  {told}");
        assert!(!error.contains("hunter2"), "{text}\n   gave {error}");
    }
    let error = refused("[[processors.pc1]]\nenvs = { API_TOKEN = 918273 }");
    assert!(error.contains("envs.API_TOKEN: expected") && !error.contains("918273"), "{error}");
}

#[test]
fn all_faults_are_found_that_do_not_follow_from_others() {
    let text = "[processors]\nlimit.pc1 = 0\next_locks = { gpu = 0, x = 1 }\n\
                [[processors.pc1]]\nconcurent = 1\n[[processors.pc1]]\nlocks = ['gpu']\n\
                [[processors.c2]]\ncgroup.cpuset = 'x'\n[supervisor]\ngrace = 'x'\n";
    let refused = parse_all(Path::new("w.toml"), text).expect_err("it has faults");
    let told = refused.to_string();
    let lines: Vec<_> = told
        .lines()
        .map(|line| line.split(": ").nth(1).and_then(|key| key.split(' ').next()))
        .map(|key| key.expect("every line names its key"))
        .collect();
    assert_eq!(
        lines,
        [
            "processors.limit.pc1",
            "processors.ext_locks.gpu",
            "processors.pc1[0].concurent",
            "processors.c2[0].cgroup.cpuset",
            "supervisor.grace",
        ],
        "{told}"
    );
    assert_eq!(refused.first.to_string(), self::refused(text), "the first one of all");
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/no/such.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /no/such.toml");
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "(\\[{1,2}processors(\\.(pc1|limit|ext_locks))?\\]{1,2}\n|(pc1|bin|locks|cgroup\\.cpuset) ?= ?[\"0-9a-z\\[\\],\\-]{0,6}\n|.{0,4}){0,6}") {
        let _ = read(&text);
    }
}
