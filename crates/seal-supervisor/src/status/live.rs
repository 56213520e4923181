//! What the kernel says of processes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Live;

/// The kernel walks a process's page tables to tell where its memory lies: with hundreds of GiB
/// that takes time, so it is not asked more often.
const ASK_FOR_MEMORY: Duration = Duration::from_secs(30);

/// Looks at processes, again and again.
#[derive(Debug)]
pub(crate) struct Looker {
    proc_root: PathBuf,
    local: HashMap<(u32, u32), (Instant, Option<f64>)>,
}

impl Default for Looker {
    fn default() -> Self {
        Self::on(Path::new("/proc"))
    }
}

impl Looker {
    pub(super) fn on(proc_root: &Path) -> Self {
        Self { proc_root: proc_root.to_path_buf(), local: HashMap::new() }
    }

    pub(super) fn proc_root(&self) -> &Path {
        &self.proc_root
    }

    /// What there is to be said of a process whose memory should be on `node`.
    pub(super) fn look(&mut self, pid: u32, node: Option<u32>) -> Option<Live> {
        let status = std::fs::read_to_string(self.proc_root.join(format!("{pid}/status"))).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let kib = field("VmRSS:").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Some(Live {
            cpus: field("Cpus_allowed_list:")?.to_owned(),
            resident: kib.unwrap_or(0) << 10,
            percent_local: node.and_then(|node| self.percent_local(pid, node)),
        })
    }

    fn percent_local(&mut self, pid: u32, node: u32) -> Option<f64> {
        let now = Instant::now();
        match self.local.get(&(pid, node)) {
            Some((at, percent)) if now.duration_since(*at) < ASK_FOR_MEMORY => *percent,
            _ => {
                self.local.retain(|_, (at, _)| now.duration_since(*at) < 4 * ASK_FOR_MEMORY);
                let path = self.proc_root.join(format!("{pid}/numa_maps"));
                let maps = std::fs::read_to_string(path);
                let percent = maps.ok().and_then(|maps| local_share(&maps, node));
                self.local.insert((pid, node), (now, percent));
                percent
            }
        }
    }
}

/// How `numa_maps` names memory that has a file for its name only.
const MEMORY: [&str; 4] = ["file=/memfd:", "file=/dev/shm/", "file=/dev/zero", "file=/SYSV"];

/// How much of the memory that `numa_maps` tells of is on `node`. Pages of files, such as those of
/// binaries and parents caches, are left out: they are the page cache's and lie where they were read
/// first, whatever the process asks for.
fn local_share(maps: &str, node: u32) -> Option<f64> {
    let (mut local, mut all) = (0_u64, 0_u64);
    for line in maps.lines() {
        let words = || line.split_ascii_whitespace();
        let is_memory = |word: &str| word == "huge" || MEMORY.iter().any(|m| word.starts_with(m));
        if words().any(|word| word.starts_with("file=")) && !words().any(is_memory) {
            continue;
        }
        let number = |name: &str| words().find_map(|w| w.strip_prefix(name)?.parse::<u64>().ok());
        let kib = number("kernelpagesize_kB=").unwrap_or(4);
        for word in words().filter_map(|word| word.strip_prefix('N')) {
            let Some((on, pages)) = word.split_once('=') else { continue };
            let (Ok(on), Ok(pages)) = (on.parse::<u32>(), pages.parse::<u64>()) else { continue };
            all = all.saturating_add(pages.saturating_mul(kib));
            if on == node {
                local = local.saturating_add(pages.saturating_mul(kib));
            }
        }
    }
    (all > 0).then(|| local as f64 / all as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_count_by_their_size() {
        let maps = "7f00 prefer:0 anon=1024 dirty=1024 N0=1024 kernelpagesize_kB=4\n\
                    7f10 bind:1 huge anon=6 dirty=6 N0=2 N1=4 kernelpagesize_kB=2048\n\
                    7f20 default file=/bin/x mapped=3000 mapmax=2 N1=3000 kernelpagesize_kB=4\n\
                    7f30 default file=/bin/x dirty=9 mapped=9 N1=9 kernelpagesize_kB=4\n\
                    7f40 default file=/x huge dirty=1 N0=1 kernelpagesize_kB=2048\n\
                    7f50 default file=/memfd:a\\040(deleted) dirty=512 N1=512 kernelpagesize_kB=4\n\
                    7f60 default anon=1 dirty=1 N=x\n";
        // 4, 4 and 2 MiB on node 0, 8 and 2 MiB on node 1.
        assert_eq!(local_share(maps, 0), Some(50.0));
        assert_eq!(local_share(maps, 1), Some(50.0));
        assert_eq!(local_share(maps, 2), Some(0.0));
        assert_eq!(local_share("", 0), None);
    }

    #[test]
    fn a_process_is_looked_at() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process = dir.path().join("42");
        std::fs::create_dir(&process).expect("writable");
        let status = "Name:\tpc1-exec\nVmRSS:\t    2048 kB\nCpus_allowed_list:\t0-3,8\n";
        std::fs::write(process.join("status"), status).expect("writable");
        let mut looker = Looker::on(dir.path());
        let live = looker.look(42, Some(0)).expect("there");
        assert_eq!((live.cpus.as_str(), live.resident), ("0-3,8", 2 << 20));
        assert_eq!(live.percent_local, None);
        assert_eq!(looker.look(43, None), None);
        let this = Looker::default().look(std::process::id(), None).expect("this process");
        assert!(this.resident > 0);
    }
}
