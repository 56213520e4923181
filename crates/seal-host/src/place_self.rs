//! Where a process puts itself, when the one that started it leaves that to it.
//!
//! venus-worker starts its processors anywhere and names their place in the environment.

use std::path::Path;

use seal_types::CpuListError;

use crate::cgroup::is_group_name;
use crate::numa::{Policy, without_preference};
use crate::{
    BindError, Binding, CgroupError, CgroupTree, CpuSet, Entered, FileError, NodeId, Wanted,
    allowed_cpus, confine_current_thread, online_nodes,
};

/// The names of the environment by which a process is told its place.
pub const PLACEMENT_NAMES: [&str; 3] =
    ["VC_CG_CPUSET", "VC_CG_NAME", "VENUS_WORKER_NUMA_PREFERRED"];

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
    /// The cpus are no list of cpus.
    #[error("VC_CG_CPUSET cannot be understood")]
    CpuSet(#[from] CpuListError),
    /// The kernel does not let it use them.
    #[error("VC_CG_CPUSET cannot be had")]
    Bind(#[source] BindError),
    /// The node is no number.
    #[error("VENUS_WORKER_NUMA_PREFERRED={value:?} is not the number of a NUMA node")]
    Node {
        /// What was set.
        value: String,
    },
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

impl PlaceError {
    /// Whether what was asked for makes no sense anywhere; else it cannot be had here and now.
    pub fn is_nonsense(&self) -> bool {
        matches!(self, Self::CpuSet(_) | Self::Node { .. } | Self::Name { .. })
    }
}

/// Puts the process where its environment wants it, all or not at all, and reads back that it is
/// there. `get` gives the values of [`PLACEMENT_NAMES`].
///
/// Threads inherit their place when they start: call this before there are others.
pub fn place_self(get: impl Fn(&str) -> Option<String>) -> Result<Placed, PlaceError> {
    place_on(Path::new("/sys"), get, CgroupTree::open)
}

fn place_on(
    sys_root: &Path,
    get: impl Fn(&str) -> Option<String>,
    open: impl FnOnce() -> Result<CgroupTree, Vec<CgroupError>>,
) -> Result<Placed, PlaceError> {
    let cpus: Option<CpuSet> = get("VC_CG_CPUSET").map(|text| text.parse()).transpose()?;
    // All cpus are those that it may use now.
    let allowed = allowed_cpus().unwrap_or_default();
    let cpus = cpus.map(|cpus| cpus.on(&allowed));
    let node = get("VENUS_WORKER_NUMA_PREFERRED")
        .map(|value| value.trim().parse().map(NodeId).map_err(|_| PlaceError::Node { value }))
        .transpose()?;
    if let Some(node) = node {
        let nodes = online_nodes(sys_root)?;
        // Where the kernel tells of none, a preference is about nothing.
        if !nodes.is_empty() && !nodes.contains(&node) {
            let there = nodes.into_iter().map(|node| node.0).collect();
            return Err(PlaceError::NoNode { node, there });
        }
    }
    let group = get("VC_CG_NAME").filter(|name| !name.is_empty());
    if let Some(name) = group.as_ref().filter(|name| !is_group_name(name)) {
        return Err(PlaceError::Name { name: name.clone() });
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
        values: &[(&str, &str)],
    ) -> (Result<Placed, String>, CpuSet, Option<NodeId>) {
        let values: Vec<_> =
            values.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let placed = std::thread::spawn(move || {
            let get = |name: &str| {
                values.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
            };
            // The group is the process's, which is that of other tests.
            let none = || Err(vec![CgroupError::NotMounted]);
            let placed = place_on(&sys_root, get, none).map_err(|error| told(&error));
            (placed, allowed_cpus().expect("always readable"), preferred_node())
        });
        placed.join().expect("no panic")
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
        let (placed, cpus, node) = place("/sys".into(), &[("HOME", "/h")]);
        let placed = placed.expect("nothing was asked for");
        assert!(placed.cpus.is_none() && placed.node.is_none() && placed.group.is_none());
        assert_eq!((cpus, node), (allowed, None));
    }

    #[test]
    fn the_cpus_and_the_node_of_the_environment_are_taken() {
        let allowed = allowed_cpus().expect("always readable");
        let last = allowed.iter().last().expect("a thread runs somewhere");
        let values = [("VC_CG_CPUSET", last.to_string()), ("VC_CG_NAME", "vc/1/2".to_owned())];
        let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (placed, cpus, _) = place("/sys".into(), &values);
        let placed = placed.expect("allowed");
        assert_eq!(cpus, [last].into_iter().collect());
        assert_eq!((placed.cpus, placed.group.as_deref()), (Some(cpus), Some("vc/1/2")));
        let reason = placed.no_group.expect("there are no groups in this test");
        assert_eq!(reason, "no cgroup hierarchy with cpusets is mounted");

        let (placed, _, node) = place("/sys".into(), &[("VENUS_WORKER_NUMA_PREFERRED", "0")]);
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
            let (placed, _, node) =
                place(sys.path().into(), &[("VENUS_WORKER_NUMA_PREFERRED", "1000")]);
            let placed = placed.expect("a preference stops nothing");
            let told = placed.no_preference.expect("no kernel has that many");
            assert!(told.contains("=1000: its memory cannot be preferred: "), "{told}");
            assert!(told.contains(consequence), "{told}");
            assert_eq!((placed.node, node), (None, None));
        }
        // Without /sys nothing is known of nodes.
        let none = tempfile::tempdir().expect("a temporary directory");
        let (placed, ..) = place(none.path().into(), &[("VENUS_WORKER_NUMA_PREFERRED", "1000")]);
        assert!(placed.expect("a preference stops nothing").no_preference.is_some());
    }

    #[test]
    fn what_cannot_be_had_stops_the_start() {
        let allowed = allowed_cpus().expect("always readable");
        let sys = two_nodes();
        for (name, value, text) in [
            (
                "VC_CG_CPUSET",
                "8000",
                "VC_CG_CPUSET cannot be had: cannot confine a thread to cpus 8000",
            ),
            (
                "VC_CG_CPUSET",
                "a-b",
                "VC_CG_CPUSET cannot be understood: \"a-b\" is neither a cpu nor a range",
            ),
            ("VC_CG_CPUSET", "", "VC_CG_CPUSET cannot be understood: the list is empty"),
            ("VENUS_WORKER_NUMA_PREFERRED", "-1", "=\"-1\" is not the number of a NUMA node"),
            ("VC_CG_NAME", "../x", "VC_CG_NAME=\"../x\" is not the name of a cgroup"),
            ("VENUS_WORKER_NUMA_PREFERRED", "2", "this machine has no such NUMA node, only 0-1"),
        ] {
            let (placed, cpus, node) = place(sys.path().into(), &[(name, value)]);
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
            let (placed, cpus, _) = place("/sys".into(), &[("VC_CG_CPUSET", &text)]);
            assert_eq!(placed.expect("allowed").cpus, Some(wanted.clone()), "{text}");
            assert_eq!(cpus, wanted, "{text}");
        }
    }

    #[test]
    fn a_bad_node_leaves_the_cpus_alone_too() {
        let allowed = allowed_cpus().expect("always readable");
        let first = allowed.first().expect("a thread runs somewhere").to_string();
        let values = [("VC_CG_CPUSET", first.as_str()), ("VENUS_WORKER_NUMA_PREFERRED", "7")];
        let (placed, cpus, _) = place(two_nodes().path().into(), &values);
        assert!(placed.is_err());
        assert_eq!(cpus, allowed);
    }
}
