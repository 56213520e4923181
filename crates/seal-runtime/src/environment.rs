//! The environment variables users already set: which are honoured, which have no effect.
//!
//! Users carry these names from guide to guide. One that does nothing anywhere, or is misspelt, is
//! told at the start instead of being believed in.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;

use seal_types::{FIL_PROOFS_SETTINGS, is_unknown_seal_setting, shown};

/// Other names that users set for some stage. Those of a place are for all of them: see
/// [`place`](crate::place).
const OTHERS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "HUGEPAGE_FILES_PATH", "HUGEPAGE_FILES_PATH_PATTERN", "SEAL_GPU"];

/// The names one executor acts on.
#[derive(Clone, Copy, Debug)]
pub struct Honoured(pub &'static [&'static str]);

/// The environment as it was at exec.
#[derive(Clone, Debug)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The environment of this process. Names and values that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// An environment of the given names and values.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// Whether `name` is set to what `filecoin-proofs` takes for yes.
    pub fn is_set_to_yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            ["1", "true", "on", "yes"].contains(&value.to_ascii_lowercase().as_str())
        })
    }

    /// The value of `name` as a number or other type, or a text that names both.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.get(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| format!("{name}={:?} cannot be understood", shown(&value)))
            })
            .transpose()
    }

    /// One text for each variable that is set and that no software knows, and for a settings file
    /// of other software in `directory`. No text has a value, which may be somebody's secret.
    pub fn findings(&self, directory: &Path) -> Vec<String> {
        let mut findings: Vec<_> = self.0.iter().filter_map(|(name, _)| finding(name)).collect();
        const SETTINGS: &str = "rust-fil-proofs.config.toml";
        if directory.join(SETTINGS).exists() {
            findings.push(format!(
                "{SETTINGS} in the working directory changes what the published proof crates do; \
                 this software takes its settings from the environment, so remove the file"
            ));
        }
        findings
    }

    /// The variables that are set and known, but not to this executor: users export what one stage
    /// needs for all of them.
    pub fn of_others(&self, honoured: Honoured) -> Vec<&str> {
        let known = |name: &str| {
            (FIL_PROOFS_SETTINGS.contains(&name) || OTHERS.contains(&name))
                && name != NO_EFFECT
                && !honoured.0.contains(&name)
        };
        self.0.iter().map(|(name, _)| name.as_str()).filter(|name| known(name)).collect()
    }

    /// Logs [`Environment::findings`] as warnings, and [`Environment::of_others`] for who looks for
    /// why a setting does nothing.
    pub fn report(&self, honoured: Honoured) {
        let directory = std::env::current_dir().unwrap_or_default();
        for finding in self.findings(&directory) {
            tracing::warn!("{finding}");
        }
        let others = self.of_others(honoured);
        if !others.is_empty() {
            tracing::debug!(names = others.join(" "), "settings without effect on this executor");
        }
    }
}

/// Users carry it from guide to guide, and nothing reads it.
const NO_EFFECT: &str = "FIL_PROOFS_MAXIMIZE_CACHING";

fn finding(name: &str) -> Option<String> {
    let told = shown(name);
    if name == NO_EFFECT {
        return Some(format!("{told} has no effect, here or in any current software"));
    }
    if is_unknown_seal_setting(name) {
        return Some(format!("{told} is not a setting of this software; is it misspelt?"));
    }
    (name.starts_with("FIL_PROOFS_") && !FIL_PROOFS_SETTINGS.contains(&name))
        .then(|| format!("{told} is not a setting that any software knows; is it misspelt?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_named_without_its_value_and_what_others_know_is_no_warning() {
        let set = [
            "FIL_PROOFS_MAXIMIZE_CACHING",
            "FIL_PROOFS_PARENT_CACHE",
            "FIL_PROOFS_USE_MULTICORE_SDR",
            "FIL_PROOFS_PARENTS_CACHE",
            "HOME",
            "SEAL_PC1_LANE",
            "SEAL_PC1_LANES",
            "FIL_PROOFS_DISABLE_NUMA",
            "SEAL_GPU",
        ];
        let pairs = set.map(|name| (name, "hunter2"));
        let environment = Environment::of(&pairs);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let findings = environment.findings(dir.path());
        let [caching, misspelt, ours] = &findings[..] else { panic!("{findings:?}") };
        assert!(caching.starts_with("FIL_PROOFS_MAXIMIZE_CACHING has no effect"), "{caching}");
        assert!(misspelt.starts_with("FIL_PROOFS_PARENTS_CACHE is not a setting"), "{misspelt}");
        assert!(ours.starts_with("SEAL_PC1_LANE is not a setting"), "{ours}");
        assert!(findings.iter().all(|finding| !finding.contains("hunter2")), "{findings:?}");
        let honoured = Honoured(&["FIL_PROOFS_PARENT_CACHE"]);
        let others = environment.of_others(honoured);
        let expected = ["FIL_PROOFS_USE_MULTICORE_SDR", "FIL_PROOFS_DISABLE_NUMA", "SEAL_GPU"];
        assert_eq!(others, expected);
    }

    #[test]
    fn a_settings_file_of_other_software_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let environment = Environment::of(&[]);
        assert!(environment.findings(dir.path()).is_empty());
        std::fs::write(dir.path().join("rust-fil-proofs.config.toml"), "").expect("writable");
        assert_eq!(environment.findings(dir.path()).len(), 1);
    }

    #[test]
    fn yes_is_what_other_software_takes_for_yes() {
        for (value, yes) in [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)] {
            assert_eq!(Environment::of(&[("X", value)]).is_set_to_yes("X"), yes, "{value:?}");
        }
        assert!(!Environment::of(&[]).is_set_to_yes("X"));
    }
}
