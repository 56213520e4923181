//! Who computes proofs: the processor or a GPU, as the settings say.
//!
//! Published software built for GPUs uses one unless `BELLMAN_NO_GPU` is set. Here a GPU is used
//! when it is asked for, as for PC2, and then it is used or the start fails.

use seal_groth16::{Device, Groth16Error, Without, WrongBefore};
use seal_host::CpuSet;
use seal_options::{C2 as Settings, C2Device, Source};
use seal_runtime::CorruptionLog;

use crate::params::causes;

/// Whether this build can prove on a GPU.
pub(crate) const BUILT: bool = cfg!(feature = "cuda");

/// What asks for a GPU, if anything does.
fn asks_by(settings: &Settings) -> Option<String> {
    (settings.device == Some(C2Device::Cuda)).then(|| match &settings.device_by {
        Some(Source::Variable(name)) => format!("{name}=cuda"),
        _ => "--device cuda".to_owned(),
    })
}

/// What is to be said where nothing asks for a GPU, and the environment gives one all the same:
/// published software built for GPUs would use it.
pub(crate) fn idle(settings: &Settings) -> Option<String> {
    let list = settings.visible_gpus.as_ref().filter(|list| !list.trim().is_empty())?;
    let how = if BUILT { "" } else { ", in a build with `--features cuda`" };
    (settings.device.is_none() && !settings.no_gpu).then(|| {
        format!(
            "CUDA_VISIBLE_DEVICES={list} gives a GPU, and the CPU proves all the same: \
             SEAL_C2_DEVICE=cuda asks for the GPU{how}, SEAL_C2_DEVICE=cpu leaves it idle without \
             this warning"
        )
    })
}

/// Opens who is to compute proofs, in a process that could use the cpus `at_start` when it began. A
/// GPU that was asked for and is not usable is an error, not a silent run on the processor.
pub(crate) fn device(
    settings: &Settings,
    at_start: &CpuSet,
    record: &CorruptionLog,
) -> Result<Device, String> {
    device_by(settings, |visible, without| {
        let before = record.wrong_devices().into_iter();
        let before = before.map(|(device, (wrong, told))| (device, WrongBefore { wrong, told }));
        Device::cuda(visible, at_start, without, &before.collect())
    })
}

fn device_by(
    settings: &Settings,
    open: impl FnOnce(Option<&str>, Without) -> Result<Device, Groth16Error>,
) -> Result<Device, String> {
    let Some(by) = asks_by(settings) else { return Ok(Device::cpu()) };
    let optional = settings.gpu_optional;
    let without = if optional { Without::Processor } else { Without::Refuse };
    match open(settings.visible_gpus.as_deref(), without) {
        Ok(device) => Ok(device),
        Err(error) if optional => {
            tracing::warn!(
                "{by} asks for a GPU, and SEAL_GPU=optional lets the CPU prove: {}",
                causes(&error)
            );
            Ok(Device::cpu())
        }
        Err(error) => Err(format!(
            "{by} asks for a GPU: {}. SEAL_C2_DEVICE=cpu proves on the CPU, SEAL_GPU=optional does \
             where no GPU is usable",
            causes(&error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(feature = "cuda"))]
    use std::path::Path;

    fn settings(line: &str, set: &[(&str, &str)]) -> Settings {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let environment = seal_options::Environment::of(set);
        seal_options::judge(&arguments, &environment).expect("understood")
    }

    const DEVICE: &str = "SEAL_C2_DEVICE";
    const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
    const NO_GPU: &str = "BELLMAN_NO_GPU";

    #[test]
    fn a_gpu_is_used_when_it_is_asked_for() {
        let (cpu, cuda) = ("--device cpu", "--device cuda");
        for (line, environment, by) in [
            ("", &[][..], None),
            ("", &[(DEVICE, "cpu")], None),
            ("", &[(DEVICE, "cuda")], Some("SEAL_C2_DEVICE=cuda")),
            (cuda, &[], Some("--device cuda")),
            (cuda, &[(DEVICE, "cpu")], Some("--device cuda")),
            (cpu, &[(DEVICE, "cuda")], None),
            (cuda, &[(NO_GPU, "0")], Some("--device cuda")),
            ("", &[(NO_GPU, "1")], None),
            (cpu, &[(NO_GPU, "1")], None),
            ("", &[(VISIBLE, "0")], None),
        ] {
            let asked = asks_by(&settings(line, environment));
            assert_eq!(asked.as_deref(), by, "{line} {environment:?}");
        }
    }

    #[test]
    fn a_gpu_that_is_given_and_not_asked_for_is_told() {
        let given = [(VISIBLE, "1")];
        let text = idle(&settings("", &given)).expect("idle");
        assert!(text.contains("CUDA_VISIBLE_DEVICES=1") && text.contains(DEVICE), "{text}");
        assert_eq!(idle(&settings("--device cpu", &given)), None);
        for quiet in [
            &[][..],
            &[(VISIBLE, "")],
            &[(VISIBLE, "1"), (DEVICE, "cpu")],
            &[(VISIBLE, "1"), (NO_GPU, "1")],
        ] {
            assert_eq!(idle(&settings("", quiet)), None, "{quiet:?}");
        }
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_not_silently_done_without() {
        let fails = |_: Option<&str>, without| {
            let cpus = usize::from(without == Without::Refuse);
            Err(Groth16Error::TooFewCpus { cpus, least: 2 })
        };
        let error = device_by(&settings("", &[(DEVICE, "cuda")]), fails).expect_err("not usable");
        for part in ["SEAL_C2_DEVICE=cuda", "started 1 thread", "SEAL_GPU=optional"] {
            assert!(error.contains(part), "{error}");
        }
        let optional = settings("", &[(DEVICE, "cuda"), ("SEAL_GPU", "optional")]);
        let device = device_by(&optional, fails).expect("the processor does it");
        assert_eq!(device.name(), None);
        let untouched = |_: Option<&str>, _| panic!("nobody asked for a GPU");
        assert_eq!(device_by(&settings("", &[]), untouched).expect("the processor").name(), None);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_the_feature_says_so() {
        let asked = settings("--device cuda", &[]);
        let cpus = "0-7".parse().expect("a list");
        let no_record = Path::new("/no/such/directory");
        let record = CorruptionLog::in_dir(seal_types::Stage::C2, no_record);
        let error = device(&asked, &cpus, &record).expect_err("not built in");
        assert!(error.contains("--features cuda") && error.contains("--device cuda"), "{error}");
    }
}
