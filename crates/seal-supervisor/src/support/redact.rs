//! Paths, names and numbers that tell whose machine it is, replaced by others, each by the same one
//! everywhere: what belongs together still does.
//!
//! What is to go is found by its form, and beside that by what is known of this machine: the parts
//! of every path that is known or found count as names, wherever else they stand. Rather too much
//! goes than too little.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Parts of paths that every machine has, and files of sealing, which tell of nobody.
const COMMON: &str = "etc usr var tmp run dev proc sys opt mnt home root bin sbin lib lib64 local share \
    log logs cache cgroup fs self status net docs null zero shm huge hugepages numa_0 numa_1 \
    seal-exec seal-supervisor seal-plan pc1-exec pc2-exec c2-exec venus-worker damocles-worker \
    filecoin-parents filecoin-proof-parameters seal-exec-circuits seal-exec-checked-params.json \
    corruption.jsonl sealed unsealed cache_path staged p_aux t_aux systemd system.slice user.slice \
    init.scope target release debug lock locks system cpu node processors.toml venus-worker.toml \
    corruption.md operations.md supervisor.md config.md gpu.md planning.md protocol.md \
    meminfo cpuinfo limits mountinfo enabled memory.max cpu.max pids.max cpuset.cpus.effective or and";

/// Words before a number that say that it is that of a sector or provider.
const NUMBERED: &str = "sector sector_id sector_number number miner miner_id actor provider";

/// Replaces what identifies.
#[derive(Debug)]
pub(super) struct Redactor {
    common: BTreeSet<&'static str>,
    /// Names that go wherever they stand, with what comes in their place.
    names: BTreeMap<String, String>,
    /// How many of each kind there are.
    counts: BTreeMap<&'static str, usize>,
}

impl Redactor {
    /// Replaces what is known: whole paths, of which each part counts, and names, such as that of
    /// the host.
    pub(super) fn new(paths: &[String], names: &[String]) -> Self {
        let common = COMMON.split_whitespace().collect();
        let mut redactor = Self { common, names: BTreeMap::new(), counts: BTreeMap::new() };
        for name in names.iter().filter(|name| !name.is_empty()) {
            redactor.name("host", name);
        }
        for path in paths {
            path.split('/').for_each(|part| redactor.learn(part));
        }
        redactor
    }

    /// The text without what identifies.
    pub(super) fn redact(&mut self, text: &str) -> String {
        for path in text.split(|c: char| !is_of_path(c)).filter(|token| tells(token)) {
            path.split('/').for_each(|part| self.learn(part));
        }
        // Names with other signs than those of words are no words.
        let mut whole: Vec<_> = self.names.clone().into_iter().collect();
        whole.retain(|(name, _)| !name.chars().all(is_of_word));
        whole.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut text = text.to_owned();
        for (name, instead) in whole {
            text = text.replace(&name, &instead);
        }
        let (mut out, mut before) =
            (String::with_capacity(text.len()), [String::new(), String::new()]);
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if let Some(length) = ipv6(rest) {
                out.push_str(&self.name("ip", &rest[..length]));
                rest = &rest[length..];
                continue;
            }
            let length: usize =
                rest.chars().take_while(|c| is_of_word(*c)).map(char::len_utf8).sum();
            if length == 0 {
                out.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let in_path = out.ends_with('/') || rest[length..].starts_with('/');
            let word = self.word(&rest[..length], in_path, &before);
            before = [std::mem::take(&mut before[1]), rest[..length].to_lowercase()];
            out.push_str(&word);
            rest = &rest[length..];
        }
        out
    }

    /// A part of a path is a name wherever it stands, unless everybody has it or it is a number.
    fn learn(&mut self, part: &str) {
        let part = part.trim_end_matches(['.', ':', '-', '_']);
        let plain = part.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
        if part.chars().count() < 2 || plain || self.is_common(part) {
            return;
        }
        // A sector has its own form, and keeps it.
        if sector(part).is_none() {
            self.name("name", part);
        }
    }

    fn is_common(&self, part: &str) -> bool {
        let layer = part.starts_with("sc-02-data-") || part.starts_with(".sc-02-data-");
        self.common.contains(part.trim_start_matches('.')) || layer
    }

    fn word(&mut self, word: &str, in_path: bool, before: &[String; 2]) -> String {
        let trimmed = word.trim_end_matches(['.', '-', '_']);
        let tail = &word[trimmed.len()..];
        if let Some(instead) = self.names.get(trimmed) {
            return format!("{instead}{tail}");
        }
        if self.is_common(trimmed) {
            return word.to_owned();
        }
        if let Some((from, to, miner, number)) = sector(word) {
            let miner = self.name("m", miner);
            let number = self.name("n", number);
            return format!("{}s-t0{miner}-{number}{}", &word[..from], &word[to..]);
        }
        if let Some(kind) = form(trimmed) {
            return format!("{}{tail}", self.name(kind, trimmed));
        }
        let digits = !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit());
        if digits {
            let numbered = |word: &String| NUMBERED.split(' ').any(|known| known == word);
            let told = numbered(&before[1]) || before[1] == "is" && numbered(&before[0]);
            // A single digit of a path is a cpu or a node far more often than a person.
            return match told || in_path && trimmed.len() > 2 {
                true => format!("{}{tail}", self.name("n", trimmed)),
                false => word.to_owned(),
            };
        }
        self.within(word)
    }

    /// Known names that are a part of a longer word, such as that of a host in its domain.
    fn within(&self, word: &str) -> String {
        const SHORTEST: usize = 4;
        let mut known: Vec<_> = self
            .names
            .iter()
            .filter(|(name, _)| name.len() >= SHORTEST && word.contains(name.as_str()))
            .filter(|(name, _)| !name.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        known.iter().fold(word.to_owned(), |word, (name, instead)| replaced(&word, name, instead))
    }

    fn name(&mut self, kind: &'static str, name: &str) -> String {
        let key = match kind {
            // The number of a sector may be that of a provider too.
            "m" | "n" => format!("{kind}:{name}"),
            _ => name.to_owned(),
        };
        if let Some(instead) = self.names.get(&key) {
            return instead.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let instead = match kind {
            "m" | "n" => format!("{kind}{count}"),
            kind => format!("{kind}-{count}"),
        };
        self.names.insert(key, instead.clone());
        instead
    }
}

/// Whether a word is a path whose parts tell of the machine. Those of the kernel are the same on
/// all, but for groups.
fn tells(word: &str) -> bool {
    let of_kernel = word.starts_with("/proc/") || word.starts_with("/sys/");
    word.contains('/') && (!of_kernel || word.starts_with("/sys/fs/cgroup/"))
}

/// Replaces `name` in a word where it does not go on as a longer one.
fn replaced(word: &str, name: &str, instead: &str) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for (at, found) in word.match_indices(name) {
        let end = at + found.len();
        let goes_on = word[..at].ends_with(char::is_alphanumeric)
            || word[end..].starts_with(char::is_alphanumeric);
        out.push_str(&word[from..at]);
        out.push_str(if goes_on { found } else { instead });
        from = end;
    }
    out.push_str(&word[from..]);
    out
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn is_of_path(c: char) -> bool {
    is_of_word(c) || matches!(c, '/' | '~' | '+' | '@' | '%' | '#')
}

/// Where in a word the name of a sector stands, with its provider and number.
fn sector(word: &str) -> Option<(usize, usize, &str, &str)> {
    let from = word.find("s-")?;
    let rest = &word[from + 2..];
    let (owner, rest) = rest.split_once('-')?;
    let digits: usize = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = &rest[..digits];
    let miner = owner.strip_prefix("t0").or_else(|| owner.strip_prefix("f0"));
    let miner = miner.filter(|miner| miner.bytes().all(|byte| byte.is_ascii_digit()));
    let hex =
        (owner.len() == 12 && owner.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(owner);
    let miner = miner.or(hex).filter(|miner| !miner.is_empty() && !number.is_empty())?;
    Some((from, from + 2 + owner.len() + 1 + digits, miner, number))
}

/// What a word is by its form, if it identifies.
fn form(word: &str) -> Option<&'static str> {
    let bare: String = word.chars().filter(|c| *c != '-').collect();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = word.strip_prefix("GPU-").or(word.strip_prefix("MIG-")).unwrap_or(word);
    if uuid.len() == 36 && uuid.matches('-').count() == 4 && is_hex(&uuid.replace('-', "")) {
        return Some("uuid");
    }
    if bare.len() >= 32 && is_hex(&bare) {
        return Some("hex");
    }
    // Addresses of providers and wallets.
    let address = word.strip_prefix('t').or_else(|| word.strip_prefix('f'));
    if let Some(rest) = address {
        let number = rest.strip_prefix('0').is_some_and(|number| {
            number.len() > 1 && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let key = rest.len() > 30 && rest.starts_with(['1', '2', '3', '4']);
        if number || key && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some("address");
        }
    }
    let ip = word.parse::<Ipv4Addr>().ok()?;
    (!ip.is_loopback() && !ip.is_unspecified()).then_some("ip")
}

/// The length of the address at the begin, if there is one that is not of every machine.
fn ipv6(text: &str) -> Option<usize> {
    let length = text.bytes().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    let text = &text[..length.count()];
    let ip = text.parse::<Ipv6Addr>().ok().filter(|_| text.matches(':').count() > 1)?;
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_identifies_is_left_and_the_rest_stays() {
        let paths = ["/mnt/bob's disk/acme/work", "relative/zebra"].map(str::to_owned);
        let names = ["sealbox7"].map(str::to_owned);
        let mut redactor = Redactor::new(&paths, &names);
        let text = "\
sealbox7.acme.example pc1 of s-t01000-1 in /mnt/bob's disk/acme/work/s-t01000-1/sc-02-data-layer-3.dat
sector=s-f01000-27 at /srv/storage9/42/1234/p_aux, acme again, zebra/quagga, layer 3 of 11, 12 GiB
miner f01000, t3vvmn62lofvhjd2ugzca6sof2j2ubwok6cj4xxbfzz4yuxfkgobpihhd2thlanmsh3w2ptld2gqkn2jvlss4a
gpu A100 (GPU-1b2c3d4e-1111-2222-3333-444455556666), replica 0123456789abcdef0123456789abcdef0123
10.1.2.3:9184 127.0.0.1:9184 fe80::1:2 [::1]:1 12:34:56 sector_id is 8675309 miner_id=77123 s-0123456789ab-9
/run/seal-exec/corruption.jsonl /dev/zero version 0.1.0 (1 of 2)
versions of /proc/driver/nvidia/version, /data/versioned";
        let redacted = redactor.redact(text);
        for gone in [
            "sealbox7",
            "acme",
            "bob",
            "disk",
            "1000",
            "s-t01000-1",
            "-27",
            "storage9",
            "1234",
            "quagga",
            "zebra",
            "f01000",
            "t3vv",
            "1b2c3d4e",
            "0123456789ab",
            "10.1.2.3",
            "fe80",
            "8675309",
            "77123",
        ] {
            assert!(!redacted.contains(gone), "{gone} is in\n{redacted}");
        }
        for stays in [
            "versions of /proc/driver/nvidia/version",
            "sc-02-data-layer-3.dat",
            "p_aux",
            "layer 3 of 11, 12 GiB",
            "A100",
            "127.0.0.1:9184",
            "[::1]:1",
            "12:34:56",
            "/run/seal-exec/corruption.jsonl /dev/zero version 0.1.0 (1 of 2)",
        ] {
            assert!(redacted.contains(stays), "{stays} is not in\n{redacted}");
        }
        // The same one for the same thing, in another text too.
        let again = redactor.redact("s-t01000-27 s-t01001-27 s-t01000-1");
        let [one, other, first] = again.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{again}")
        };
        let parts = |name: &str| {
            let (miner, number) =
                name.strip_prefix("s-t0").expect("a name").split_once('-').expect("two");
            (miner.to_owned(), number.to_owned())
        };
        assert_eq!(parts(one).0, parts(first).0);
        assert_eq!(parts(one).1, parts(other).1);
        assert!(parts(one).0 != parts(other).0 && parts(one).1 != parts(first).1);
        assert!(redacted.contains(first) && redacted.contains(one), "{again}\n{redacted}");
    }
}
