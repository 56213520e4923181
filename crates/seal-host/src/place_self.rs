//! Where a process puts itself, when the one that started it leaves that to it.
//!
//! venus-worker starts its processors anywhere and names their place in the environment.

use std::path::Path;

use crate::cgroup::is_group_name;
use crate::numa::{Policy, without_preference};
use crate::{
    BindError, Binding, CgroupError, CgroupTree, CpuSet, Entered, FileError, NodeId, Wanted,
    allowed_cpus, confine_current_thread, online_nodes,
};

/// The place that a process is told to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedPlace {
    /// The cpus to which it confines itself (`VC_CG_CPUSET`).
    pub cpus: Option<CpuSet>,
    /// The cgroup that is made for them (`VC_CG_NAME`).
    pub group: Option<String>,
    /// The node whose memory it prefers (`VENUS_WORKER_NUMA_PREFERRED`).
    pub node: Option<NodeId>,
}

/// Where the process is now. Its cgroup ends with this.
#[derive(Debug, Default)]
#[must_use = "the cgroup ends when this is dropped"]
pub struct Placed {
    /// The cpus to which it is confined.
    pub cpus: Option<CpuSet>,
    /// The NUMA node whose memory it prefers.
    pub node: Option<NodeId>,
    /// Why it prefers none although one was named, and what comes of that.
    pub no_preference: Option<String>,
    /// The name it was given for a cgroup.
    pub group: Option<String>,
    /// The cgroup, if one was made.
    pub entered: Option<Entered>,
    /// Why none was made although it was named: the confinement holds by affinity.
    pub no_group: Option<String>,
}

/// A demand of a place that cannot be had. The process must not go on elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The kernel does not let it use them.
    #[error("VC_CG_CPUSET cannot be had")]
    Bind(#[source] BindError),
    /// There is no such node.
    #[error("VENUS_WORKER_NUMA_PREFERRED={node}: this machine has no such NUMA node, only {there}")]
    NoNode {
        /// The node.
        node: NodeId,
        /// The nodes there are.
        there: CpuSet,
    },
    /// The name is none of a cgroup.
    #[error("VC_CG_NAME={name:?} is not the name of a cgroup")]
    Name {
        /// What was set.
        name: String,
    },
    /// The cgroup does not give what is asked for.
    #[error("VC_CG_NAME={name:?} cannot be had")]
    Group {
        /// The name.
        name: String,
        /// What the kernel says.
        #[source]
        source: CgroupError,
    },
    /// The machine's description cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Puts the process where it is wanted, all or not at all, and reads back that it is there.
///
/// Threads inherit their place when they start: call this before there are others.
pub fn place_self(wanted: &WantedPlace) -> Result<Placed, PlaceError> {
    place_on(Path::new("/sys"), wanted, CgroupTree::open)
}

fn place_on(
    sys_root: &Path,
    wanted: &WantedPlace,
    open: impl FnOnce() -> Result<CgroupTree, Vec<CgroupError>>,
) -> Result<Placed, PlaceError> {
    let WantedPlace { cpus, group, node } = wanted.clone();
    if let Some(name) = group.as_ref().filter(|name| !is_group_name(name)) {
        return Err(PlaceError::Name { name: name.clone() });
    }
    // All cpus are those that it may use now.
    let allowed = allowed_cpus().unwrap_or_default();
    let cpus = cpus.map(|cpus| cpus.on(&allowed));
    if let Some(node) = node {
        let nodes = online_nodes(sys_root)?;
        // Where the kernel tells of none, a preference is about nothing.
        if !nodes.is_empty() && !nodes.contains(&node) {
            let there = nodes.into_iter().map(|node| node.0).collect();
            return Err(PlaceError::NoNode { node, there });
        }
    }
    let (mut entered, mut no_group) = (None, None);
    if let (Some(cpus), Some(name)) = (&cpus, &group) {
        match open() {
            Ok(tree) => entered = Some(enter(tree, name, cpus)?),
            Err(errors) => {
                let reasons: Vec<_> = errors.iter().map(ToString::to_string).collect();
                no_group = Some(reasons.join("; "));
            }
        }
    }
    if let Some(cpus) = &cpus {
        confine_current_thread(cpus).map_err(PlaceError::Bind)?;
    }
    // A preference that is refused costs speed at most, and is no reason not to run.
    let (mut preferred, mut no_preference) = (node, None);
    if let Some(node) = node
        && let Err(error) = prefer(node)
    {
        preferred = None;
        no_preference = Some(format!(
            "VENUS_WORKER_NUMA_PREFERRED={node}: its memory cannot be preferred: {error}; {}",
            without_preference(sys_root, node)
        ));
    }
    Ok(Placed { cpus, node: preferred, no_preference, group, entered, no_group })
}

/// Lets the calling thread prefer the memory of `node`, and reads back that it does.
fn prefer(node: NodeId) -> std::io::Result<()> {
    let invalid = || std::io::Error::from_raw_os_error(libc::EINVAL);
    let policy = Policy::new(node, Binding::Preferred).ok_or_else(invalid)?;
    policy.apply()?;
    if policy.is_current()? { Ok(()) } else { Err(invalid()) }
}

/// Puts the process into a group of that name, after what processes that died have left there.
fn enter(tree: CgroupTree, name: &str, cpus: &CpuSet) -> Result<Entered, PlaceError> {
    let group = |source| PlaceError::Group { name: name.to_owned(), source };
    tree.sweep();
    let wanted = Wanted { cpus: Some(cpus.clone()), only_node: None };
    let made = tree.create(name, &wanted).map_err(group)?;
    tree.enter(made).map_err(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preferred_node;

    /// The error with its cause.
    fn told(error: &PlaceError) -> String {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    }

    /// Places a thread of its own, as a process is placed by its first thread.
    fn place(
        sys_root: std::path::PathBuf,
        wanted: WantedPlace,
    ) -> (Result<Placed, String>, CpuSet, Option<NodeId>) {
        let placed = std::thread::spawn(move || {
            // The group is the process's, which is that of other tests.
            let none = || Err(vec![CgroupError::NotMounted]);
            let placed = place_on(&sys_root, &wanted, none).map_err(|error| told(&error));
            (placed, allowed_cpus().expect("always readable"), preferred_node())
        });
        placed.join().expect("no panic")
    }

    fn on_cpus(text: &str) -> WantedPlace {
        WantedPlace { cpus: Some(text.parse().expect("a list")), ..WantedPlace::default() }
    }

    fn on_node(node: u32) -> WantedPlace {
        WantedPlace { node: Some(NodeId(node)), ..WantedPlace::default() }
    }

    fn two_nodes() -> tempfile::TempDir {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let node = sys.path().join("devices/system/node");
        std::fs::create_dir_all(&node).expect("writable");
        std::fs::write(node.join("online"), "0-1\n").expect("writable");
        sys
    }

    #[test]
    fn without_a_place_nothing_changes() {
        let allowed = allowed_cpus().expect("always readable");
        let (placed, cpus, node) = place("/sys".into(), WantedPlace::default());
        let placed = placed.expect("nothing was asked for");
        assert!(placed.cpus.is_none() && placed.node.is_none() && placed.group.is_none());
        assert_eq!((cpus, node), (allowed, None));
    }

    #[test]
    fn the_cpus_and_the_node_of_the_environment_are_taken() {
        let allowed = allowed_cpus().expect("always readable");
        let last = allowed.iter().last().expect("a thread runs somewhere");
        let group = Some("vc/1/2".to_owned());
        let wanted = WantedPlace { group, ..on_cpus(&last.to_string()) };
        let (placed, cpus, _) = place("/sys".into(), wanted);
        let placed = placed.expect("allowed");
        assert_eq!(cpus, [last].into_iter().collect());
        assert_eq!((placed.cpus, placed.group.as_deref()), (Some(cpus), Some("vc/1/2")));
        let reason = placed.no_group.expect("there are no groups in this test");
        assert_eq!(reason, "no cgroup hierarchy with cpusets is mounted");

        let (placed, _, node) = place("/sys".into(), on_node(0));
        let placed = placed.expect("a preference stops nothing");
        match placed.no_preference {
            None => assert_eq!((placed.node, node), (Some(NodeId(0)), Some(NodeId(0)))),
            // No NUMA here, or policies not permitted: it must be said, and nothing done.
            Some(text) => {
                assert!(text.contains("VENUS_WORKER_NUMA_PREFERRED=0"), "{text}");
                assert_eq!((placed.node, node), (None, None));
            }
        }
    }

    #[test]
    fn a_preferred_node_that_the_kernel_refuses_is_told_with_its_consequence() {
        // No kernel has it; two nodes are described, so that it is not refused before.
        let sys = two_nodes();
        let online = sys.path().join("devices/system/node/online");
        for (nodes, consequence) in
            [("0-1,1000\n", "work is slower"), ("1000\n", "nothing is lost")]
        {
            std::fs::write(&online, nodes).expect("writable");
            let (placed, _, node) = place(sys.path().into(), on_node(1000));
            let placed = placed.expect("a preference stops nothing");
            let told = placed.no_preference.expect("no kernel has that many");
            assert!(told.contains("=1000: its memory cannot be preferred: "), "{told}");
            assert!(told.contains(consequence), "{told}");
            assert_eq!((placed.node, node), (None, None));
        }
        // Without /sys nothing is known of nodes.
        let none = tempfile::tempdir().expect("a temporary directory");
        let (placed, ..) = place(none.path().into(), on_node(1000));
        assert!(placed.expect("a preference stops nothing").no_preference.is_some());
    }

    #[test]
    fn what_cannot_be_had_stops_the_start() {
        let allowed = allowed_cpus().expect("always readable");
        let sys = two_nodes();
        let group = Some("../x".to_owned());
        for (wanted, text) in [
            (on_cpus("8000"), "VC_CG_CPUSET cannot be had: cannot confine a thread to cpus 8000"),
            (
                WantedPlace { group, ..WantedPlace::default() },
                "VC_CG_NAME=\"../x\" is not the name of a cgroup",
            ),
            (on_node(2), "this machine has no such NUMA node, only 0-1"),
        ] {
            let (placed, cpus, node) = place(sys.path().into(), wanted);
            let error = placed.expect_err("it cannot be had");
            assert!(error.contains(text), "{error}");
            assert_eq!((cpus, node), (allowed.clone(), None));
        }
    }

    #[test]
    fn cpus_are_taken_in_every_form_that_the_kernel_takes() {
        let allowed = allowed_cpus().expect("always readable");
        let last = allowed.iter().last().expect("a thread runs somewhere");
        for (text, wanted) in [
            ("all".to_owned(), allowed.clone()),
            ("0-N".to_owned(), allowed.clone()),
            (format!(" {last},,{last} "), [last].into_iter().collect()),
            (format!("{last}-{last}:1/2,"), [last].into_iter().collect()),
        ] {
            let (placed, cpus, _) = place("/sys".into(), on_cpus(&text));
            assert_eq!(placed.expect("allowed").cpus, Some(wanted.clone()), "{text}");
            assert_eq!(cpus, wanted, "{text}");
        }
    }

    #[test]
    fn a_bad_node_leaves_the_cpus_alone_too() {
        let allowed = allowed_cpus().expect("always readable");
        let first = allowed.first().expect("a thread runs somewhere").to_string();
        let wanted = WantedPlace { node: Some(NodeId(7)), ..on_cpus(&first) };
        let (placed, cpus, _) = place(two_nodes().path().into(), wanted);
        assert!(placed.is_err());
        assert_eq!(cpus, allowed);
    }
}
