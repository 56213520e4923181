//! Who computes: the processor, a GPU, or both, as the settings say.

use std::num::NonZeroUsize;
use std::sync::Arc;

use seal_options::Pc2 as Settings;
use seal_poseidon::Kernel;
use seal_runtime::CorruptionLog;
use seal_trees::{Backend, Cpu, Gpu, GpuParts, GpuSettings, WrongBefore};

/// What is asked of a GPU, if anything.
fn gpu_settings(
    settings: &Settings,
    kernel: Kernel,
    record: &CorruptionLog,
) -> Option<GpuSettings> {
    let parts = GpuParts { columns: settings.gpu_columns, trees: settings.gpu_trees };
    let before = record.wrong_devices().into_iter();
    let before = before.map(|(device, (wrong, told))| (device, WrongBefore { wrong, told }));
    (parts.columns || parts.trees).then(|| GpuSettings {
        before: before.collect(),
        most_columns: settings.most_columns.map(NonZeroUsize::get),
        most_leaves: settings.most_leaves.map(NonZeroUsize::get),
        visible: settings.visible_gpus.clone(),
        replaceable: settings.gpu_optional,
        ..GpuSettings::new(parts, kernel)
    })
}

/// The name of the environment that asks for a GPU.
fn asks_by(settings: &Settings) -> &'static str {
    if settings.gpu_trees { Settings::TREES } else { Settings::COLUMNS }
}

/// Opens who is to compute. A GPU that was asked for and is not usable is an error, not a silent
/// run on the processor.
pub(crate) fn backend(
    settings: &Settings,
    kernel: Kernel,
    record: &CorruptionLog,
) -> Result<Arc<dyn Backend>, String> {
    backend_by(settings, kernel, record, |settings| match Gpu::open(settings) {
        Ok(gpu) => Ok(Arc::new(gpu)),
        Err(error) => Err(with_causes(&error)),
    })
}

fn backend_by(
    settings: &Settings,
    kernel: Kernel,
    record: &CorruptionLog,
    open: impl FnOnce(GpuSettings) -> Result<Arc<dyn Backend>, String>,
) -> Result<Arc<dyn Backend>, String> {
    // The processor counts the cpus that this process may use, so after it has been placed.
    let cpu = || Arc::new(Cpu::new(kernel));
    let Some(asked) = gpu_settings(settings, kernel, record) else { return Ok(cpu()) };
    let by = asks_by(settings);
    // One that computes wrongly is replaced by itself, so that it is named in the status.
    match open(asked) {
        Ok(gpu) => Ok(gpu),
        Err(error) if settings.gpu_optional => {
            tracing::warn!(
                "{by} is set, but no GPU is usable, and SEAL_GPU=optional lets the CPU do the \
                 work: {error}"
            );
            Ok(cpu())
        }
        Err(error) => Err(format!(
            "{by} is set, but no GPU is usable: {error}. Unset it, or set SEAL_GPU=optional to \
             work on the CPU"
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

    fn settings(set: &[(&str, &str)]) -> Settings {
        seal_options::judge(&[], &seal_options::Environment::of(set)).expect("understood")
    }

    #[test]
    fn caps_and_devices_are_passed_on() {
        let settings = settings(&[
            (Settings::TREES, "1"),
            ("FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE", "400000"),
            ("FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE", "700000"),
            ("CUDA_VISIBLE_DEVICES", "GPU-1234"),
        ]);
        let asked = gpu_settings(&settings, Kernel::portable(), &record()).expect("a GPU");
        assert_eq!((asked.most_columns, asked.most_leaves), (Some(400_000), Some(700_000)));
        assert_eq!(asked.visible.as_deref(), Some("GPU-1234"));
        assert!(!asked.replaceable);
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_not_silently_done_without() {
        let fails = |_| Err("the NVIDIA driver shows no device".to_owned());
        for flag in [Settings::TREES, Settings::COLUMNS] {
            let asked = settings(&[(flag, "1")]);
            let error = backend_by(&asked, Kernel::portable(), &record(), fails)
                .expect_err("none is usable");
            for part in [flag, "shows no device", "SEAL_GPU=optional"] {
                assert!(error.contains(part), "{error}");
            }
            let optional = settings(&[(flag, "1"), ("SEAL_GPU", "optional")]);
            let backend = backend_by(&optional, Kernel::portable(), &record(), fails)
                .expect("the processor does it");
            assert!(backend.describe().starts_with("cpu"), "{backend:?}");
        }
        let untouched = |_| panic!("nobody asked for a GPU");
        backend_by(&settings(&[]), Kernel::portable(), &record(), untouched)
            .expect("the processor does it");
    }

    #[test]
    fn the_names_of_instructions_are_those_of_the_kernels() {
        for kernel in Kernel::available() {
            assert_eq!(settings(&[("SEAL_FORCE_ISA", kernel.name())]).isa, Some(kernel.name()));
        }
        // One of another stage says nothing of this one; one of a better processor does.
        assert_eq!(settings(&[("SEAL_FORCE_ISA", "shani")]).isa, None);
        for name in ["fma", "ifma"] {
            assert_eq!(settings(&[("SEAL_FORCE_ISA", name)]).isa, Some(name));
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_kernels_says_so() {
        let asked = settings(&[(Settings::TREES, "1")]);
        let error = backend(&asked, Kernel::portable(), &record()).expect_err("no kernels");
        assert!(error.contains("--features cuda"), "{error}");
    }
}
