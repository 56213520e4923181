//! Who computes: the processor, a GPU, or both, as the environment says.
//!
//! `FIL_PROOFS_USE_GPU_COLUMN_BUILDER` and `FIL_PROOFS_USE_GPU_TREE_BUILDER` each do what they say.
//! Today's software ignores the first and lets the second govern both, so the second alone means
//! both here too: nobody who relies on it silently gets columns on the processor.

use std::sync::Arc;

use seal_poseidon::Kernel;
use seal_runtime::{CorruptionLog, Environment};
use seal_trees::{Backend, Cpu, Gpu, GpuParts, GpuSettings, WrongBefore};

/// The columns' flag.
pub(crate) const COLUMN_FLAG: &str = "FIL_PROOFS_USE_GPU_COLUMN_BUILDER";
/// The trees' flag.
pub(crate) const TREE_FLAG: &str = "FIL_PROOFS_USE_GPU_TREE_BUILDER";
/// The most columns at a time.
pub(crate) const COLUMN_CAP: &str = "FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE";
/// The most leaves of a tree at a time.
pub(crate) const TREE_CAP: &str = "FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE";
/// The driver's own choice of devices.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// Whether the processor may take over.
pub(crate) const GPU: &str = "SEAL_GPU";

/// What the environment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What is to be done on a GPU.
    pub(crate) parts: GpuParts,
    most_columns: Option<usize>,
    most_leaves: Option<usize>,
    visible: Option<String>,
    /// Whether the processor may do it where no GPU is usable.
    optional: bool,
}

impl Wish {
    /// The wish for a GPU, if there is one; or what cannot be understood.
    pub(crate) fn of(environment: &Environment) -> Result<Option<Self>, String> {
        let column_flag = flag(environment, COLUMN_FLAG)?;
        let tree_flag = flag(environment, TREE_FLAG)?;
        let optional = match environment.get(GPU).as_deref() {
            None => false,
            Some("optional") => true,
            Some(other) => return Err(format!("{GPU}={other:?}: the only value is optional")),
        };
        let trees = tree_flag.unwrap_or(false);
        let columns = column_flag.unwrap_or(trees);
        let most = |name| match environment.get(name).map(|value| (value.parse(), value)) {
            None => Ok(None),
            Some((Ok(most), _)) if most > 0 => Ok(Some(most)),
            Some((_, value)) => Err(format!(
                "{name}={value:?}: the most nodes at a time is expected, a whole number from 1 on"
            )),
        };
        let (most_columns, most_leaves) = (most(COLUMN_CAP)?, most(TREE_CAP)?);
        Ok((columns || trees).then(|| Self {
            parts: GpuParts { columns, trees },
            most_columns,
            most_leaves,
            visible: environment.get(VISIBLE),
            optional,
        }))
    }

    fn settings(&self, kernel: Kernel, record: &CorruptionLog) -> GpuSettings {
        let before = record.wrong_devices().into_iter();
        let before = before.map(|(device, (wrong, told))| (device, WrongBefore { wrong, told }));
        GpuSettings {
            before: before.collect(),
            most_columns: self.most_columns,
            most_leaves: self.most_leaves,
            visible: self.visible.clone(),
            replaceable: self.optional,
            ..GpuSettings::new(self.parts, kernel)
        }
    }

    /// The flags that are behind it.
    fn flags(&self) -> &'static str {
        match (self.parts.columns, self.parts.trees) {
            (_, true) => TREE_FLAG,
            _ => COLUMN_FLAG,
        }
    }
}

/// Whether a flag says yes or no, as `filecoin-proofs` reads it.
fn flag(environment: &Environment, name: &str) -> Result<Option<bool>, String> {
    let Some(value) = environment.get(name) else { return Ok(None) };
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(Some(true)),
        "0" | "false" | "off" | "no" | "" => Ok(Some(false)),
        _ => Err(format!("{name}={value:?}: 1 and 0 are understood")),
    }
}

/// Opens who is to compute. A GPU that was asked for and is not usable is an error, not a silent
/// run on the processor.
pub(crate) fn backend(
    wish: Option<&Wish>,
    kernel: Kernel,
    record: &CorruptionLog,
) -> Result<Arc<dyn Backend>, String> {
    backend_by(wish, kernel, record, |settings| match Gpu::open(settings) {
        Ok(gpu) => Ok(Arc::new(gpu)),
        Err(error) => Err(with_causes(&error)),
    })
}

fn backend_by(
    wish: Option<&Wish>,
    kernel: Kernel,
    record: &CorruptionLog,
    open: impl FnOnce(GpuSettings) -> Result<Arc<dyn Backend>, String>,
) -> Result<Arc<dyn Backend>, String> {
    // The processor counts the cpus that this process may use, so after it has been placed.
    let cpu = || Arc::new(Cpu::new(kernel));
    let Some(wish) = wish else { return Ok(cpu()) };
    // One that computes wrongly is replaced by itself, so that it is named in the status.
    match open(wish.settings(kernel, record)) {
        Ok(gpu) => Ok(gpu),
        Err(error) if wish.optional => {
            tracing::warn!(
                "{} is set, but no GPU is usable, and {GPU}=optional lets the CPU do the work: \
                 {error}",
                wish.flags()
            );
            Ok(cpu())
        }
        Err(error) => Err(format!(
            "{} is set, but no GPU is usable: {error}. Unset it, or set {GPU}=optional to work on \
             the CPU",
            wish.flags()
        )),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::Stage;

    /// One that has nothing.
    fn record() -> CorruptionLog {
        CorruptionLog::in_dir(Stage::Pc2, std::path::Path::new("/no/such/directory"))
    }

    fn parts(columns: bool, trees: bool) -> Option<GpuParts> {
        (columns || trees).then_some(GpuParts { columns, trees })
    }

    #[test]
    fn each_flag_does_what_it_says_and_the_trees_flag_alone_means_both() {
        for (column_flag, tree_flag, wanted) in [
            (None, None, None),
            (None, Some("1"), parts(true, true)),
            (None, Some("0"), None),
            (Some("1"), None, parts(true, false)),
            (Some("0"), None, None),
            (Some("1"), Some("1"), parts(true, true)),
            (Some("0"), Some("1"), parts(false, true)),
            (Some("1"), Some("0"), parts(true, false)),
            (Some("0"), Some("0"), None),
            (Some("true"), Some("False"), parts(true, false)),
            (None, Some(""), None),
        ] {
            let flags = [(COLUMN_FLAG, column_flag), (TREE_FLAG, tree_flag)];
            let set: Vec<_> =
                flags.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
            let wish = Wish::of(&Environment::of(&set)).expect("understood");
            assert_eq!(wish.map(|wish| wish.parts), wanted, "{set:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, value) in [
            (TREE_FLAG, "maybe"),
            (COLUMN_FLAG, "2"),
            (COLUMN_CAP, "0"),
            (TREE_CAP, "many"),
            (GPU, "never"),
        ] {
            let error = Wish::of(&Environment::of(&[(name, value)])).expect_err("not understood");
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn caps_and_devices_are_passed_on() {
        let environment = Environment::of(&[
            (TREE_FLAG, "1"),
            (COLUMN_CAP, "400000"),
            (TREE_CAP, "700000"),
            (VISIBLE, "GPU-1234"),
        ]);
        let wish = Wish::of(&environment).expect("understood").expect("a GPU");
        let settings = wish.settings(Kernel::portable(), &record());
        assert_eq!((settings.most_columns, settings.most_leaves), (Some(400_000), Some(700_000)));
        assert_eq!(settings.visible.as_deref(), Some("GPU-1234"));
        assert!(!settings.replaceable);
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_not_silently_done_without() {
        let wish = |pairs: &[(&str, &str)]| {
            Wish::of(&Environment::of(pairs)).expect("understood").expect("a GPU")
        };
        let fails = |_| Err("the NVIDIA driver shows no device".to_owned());
        for flag in [TREE_FLAG, COLUMN_FLAG] {
            let error =
                backend_by(Some(&wish(&[(flag, "1")])), Kernel::portable(), &record(), fails)
                    .expect_err("none is usable");
            for part in [flag, "shows no device", "SEAL_GPU=optional"] {
                assert!(error.contains(part), "{error}");
            }
            let optional = wish(&[(flag, "1"), (GPU, "optional")]);
            let backend = backend_by(Some(&optional), Kernel::portable(), &record(), fails)
                .expect("the processor does it");
            assert!(backend.describe().starts_with("cpu"), "{backend:?}");
        }
        let untouched = |_| panic!("nobody asked for a GPU");
        backend_by(None, Kernel::portable(), &record(), untouched).expect("the processor does it");
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_kernels_says_so() {
        let wish = Wish::of(&Environment::of(&[(TREE_FLAG, "1")])).expect("understood");
        let error = backend(wish.as_ref(), Kernel::portable(), &record()).expect_err("no kernels");
        assert!(error.contains("--features cuda"), "{error}");
    }
}
