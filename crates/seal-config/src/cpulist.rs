//! Lists of cpus as users write them: `0-41,48,50-53`.
//!
//! This reader explains mistakes to people. Lists that the kernel writes are read by `seal-host`,
//! which this layer may not know.

/// More than any machine has; a number beyond it is a typing error.
const HIGHEST: u32 = 8191;

/// What is wrong with a list of cpus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// Nothing was given.
    #[error("the list is empty; write cpus and ranges like \"0-3,8\"")]
    Empty,
    /// A part is neither a number nor a range.
    #[error("{part:?} is neither a cpu nor a range; write cpus and ranges like \"0-3,8\"")]
    Part {
        /// The part between the commas.
        part: String,
    },
    /// A range runs backwards.
    #[error("the range {part:?} runs backwards")]
    Backwards {
        /// The range.
        part: String,
    },
    /// A cpu beyond what Linux supports.
    #[error("cpu {cpu} is beyond {HIGHEST}, the highest that Linux supports")]
    TooHigh {
        /// The number.
        cpu: u32,
    },
    /// A cpu is there twice, which is most often a slip in one of the numbers.
    #[error("cpu {cpu} is in the list twice")]
    Twice {
        /// The number.
        cpu: u32,
    },
}

/// Reads a list of cpus. The result is sorted.
pub fn parse_cpu_list(text: &str) -> Result<Vec<u32>, CpuListError> {
    if text.trim().is_empty() {
        return Err(CpuListError::Empty);
    }
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let bad = || CpuListError::Part { part: part.to_owned() };
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| bad());
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last > HIGHEST {
            return Err(CpuListError::TooHigh { cpu: last });
        }
        if first > last {
            return Err(CpuListError::Backwards { part: part.to_owned() });
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    match cpus.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CpuListError::Twice { cpu: pair[0] }),
        None => Ok(cpus),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_cpus_and_ranges() {
        for (text, cpus) in [
            ("0", vec![0]),
            ("0-3", vec![0, 1, 2, 3]),
            ("8, 2-3 ,5", vec![2, 3, 5, 8]),
            ("7-7", vec![7]),
        ] {
            assert_eq!(parse_cpu_list(text), Ok(cpus), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_list() {
        let part = |part: &str| CpuListError::Part { part: part.to_owned() };
        for (text, error) in [
            ("", CpuListError::Empty),
            (" ", CpuListError::Empty),
            ("0-", part("0-")),
            ("1,,2", part("")),
            ("1;2", part("1;2")),
            ("-1", part("-1")),
            ("0-3-5", part("0-3-5")),
            ("5-2", CpuListError::Backwards { part: "5-2".to_owned() }),
            ("0-41,40", CpuListError::Twice { cpu: 40 }),
            ("0-4294967295", CpuListError::TooHigh { cpu: u32::MAX }),
        ] {
            assert_eq!(parse_cpu_list(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_gives_sorted_cpus(text in "[0-9,\\- x]{0,20}") {
            if let Ok(cpus) = parse_cpu_list(&text) {
                prop_assert!(cpus.is_sorted() && !cpus.is_empty());
            }
        }
    }
}
