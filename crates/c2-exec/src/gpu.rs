//! Who computes proofs: the processor or a GPU, as the command line and the environment say.
//!
//! Published software built for GPUs uses one unless `BELLMAN_NO_GPU` is set. Here a GPU is used
//! when it is asked for, as for PC2, and then it is used or the start fails.

use clap::ValueEnum;
use seal_groth16::{Device, Groth16Error, Without, WrongBefore};
use seal_host::CpuSet;
use seal_runtime::{CorruptionLog, Environment};

use crate::params::causes;

/// Who computes proofs.
pub(crate) const DEVICE: &str = "SEAL_C2_DEVICE";
/// Not a GPU, says published software.
pub(crate) const NO_GPU: &str = "BELLMAN_NO_GPU";
/// The driver's own choice of devices.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// Whether the processor may take over.
pub(crate) const GPU: &str = "SEAL_GPU";

/// Whether this build can prove on a GPU.
pub(crate) const BUILT: bool = cfg!(feature = "cuda");

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU of those in `CUDA_VISIBLE_DEVICES`; needs a build with the feature
    /// cuda.
    Cuda,
}

/// A wish for a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What says so.
    by: String,
    visible: Option<String>,
    /// Whether the processor may do it where no GPU is usable.
    optional: bool,
}

impl Wish {
    /// The wish for a GPU, if there is one; or what cannot be understood.
    pub(crate) fn of(
        argument: Option<DeviceKind>,
        environment: &Environment,
    ) -> Result<Option<Self>, String> {
        let set = match environment.get(DEVICE).as_deref() {
            None => None,
            Some("cpu") => Some(DeviceKind::Cpu),
            Some("cuda") => Some(DeviceKind::Cuda),
            Some(other) => return Err(format!("{DEVICE}={other:?}: cpu and cuda are understood")),
        };
        let optional = match environment.get(GPU).as_deref() {
            None => false,
            Some("optional") => true,
            Some(other) => return Err(format!("{GPU}={other:?}: the only value is optional")),
        };
        let no_gpu = no_gpu(environment);
        let by = match (argument, set) {
            (Some(DeviceKind::Cuda), _) => "--device cuda".to_owned(),
            (None, Some(DeviceKind::Cuda)) => format!("{DEVICE}=cuda"),
            _ => return Ok(None),
        };
        if let Some(no) = no_gpu {
            return Err(format!(
                "{by} asks for a GPU and {NO_GPU}={no} for none; unset one of them"
            ));
        }
        Ok(Some(Self { by, visible: environment.get(VISIBLE), optional }))
    }
}

/// As published software reads it.
fn no_gpu(environment: &Environment) -> Option<String> {
    environment.get(NO_GPU).filter(|value| value != "0")
}

/// What is to be said where nothing asks for a GPU, and the environment gives one all the same:
/// published software built for GPUs would use it.
pub(crate) fn idle(argument: Option<DeviceKind>, environment: &Environment) -> Option<String> {
    let list = environment.get(VISIBLE).filter(|list| !list.trim().is_empty())?;
    let told = argument.is_some() || environment.get(DEVICE).is_some();
    let how = if BUILT { "" } else { ", in a build with `--features cuda`" };
    (!told && no_gpu(environment).is_none()).then(|| {
        format!(
            "{VISIBLE}={list} gives a GPU, and the CPU proves all the same: {DEVICE}=cuda asks for \
             the GPU{how}, {DEVICE}=cpu leaves it idle without this warning"
        )
    })
}

/// Opens who is to compute proofs, in a process that could use the cpus `at_start` when it began. A
/// GPU that was asked for and is not usable is an error, not a silent run on the processor.
pub(crate) fn device(
    wish: Option<&Wish>,
    at_start: &CpuSet,
    record: &CorruptionLog,
) -> Result<Device, String> {
    device_by(wish, |visible, without| {
        let before = record.wrong_devices().into_iter();
        let before = before.map(|(device, (wrong, told))| (device, WrongBefore { wrong, told }));
        Device::cuda(visible, at_start, without, &before.collect())
    })
}

fn device_by(
    wish: Option<&Wish>,
    open: impl FnOnce(Option<&str>, Without) -> Result<Device, Groth16Error>,
) -> Result<Device, String> {
    let Some(wish) = wish else { return Ok(Device::cpu()) };
    let Wish { by, visible, optional } = wish;
    let without = if *optional { Without::Processor } else { Without::Refuse };
    match open(visible.as_deref(), without) {
        Ok(device) => Ok(device),
        Err(error) if *optional => {
            tracing::warn!(
                "{by} asks for a GPU, and {GPU}=optional lets the CPU prove: {}",
                causes(&error)
            );
            Ok(Device::cpu())
        }
        Err(error) => Err(format!(
            "{by} asks for a GPU: {}. {DEVICE}=cpu proves on the CPU, {GPU}=optional does where \
             no GPU is usable",
            causes(&error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(feature = "cuda"))]
    use std::path::Path;

    fn wish(
        argument: Option<DeviceKind>,
        environment: &[(&str, &str)],
    ) -> Result<Option<Wish>, String> {
        Wish::of(argument, &Environment::of(environment))
    }

    #[test]
    fn a_gpu_is_used_when_it_is_asked_for() {
        let cpu = Some(DeviceKind::Cpu);
        let cuda = Some(DeviceKind::Cuda);
        for (argument, environment, by) in [
            (None, &[][..], None),
            (None, &[(DEVICE, "cpu")], None),
            (None, &[(DEVICE, "cuda")], Some("SEAL_C2_DEVICE=cuda")),
            (cuda, &[], Some("--device cuda")),
            (cuda, &[(DEVICE, "cpu")], Some("--device cuda")),
            (cpu, &[(DEVICE, "cuda")], None),
            (cuda, &[(NO_GPU, "0")], Some("--device cuda")),
            (None, &[(NO_GPU, "1")], None),
            (cpu, &[(NO_GPU, "1")], None),
            (None, &[(VISIBLE, "0")], None),
        ] {
            let wish = wish(argument, environment).expect("understood");
            let told = wish.as_ref().map(|wish| wish.by.as_str());
            assert_eq!(told, by, "{argument:?} {environment:?}");
        }
        let wish = wish(cuda, &[(VISIBLE, "GPU-1234"), (GPU, "optional")]).expect("understood");
        let wish = wish.expect("a GPU");
        assert_eq!((wish.visible.as_deref(), wish.optional), (Some("GPU-1234"), true));
    }

    #[test]
    fn a_gpu_that_is_given_and_not_asked_for_is_told() {
        let given = Environment::of(&[(VISIBLE, "1")]);
        let text = idle(None, &given).expect("idle");
        assert!(text.contains("CUDA_VISIBLE_DEVICES=1") && text.contains(DEVICE), "{text}");
        assert_eq!(idle(Some(DeviceKind::Cpu), &given), None);
        for quiet in [
            &[][..],
            &[(VISIBLE, "")],
            &[(VISIBLE, "1"), (DEVICE, "cpu")],
            &[(VISIBLE, "1"), (NO_GPU, "1")],
        ] {
            assert_eq!(idle(None, &Environment::of(quiet)), None, "{quiet:?}");
        }
    }

    #[test]
    fn what_is_not_understood_or_contradicts_itself_is_named() {
        for (environment, named) in [
            ([(DEVICE, "gpu"), ("X", "")], [DEVICE, "gpu"]),
            ([(DEVICE, ""), ("X", "")], [DEVICE, "cuda"]),
            ([(GPU, "never"), ("X", "")], [GPU, "never"]),
            ([(DEVICE, "cuda"), (NO_GPU, "1")], [DEVICE, "BELLMAN_NO_GPU=1"]),
            ([(DEVICE, "cuda"), (NO_GPU, "")], [DEVICE, NO_GPU]),
        ] {
            let error = wish(None, &environment).expect_err("not understood");
            assert!(named.iter().all(|named| error.contains(named)), "{error}");
        }
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_not_silently_done_without() {
        let fails = |_: Option<&str>, without| {
            let cpus = usize::from(without == Without::Refuse);
            Err(Groth16Error::TooFewCpus { cpus, least: 2 })
        };
        let asked = |environment: &[(&str, &str)]| {
            wish(None, environment).expect("understood").expect("a GPU")
        };
        let error = device_by(Some(&asked(&[(DEVICE, "cuda")])), fails).expect_err("not usable");
        for part in ["SEAL_C2_DEVICE=cuda", "started 1 thread", "SEAL_GPU=optional"] {
            assert!(error.contains(part), "{error}");
        }
        let optional = asked(&[(DEVICE, "cuda"), (GPU, "optional")]);
        let device = device_by(Some(&optional), fails).expect("the processor does it");
        assert_eq!(device.name(), None);
        let untouched = |_: Option<&str>, _| panic!("nobody asked for a GPU");
        assert_eq!(device_by(None, untouched).expect("the processor").name(), None);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_the_feature_says_so() {
        let asked = wish(Some(DeviceKind::Cuda), &[]).expect("understood");
        let cpus = "0-7".parse().expect("a list");
        let no_record = Path::new("/no/such/directory");
        let record = CorruptionLog::in_dir(seal_types::Stage::C2, no_record);
        let error = device(asked.as_ref(), &cpus, &record).expect_err("not built in");
        assert!(error.contains("--features cuda") && error.contains("--device cuda"), "{error}");
    }
}
