//! Instruction sets of the processor, by the names that the kernel gives them.
//!
//! For who judges a machine before anything computes on it; kernels ask the processor itself.

use std::collections::BTreeSet;

use crate::Roots;

/// What the processor has, as in `/proc/cpuinfo`; `None` where that does not say, as on processors
/// other than x86.
pub fn instructions(roots: &Roots) -> Option<BTreeSet<String>> {
    let cpuinfo = std::fs::read_to_string(roots.proc.join("cpuinfo")).ok()?;
    flags(&cpuinfo)
}

/// Those of the first processor, which are those of all.
fn flags(cpuinfo: &str) -> Option<BTreeSet<String>> {
    let flags = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "flags").then_some(value)
    })?;
    Some(flags.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_flags_tells_them() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: EPYC: flags\nflags\t\t: fpu fma avx2\n\nflags\t: x\n";
        let found = flags(cpuinfo).expect("a line");
        assert!(found.into_iter().eq(["avx2", "fma", "fpu"]));
        assert_eq!(flags("processor\t: 0\nFeatures\t: fp asimd\n"), None);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_kernel_agrees_with_the_processor() {
        let found = instructions(&Roots::default()).expect("x86 has flags");
        for (name, there) in [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
        ] {
            assert_eq!(found.contains(name), there, "{name}");
        }
    }
}
