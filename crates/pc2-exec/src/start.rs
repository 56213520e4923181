//! What is found out before the first task.

use seal_runtime::Environment;

const ROWS: &str = "FIL_PROOFS_ROWS_TO_DISCARD";

/// Another number of rows gives a tree R last that other software rejects.
pub(crate) fn check_rows(environment: &Environment) -> Result<(), String> {
    match environment.get(ROWS).as_deref().map(str::trim) {
        None | Some("2") => Ok(()),
        Some(other) => Err(format!(
            "{ROWS}={other}: with anything but 2, window PoSt of other software rejects the tree; \
             unset it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rows_to_discard_are_refused() {
        check_rows(&Environment::of(&[(ROWS, "2")])).expect("the usual");
        let error = check_rows(&Environment::of(&[(ROWS, "3")])).unwrap_err();
        assert!(error.starts_with("FIL_PROOFS_ROWS_TO_DISCARD=3"), "{error}");
    }
}
