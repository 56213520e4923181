//! What can go wrong with a device.

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
    /// The driver lacks a function.
    #[error(
        "the NVIDIA driver {library} has no {symbol}; it is too old: one for CUDA 13 (580 or \
         newer) is needed"
    )]
    OldDriver {
        /// The driver's library.
        library: String,
        /// What it lacks.
        symbol: String,
        /// What the loader says.
        #[source]
        source: libloading::Error,
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
    /// The driver does not take the kernels.
    #[error(
        "the NVIDIA driver, for CUDA {}.{}, does not take the kernels ({image}); one for CUDA 13 \
         (580 or newer) is needed",
        driver / 1000,
        driver % 1000 / 10
    )]
    Load {
        /// The version of CUDA that the driver was made for, such as 12040.
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
    /// The feature `groth16` was off when this was built.
    #[error("this build cannot prove on a GPU; build c2-exec with `--features cuda`")]
    NoGroth16,
    /// The driver shows a device, and supraseal-c2 does not take it.
    #[error(
        "supraseal-c2 cannot use {device}: {said}; it needs compute capability 7.5 or newer, a \
         driver of at least the CUDA that this was built with, and a device that another process \
         does not hold for itself"
    )]
    Unusable {
        /// The device.
        device: Box<crate::DeviceInfo>,
        /// What supraseal-c2 says.
        said: String,
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

fn hint(visible: Option<&str>) -> String {
    match visible {
        None => "; `nvidia-smi -L` lists what there is".to_owned(),
        Some(visible) => format!(
            " with CUDA_VISIBLE_DEVICES={visible:?}; `nvidia-smi -L` lists indices and UUIDs"
        ),
    }
}

impl CudaError {
    /// `CUDA_ERROR_OUT_OF_MEMORY`.
    const OUT_OF_MEMORY: i32 = 2;

    /// Errors after which, as cuda.h says of most of them, the process must be terminated and
    /// launched again for CUDA to be used: 4 deinitialized, 46 device unavailable, 214 uncorrectable
    /// ECC error, 220 the same on NVLink, 700 illegal address, 702 launch timeout, 709 context
    /// destroyed, 710 assertion, 714 to 718 stack, instruction, alignment, address space and program
    /// counter, 719 launch failed, 721 contained fault, 999 unknown.
    const LOST: [i32; 16] =
        [4, 46, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999];

    /// Whether the device is lost to this process: whatever it is asked for from now on fails or is
    /// not to be trusted.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Call { code, .. } if Self::LOST.contains(code))
    }

    /// Whether memory of the device was exhausted.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Call { code: Self::OUT_OF_MEMORY, .. } | Self::Memory { .. })
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
