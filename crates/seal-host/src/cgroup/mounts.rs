//! Where the kernel's cgroup hierarchies are mounted, and where in them this process is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Version;

/// A hierarchy with some controller, seen from this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) version: Version,
    /// The group at the top of what is mounted here.
    pub(crate) top: PathBuf,
    /// The group that this process is in.
    pub(crate) own: PathBuf,
}

/// The hierarchy with `controller`, from `/proc/self/mountinfo` and `/proc/self/cgroup`. One of
/// version 1 comes first: where it is mounted, version 2 does not have the controller.
pub(crate) fn find(mountinfo: &str, cgroup: &str, controller: &str) -> Option<Mount> {
    let mounts = || mountinfo.lines().filter_map(parse_mount);
    let v1 = mounts().find(|mount| mount.kind == "cgroup" && mount.has_option(controller));
    let v2 = mounts().find(|mount| mount.kind == "cgroup2");
    let version_1 = v1.and_then(|mount| {
        let own = cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            fields.next().filter(|_| controllers.split(',').any(|name| name == controller))
        })?;
        Some(mount.seen_from(Version::V1, own))
    });
    version_1.or_else(|| {
        let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(v2?.seen_from(Version::V2, own))
    })
}

struct MountLine<'a> {
    /// What of the hierarchy is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl MountLine<'_> {
    fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }

    /// With the group `own` as `/proc/self/cgroup` tells it. Where the mount shows another part of
    /// the hierarchy than that, as it can in containers, the process counts as being at its top.
    fn seen_from(self, version: Version, own: &str) -> Mount {
        let own = Path::new(own);
        // Groups outside of the namespace's root are told as "/../..".
        let outside = own.components().any(|part| part.as_os_str() == "..");
        let below = own.strip_prefix(&self.root).ok().filter(|_| !outside);
        let own = below.map_or(self.point.clone(), |below| {
            if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) }
        });
        Mount { version, top: self.point, own }
    }
}

/// A line of mountinfo: `36 35 98:0 /root /point rw,noatime shared:1 - cgroup cgroup rw,cpuset`.
fn parse_mount(line: &str) -> Option<MountLine<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    Some(MountLine { root: unescape(root), point: unescape(point), kind, options })
}

/// Spaces and the like stand in mountinfo as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "\
22 1 0:20 / /proc rw shared:5 - proc proc rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
    const HYBRID: &str = "\
31 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    fn mount(version: Version, top: &str, own: &str) -> Option<Mount> {
        Some(Mount { version, top: top.into(), own: own.into() })
    }

    #[test]
    fn the_hierarchy_with_cpusets_is_found() {
        let service = "0::/system.slice/venus-worker.service\n";
        let own = "/sys/fs/cgroup/system.slice/venus-worker.service";
        assert_eq!(find(V2, service, "cpuset"), mount(Version::V2, "/sys/fs/cgroup", own));
        let top = mount(Version::V2, "/sys/fs/cgroup", "/sys/fs/cgroup");
        assert_eq!(find(V2, "0::/\n", "cpuset"), top);
        assert_eq!(find(V2, "0::/../../other\n", "cpuset"), top, "another namespace");
        let cgroup = "4:memory:/a\n3:cpu,cpuset:/b/c\n0::/d\n";
        let cpuset = "/sys/fs/cgroup/cpuset";
        assert_eq!(
            find(HYBRID, cgroup, "cpuset"),
            mount(Version::V1, cpuset, "/sys/fs/cgroup/cpuset/b/c")
        );
        assert_eq!(find("", service, "cpuset"), None);
        assert_eq!(find("a b - c\n - \n", service, "cpuset"), None);
    }

    #[test]
    fn a_container_sees_its_part_of_the_hierarchy() {
        let bound = "9 8 0:26 /docker/7f /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let found = find(bound, "0::/docker/7f/inner\n", "cpuset");
        assert_eq!(found, mount(Version::V2, "/sys/fs/cgroup", "/sys/fs/cgroup/inner"));
        let found = find(bound, "0::/\n", "cpuset");
        assert_eq!(found, mount(Version::V2, "/sys/fs/cgroup", "/sys/fs/cgroup"));
    }

    #[test]
    fn escaped_names_are_understood() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\9\"), Path::new(r"/a\9\"));
    }
}
