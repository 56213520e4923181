//! In which form log lines are written.
//!
//! Text is for people and JSON for programs. A process whose lines come between those of its
//! parent, which writes text, as venus-worker does, writes text too.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// A form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

impl LogForm {
    /// Its name, by which it is chosen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The form of this process's log: the chosen one; otherwise text on a terminal and where
    /// standard error is that of the parent, else JSON. The second value says why the choice cannot
    /// be understood.
    pub fn chosen(choice: Option<&str>) -> (Self, Option<String>) {
        let shared = || io::stderr().is_terminal() || is_parents(Path::new("/proc"));
        Self::of(choice, shared)
    }

    fn of(given: Option<&str>, shared: impl Fn() -> bool) -> (Self, Option<String>) {
        let auto = || if shared() { Self::Text } else { Self::Json };
        match given.map(str::trim) {
            Some("text") => (Self::Text, None),
            Some("json") => (Self::Json, None),
            None | Some("" | "auto") => (auto(), None),
            Some(other) => {
                let other = seal_types::shown(other);
                let unread = format!("{other:?} is no form of log lines: it is text, json or auto");
                (auto(), Some(unread))
            }
        }
    }
}

/// Whether standard error of this process is that of its parent. A parent that cannot be looked at
/// shows nothing.
fn is_parents(proc: &Path) -> bool {
    let target = |of: PathBuf| std::fs::read_link(of.join("fd/2")).ok();
    let own = target(proc.join("self"));
    let parent = proc.join(nix::unistd::getppid().to_string());
    own.is_some() && own == target(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_chooses_and_without_it_the_parent_does() {
        for (given, shared, form) in [
            (None, true, LogForm::Text),
            (None, false, LogForm::Json),
            (Some("auto"), false, LogForm::Json),
            (Some(""), true, LogForm::Text),
            (Some("json"), true, LogForm::Json),
            (Some("text"), false, LogForm::Text),
        ] {
            assert_eq!(LogForm::of(given, || shared), (form, None), "{given:?}");
        }
        for form in [LogForm::Text, LogForm::Json] {
            assert_eq!(LogForm::of(Some(form.name()), || unreachable!()).0, form);
        }
        let (form, unread) = LogForm::of(Some("xml"), || false);
        assert_eq!(form, LogForm::Json);
        assert!(unread.is_some_and(|text| text.contains("\"xml\"")));
    }

    #[test]
    fn standard_error_is_the_parents_if_it_goes_where_that_of_the_parent_goes() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        let link = |process: &str, to: &str| {
            let dir = proc.path().join(process).join("fd");
            std::fs::create_dir_all(&dir).expect("writable");
            let _ = std::fs::remove_file(dir.join("2"));
            std::os::unix::fs::symlink(to, dir.join("2")).expect("writable");
        };
        assert!(!is_parents(proc.path()), "nothing can be looked at");
        link("self", "socket:[7]");
        assert!(!is_parents(proc.path()), "the parent cannot be looked at");
        let parent = nix::unistd::getppid().to_string();
        link(&parent, "socket:[7]");
        assert!(is_parents(proc.path()));
        link(&parent, "socket:[8]");
        assert!(!is_parents(proc.path()));
    }
}
