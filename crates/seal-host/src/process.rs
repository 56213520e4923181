//! Which process is meant: a pid means something only within its pid namespace, and only until
//! it is used again.

use std::path::Path;

/// When a process started, in the kernel's ticks after boot, if it is there and has not ended:
/// with its pid this names it, because pids are used again. `proc_root` is `/proc`.
pub fn process_start(proc_root: &Path, pid: u32) -> Option<u64> {
    let stat = std::fs::read(proc_root.join(format!("{pid}/stat"))).ok()?;
    // Fields are counted after the name, which may contain anything but the last bracket.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // The state is field 3, the start is field 22.
    fields.nth(18)?.parse().ok()
}

/// The pid namespace of this process, as the kernel numbers namespaces. `None` where `proc_root`
/// does not tell, or tells the pids of another namespace than this process's own, as where a
/// namespace was made without a `/proc` of its own.
pub fn pid_namespace(proc_root: &Path) -> Option<u64> {
    if let Ok(this) = std::fs::read_link(proc_root.join("self"))
        && this.to_str() != Some(&std::process::id().to_string())
    {
        return None;
    }
    let link = std::fs::read_link(proc_root.join("self/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_start_until_it_is_a_zombie() {
        let own = process_start(Path::new("/proc"), std::process::id());
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(process_start(Path::new("/proc"), std::process::id()), own);
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let dir = proc_root.path().join("7");
        std::fs::create_dir(&dir).expect("writable");
        for (state, start) in [("S", Some(42)), ("Z", None), ("X", None)] {
            let stat = format!("7 (a) \u{fc}) b) {state} {}42 0", "0 ".repeat(18));
            std::fs::write(dir.join("stat"), stat).expect("writable");
            assert_eq!(process_start(proc_root.path(), 7), start, "{state}");
        }
        assert_eq!(process_start(proc_root.path(), 8), None);
    }

    #[test]
    fn a_proc_of_another_namespace_tells_nothing() {
        assert!(pid_namespace(Path::new("/proc")).is_some());
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let there = proc_root.path().join("1");
        std::fs::create_dir_all(there.join("ns")).expect("writable");
        std::os::unix::fs::symlink("pid:[5]", there.join("ns/pid")).expect("writable");
        std::os::unix::fs::symlink("1", proc_root.path().join("self")).expect("writable");
        assert_eq!(pid_namespace(proc_root.path()), None, "this is process 1 of no namespace");
    }
}
