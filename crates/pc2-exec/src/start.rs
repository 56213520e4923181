//! What is found out before the first task.

use seal_runtime::Environment;

const TREE_FLAG: &str = "FIL_PROOFS_USE_GPU_TREE_BUILDER";
const COLUMN_FLAG: &str = "FIL_PROOFS_USE_GPU_COLUMN_BUILDER";
const GPU: &str = "SEAL_GPU";
const ROWS: &str = "FIL_PROOFS_ROWS_TO_DISCARD";

/// Why the environment asks for something that cannot be had, if it does.
pub(crate) fn check(environment: &Environment) -> Result<(), String> {
    check_rows(environment)?;
    check_gpu(environment)
}

/// Another number of rows gives a tree R last that other software rejects.
fn check_rows(environment: &Environment) -> Result<(), String> {
    match environment.get(ROWS).as_deref().map(str::trim) {
        None | Some("2") => Ok(()),
        Some(other) => Err(format!(
            "{ROWS}={other}: with anything but 2, window PoSt of other software rejects the tree; \
             unset it"
        )),
    }
}

/// A GPU that was asked for and cannot be used is an error, not a silent run on the CPU.
fn check_gpu(environment: &Environment) -> Result<(), String> {
    let asked: Vec<_> = [TREE_FLAG, COLUMN_FLAG]
        .into_iter()
        .filter(|name| environment.is_set_to_yes(name))
        .collect();
    let optional = match environment.get(GPU).as_deref() {
        None => false,
        Some("optional") => true,
        Some(other) => return Err(format!("{GPU}={other:?}: the only value is optional")),
    };
    if asked.is_empty() {
        return Ok(());
    }
    let asked = asked.join(" and ");
    if optional {
        tracing::warn!("{asked} is set, but this build has no GPU support: the CPU does the work");
        return Ok(());
    }
    Err(format!(
        "{asked} is set, but this build has no GPU support; unset it, or set {GPU}=optional to \
         work on the CPU"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_was_asked_for_is_not_silently_done_without() {
        for flag in [TREE_FLAG, COLUMN_FLAG] {
            let error = check(&Environment::of(&[(flag, "1")])).unwrap_err();
            assert!(error.contains(flag) && error.contains("SEAL_GPU=optional"), "{error}");
            check(&Environment::of(&[(flag, "1"), (GPU, "optional")])).expect("the CPU will do");
            check(&Environment::of(&[(flag, "0")])).expect("not asked for");
        }
        assert!(check(&Environment::of(&[(GPU, "never")])).is_err());
    }

    #[test]
    fn other_rows_to_discard_are_refused() {
        check(&Environment::of(&[(ROWS, "2")])).expect("the usual");
        let error = check(&Environment::of(&[(ROWS, "3")])).unwrap_err();
        assert!(error.starts_with("FIL_PROOFS_ROWS_TO_DISCARD=3"), "{error}");
    }
}
