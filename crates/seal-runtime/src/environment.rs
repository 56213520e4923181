//! The environment variables users already set: which are honoured, which have no effect.
//!
//! Users carry these names from guide to guide. One that does nothing, or is misspelt, is told at
//! the start instead of being believed in.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;

use seal_types::{FIL_PROOFS_SETTINGS, is_unknown_seal_setting};

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
                value.parse().map_err(|_| format!("{name}={value:?} cannot be understood"))
            })
            .transpose()
    }

    /// One text for each variable that is set and does nothing here, and for a settings file of
    /// other software in `directory`.
    pub fn findings(&self, honoured: Honoured, directory: &Path) -> Vec<String> {
        let mut findings: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| !honoured.0.contains(&name.as_str()))
            .filter_map(|(name, value)| finding(name, value))
            .collect();
        const SETTINGS: &str = "rust-fil-proofs.config.toml";
        if directory.join(SETTINGS).exists() {
            findings.push(format!(
                "{SETTINGS} in the working directory changes what the published proof crates do; \
                 this software takes its settings from the environment, so remove the file"
            ));
        }
        findings
    }

    /// Logs [`Environment::findings`] as warnings.
    pub fn report(&self, honoured: Honoured) {
        let directory = std::env::current_dir().unwrap_or_default();
        for finding in self.findings(honoured, &directory) {
            tracing::warn!("{finding}");
        }
    }
}

fn finding(name: &str, value: &str) -> Option<String> {
    if name == "FIL_PROOFS_MAXIMIZE_CACHING" {
        return Some(format!("{name}={value} has no effect, here or in any current software"));
    }
    if FIL_PROOFS_SETTINGS.contains(&name) || OTHERS.contains(&name) {
        return Some(format!("{name}={value} has no effect on this executor"));
    }
    if is_unknown_seal_setting(name) {
        // Not its value: it may be a secret of somebody else's.
        return Some(format!("{name} is not a setting of this software; is it misspelt?"));
    }
    name.starts_with("FIL_PROOFS_").then(|| {
        format!("{name}={value} is not a setting that any software knows; is it misspelt?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_has_no_effect_and_what_is_unknown() {
        let environment = Environment::of(&[
            ("FIL_PROOFS_MAXIMIZE_CACHING", "1"),
            ("FIL_PROOFS_PARENT_CACHE", "/p"),
            ("FIL_PROOFS_USE_MULTICORE_SDR", "1"),
            ("FIL_PROOFS_PARENTS_CACHE", "/p"),
            ("HOME", "/h"),
            ("SEAL_PC1_LANE", "2"),
            ("SEAL_PC1_LANES", "2"),
            ("FIL_PROOFS_DISABLE_NUMA", "1"),
        ]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let honoured = Honoured(&["FIL_PROOFS_PARENT_CACHE"]);
        let findings = environment.findings(honoured, dir.path());
        assert_eq!(findings.len(), 5, "{findings:?}");
        assert!(findings[0].contains("any current software"), "{findings:?}");
        assert!(findings[1].contains("no effect on this executor"), "{findings:?}");
        assert!(findings[2].contains("FIL_PROOFS_PARENTS_CACHE=/p is not a setting"));
        assert!(findings[3].starts_with("SEAL_PC1_LANE is not a setting"), "{findings:?}");
        assert!(findings[4].starts_with("FIL_PROOFS_DISABLE_NUMA=1 has no effect on"));
    }

    #[test]
    fn a_settings_file_of_other_software_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let environment = Environment::of(&[]);
        assert!(environment.findings(Honoured(&[]), dir.path()).is_empty());
        std::fs::write(dir.path().join("rust-fil-proofs.config.toml"), "").expect("writable");
        assert_eq!(environment.findings(Honoured(&[]), dir.path()).len(), 1);
    }

    #[test]
    fn yes_is_what_other_software_takes_for_yes() {
        for (value, yes) in [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)] {
            assert_eq!(Environment::of(&[("X", value)]).is_set_to_yes("X"), yes, "{value:?}");
        }
        assert!(!Environment::of(&[]).is_set_to_yes("X"));
    }
}
