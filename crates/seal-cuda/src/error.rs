//! What can go wrong with a device.

use crate::codes::{compute_mode, result};

/// Why a device cannot be used, or what it failed in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The feature `cuda` was off when this was built.
    #[error("this build has no CUDA kernels; build it with `--features cuda`")]
    NoKernels,
    /// No driver is installed, or not where the loader looks.
    #[error(
        "the NVIDIA driver cannot be loaded from {library}; install it, or let the container see \
         it (`nvidia-smi` must work here)"
    )]
    NoDriver {
        /// The library that was looked for.
        library: String,
        /// What the loader says.
        #[source]
        source: libloading::Error,
    },
    /// The driver was made for an older CUDA than the kernels.
    #[error(
        "the NVIDIA driver {library} is for CUDA {}; one for CUDA 13 (580 or newer) is needed: \
         update the driver of this machine (in a container, of its host)",
        version_text(*version)
    )]
    OldDriver {
        /// The driver's library.
        library: String,
        /// The version of CUDA that it was made for, such as 12040.
        version: i32,
    },
    /// The library is no driver, or an incomplete one.
    #[error(
        "{library} has no function {symbol}, so it is not the NVIDIA driver, or a part of its \
         installation is damaged or of another version; install the driver again (580 or newer)"
    )]
    MissingFunction {
        /// The driver's library.
        library: String,
        /// What it lacks.
        symbol: String,
        /// What the loader says.
        #[source]
        source: libloading::Error,
    },
    /// The driver does not begin to work.
    #[error(
        "the NVIDIA driver {library}, for CUDA {}, does not start: {}",
        version_text(*version),
        init_remedy(source)
    )]
    Init {
        /// The driver's library.
        library: String,
        /// The version of CUDA that it was made for, such as 13000.
        version: i32,
        /// What it says.
        #[source]
        source: Box<CudaError>,
    },
    /// The driver shows no device.
    #[error("the NVIDIA driver shows no device{}", hint(visible.as_deref()))]
    NoDevice {
        /// `CUDA_VISIBLE_DEVICES`, if it is set.
        visible: Option<String>,
    },
    /// A call to the driver failed.
    #[error("{call} failed with {name} ({code}): {text}")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// What it returned.
        code: i32,
        /// The name of that.
        name: String,
        /// What it means.
        text: String,
    },
    /// The driver does not let this process have the device.
    #[error("{device} cannot be opened: {}", open_remedy(*compute_mode, source))]
    Open {
        /// The device, by model and UUID.
        device: String,
        /// Its compute mode, by the number in cuda.h.
        compute_mode: i32,
        /// What the driver says.
        #[source]
        source: Box<CudaError>,
    },
    /// None of the kernels' images is for the device.
    #[error(
        "{device} has compute capability {}.{}, and the kernels in this build are for {}; use \
         another card, or build for this one (SEAL_CUDA_ARCHITECTURES)",
        compute.0,
        compute.1,
        images(*oldest)
    )]
    NoImage {
        /// The device, by model and UUID.
        device: String,
        /// Its major and minor number.
        compute: (i32, i32),
        /// The oldest architecture that this build has kernels for, such as 75.
        oldest: Option<u32>,
    },
    /// The driver does not take the kernels.
    #[error(
        "the NVIDIA driver, for CUDA {}, does not take the kernels for {device} ({image}): {}",
        version_text(*driver),
        load_remedy(source)
    )]
    Load {
        /// The device, by model and UUID.
        device: String,
        /// The version of CUDA that the driver was made for, such as 13000.
        driver: i32,
        /// Which image of the kernels the device needs.
        image: crate::Image,
        /// What the driver says.
        #[source]
        source: Box<CudaError>,
    },
    /// The device has not even memory for the smallest batch.
    #[error(
        "the device has no room for a batch of {nodes} nodes ({bytes} bytes, {free} bytes are \
         free); another process may hold its memory"
    )]
    Memory {
        /// Nodes of the smallest batch.
        nodes: usize,
        /// Bytes that it takes.
        bytes: usize,
        /// Bytes that are free.
        free: usize,
    },
    /// The embedded kernels are not those that this code was written for.
    #[error("the kernels' {name} has {found} bytes where {wanted} are written")]
    Constants {
        /// A table of constants.
        name: &'static str,
        /// Its size in the kernels.
        found: usize,
        /// Its size here.
        wanted: usize,
    },
    /// The device computed something else than the processor.
    #[error("the device computes {what} wrongly")]
    Wrong {
        /// What was compared.
        what: String,
    },
    /// The device failed in its trial.
    #[error("{device} failed when it was tried; {}", open_remedy(0, source))]
    Trial {
        /// The device, by model and UUID.
        device: String,
        /// What the driver says.
        #[source]
        source: Box<CudaError>,
    },
    /// The device did not pass its trial.
    #[error(
        "{device} computes wrongly: {what}; have it tested or replaced, and use another one until \
         then (CUDA_VISIBLE_DEVICES)"
    )]
    Distrusted {
        /// The device, by model and UUID.
        device: String,
        /// What it computed wrongly.
        what: String,
    },
    /// The feature `groth16` was off when this was built.
    #[error("this build cannot prove on a GPU; build c2-exec with `--features cuda`")]
    NoGroth16,
    /// The driver shows a device, and supraseal-c2 does not take it.
    #[error(
        "supraseal-c2 cannot use {}: {said}; it needs a driver of at least the CUDA that this was \
         built with, 13 as a rule (this one is for CUDA {}), and a device that another process does \
         not hold for itself",
        device.model(),
        version_text(device.driver)
    )]
    Unusable {
        /// The device.
        device: Box<crate::DeviceInfo>,
        /// What supraseal-c2 says.
        said: String,
    },
    /// supraseal-c2 has no code for a device, or leaves it out.
    #[error("supraseal-c2 cannot use {device}: {why}")]
    NotTaken {
        /// The device, by model and UUID.
        device: String,
        /// What it lacks.
        why: String,
    },
    /// Less memory of the device is free than a proof takes.
    #[error(
        "a proof takes {} of the device's memory, and {} are free; another process may hold the \
         rest (`nvidia-smi` lists them; a lock for each GPU keeps executors of one machine apart)",
        gib(*needed),
        gib(*free)
    )]
    TooLittle {
        /// What a proof takes, in bytes.
        needed: u64,
        /// What is free, in bytes.
        free: u64,
    },
    /// The device never has as much memory as a proof takes.
    #[error(
        "a proof takes {} of the device's memory, and it has {} in all; use a larger GPU, or prove \
         on the CPU",
        gib(*needed),
        gib(*memory)
    )]
    TooSmall {
        /// What a proof takes, in bytes.
        needed: u64,
        /// What there is, in bytes.
        memory: u64,
    },
    /// supraseal-c2 failed.
    #[error("supraseal-c2 could not {what}: {said}")]
    Groth16 {
        /// What it was to do.
        what: &'static str,
        /// What it says.
        said: String,
    },
    /// What supraseal-c2 would be given does not fit together; it would end the process.
    #[error("supraseal-c2 would get {found} {what} where {wanted} belong")]
    Lengths {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// There is no kernel for this.
    #[error("there is no kernel for {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
}

/// As people compare them; rounded down, so that what is short reads short.
fn gib(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100) >> 30;
    format!("{}.{:02} GiB", hundredths / 100, hundredths % 100)
}

fn hint(visible: Option<&str>) -> String {
    match visible {
        None => "; `nvidia-smi -L` must list it, and a container must be given it".to_owned(),
        Some(visible) => format!(
            " with CUDA_VISIBLE_DEVICES={visible:?}, which hides all devices or begins with one \
             that is not there; `nvidia-smi -L` lists indices and UUIDs"
        ),
    }
}

/// A version of CUDA for people.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn images(oldest: Option<u32>) -> String {
    match oldest {
        Some(oldest) => format!("{}.{} and newer", oldest / 10, oldest % 10),
        None => "no architecture at all".to_owned(),
    }
}

/// Why the driver does not start, and what to do.
fn init_remedy(source: &CudaError) -> &'static str {
    match source.code() {
        Some(result::SYSTEM_DRIVER_MISMATCH) => {
            "its library and the kernel's module are of different versions; restart the machine \
             after an update of the driver (in a container, give it the library of the host)"
        }
        Some(result::COMPAT_NOT_SUPPORTED_ON_DEVICE) => {
            "a package for forward compatibility (cuda-compat) is found before the driver, and \
             does not support this card; remove it from the library path"
        }
        Some(result::SYSTEM_NOT_READY) => {
            "the machine is not ready; on machines with NVSwitch nvidia-fabricmanager must run"
        }
        _ => "`nvidia-smi` must work here; the kernel's log (`dmesg`) has what the card reports",
    }
}

/// Why the device cannot be opened, and what to do.
fn open_remedy(mode: i32, source: &CudaError) -> &'static str {
    match (source.code(), mode) {
        (Some(result::DEVICE_UNAVAILABLE), compute_mode::EXCLUSIVE_PROCESS) => {
            "another process holds it, and its compute mode is exclusive; end that process \
             (`nvidia-smi` lists it), or let several in (`nvidia-smi -c DEFAULT`)"
        }
        (_, compute_mode::PROHIBITED) => {
            "its compute mode is prohibited; allow it (`nvidia-smi -c DEFAULT`)"
        }
        (Some(result::OUT_OF_MEMORY), _) => {
            "other processes hold its memory (`nvidia-smi` lists them)"
        }
        (Some(code), _) if result::LOST.contains(&code) => {
            "it does not answer; `nvidia-smi` must list it, the kernel's log (`dmesg`) says why \
             (Xid); reset it (`nvidia-smi --gpu-reset`) or restart the machine"
        }
        _ => "`nvidia-smi` must list it; the kernel's log (`dmesg`) has what the card reports",
    }
}

/// Why the driver does not take the kernels, and what to do.
fn load_remedy(source: &CudaError) -> &'static str {
    match source.code() {
        Some(result::UNSUPPORTED_PTX_VERSION) => {
            "they are of a newer CUDA than the driver; update the driver"
        }
        Some(result::JIT_COMPILER_NOT_FOUND) => {
            "it has no machine code for this card, and the driver's compiler \
             (libnvidia-ptxjitcompiler) is not there; install it, or let the container see it"
        }
        Some(result::JIT_COMPILATION_DISABLED) => {
            "it has no machine code for this card, and compiling is switched off; unset \
             CUDA_DISABLE_PTX_JIT"
        }
        _ => "build it anew with nvcc of CUDA 13, and for this card",
    }
}

impl CudaError {
    /// What the driver returned, if it is that.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Call { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the device is lost to this process: whatever it is asked for from now on fails or is
    /// not to be trusted.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Trial { source, .. } => source.is_loss(),
            _ => self.code().is_some_and(|code| result::LOST.contains(&code)),
        }
    }

    /// Whether memory of the device was exhausted.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(
            self,
            Self::Call { code: result::OUT_OF_MEMORY, .. }
                | Self::Memory { .. }
                | Self::TooLittle { .. }
                | Self::TooSmall { .. }
        )
    }
}

/// Why a batch was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// A label is not below the field's modulus.
    #[error("node {node} of layer {layer} is not below the field's modulus")]
    Label {
        /// Counted from 0.
        layer: usize,
        /// Counted from the first node of the batch.
        node: usize,
    },
    /// A node of the data is not below the field's modulus.
    #[error("node {node} of the data is not below the field's modulus")]
    Data {
        /// Counted from the first node of the batch.
        node: usize,
    },
    /// A node that was to be hashed with others is not below the field's modulus.
    #[error("child {node} of a row is not below the field's modulus")]
    Child {
        /// Counted from the first node of the row.
        node: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] CudaError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: i32) -> Box<CudaError> {
        let (name, text) = (String::new(), String::new());
        Box::new(CudaError::Call { call: "cuFunction", code, name, text })
    }

    #[test]
    fn each_refusal_names_the_card_and_its_own_remedy() {
        let open = |compute_mode, code| {
            let device = "A100 (GPU-7)".to_owned();
            CudaError::Open { device, compute_mode, source: call(code) }.to_string()
        };
        let load = |code| {
            let (device, image) = ("A100 (GPU-7)".to_owned(), crate::Image::Ptx(75));
            CudaError::Load { device, driver: 13000, image, source: call(code) }.to_string()
        };
        let init = |code| {
            let library = "libcuda.so.1".to_owned();
            CudaError::Init { library, version: 13000, source: call(code) }.to_string()
        };
        for (text, part) in [
            (open(compute_mode::EXCLUSIVE_PROCESS, result::DEVICE_UNAVAILABLE), "another process"),
            (open(compute_mode::PROHIBITED, result::DEVICE_UNAVAILABLE), "prohibited"),
            (open(0, result::DEVICE_UNAVAILABLE), "does not answer"),
            (open(0, result::OUT_OF_MEMORY), "hold its memory"),
            (open(0, result::UNKNOWN), "Xid"),
            (load(result::UNSUPPORTED_PTX_VERSION), "update the driver"),
            (load(result::JIT_COMPILER_NOT_FOUND), "libnvidia-ptxjitcompiler"),
            (load(result::JIT_COMPILATION_DISABLED), "CUDA_DISABLE_PTX_JIT"),
            (load(200), "build it anew"),
        ] {
            assert!(text.contains("A100 (GPU-7)") && text.contains(part), "{part}: {text}");
            assert!(!text.contains("580"), "the driver is not to blame: {text}");
        }
        for (code, part) in [
            (result::SYSTEM_DRIVER_MISMATCH, "different versions"),
            (result::COMPAT_NOT_SUPPORTED_ON_DEVICE, "cuda-compat"),
            (result::SYSTEM_NOT_READY, "fabricmanager"),
            (result::UNKNOWN, "nvidia-smi"),
        ] {
            let text = init(code);
            assert!(text.contains("libcuda.so.1, for CUDA 13.0") && text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_device_that_is_taken_away_is_lost_also_when_it_is_opened() {
        for (code, loss) in [(result::ECC_UNCORRECTABLE, true), (result::OUT_OF_MEMORY, false)] {
            let device = "A100 (GPU-7)".to_owned();
            let error = CudaError::Open { device, compute_mode: 0, source: call(code) };
            assert_eq!((error.is_loss(), call(code).is_loss()), (loss, loss), "{code}");
        }
    }
}
