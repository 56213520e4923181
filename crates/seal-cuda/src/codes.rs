//! Numbers of `cuda.h` by their names: error codes, attributes and flags. A test holds them against
//! the published bindings.

/// `CUresult`, what the driver's functions return.
pub(crate) mod result {
    pub(crate) const OUT_OF_MEMORY: i32 = 2;
    pub(crate) const DEINITIALIZED: i32 = 4;
    pub(crate) const DEVICE_UNAVAILABLE: i32 = 46;
    pub(crate) const NO_DEVICE: i32 = 100;
    pub(crate) const NO_BINARY_FOR_GPU: i32 = 209;
    pub(crate) const ECC_UNCORRECTABLE: i32 = 214;
    pub(crate) const NVLINK_UNCORRECTABLE: i32 = 220;
    pub(crate) const JIT_COMPILER_NOT_FOUND: i32 = 221;
    pub(crate) const UNSUPPORTED_PTX_VERSION: i32 = 222;
    pub(crate) const JIT_COMPILATION_DISABLED: i32 = 223;
    pub(crate) const CONTAINED: i32 = 226;
    pub(crate) const ILLEGAL_ADDRESS: i32 = 700;
    pub(crate) const LAUNCH_TIMEOUT: i32 = 702;
    pub(crate) const CONTEXT_IS_DESTROYED: i32 = 709;
    pub(crate) const ASSERT: i32 = 710;
    pub(crate) const HARDWARE_STACK_ERROR: i32 = 714;
    pub(crate) const ILLEGAL_INSTRUCTION: i32 = 715;
    pub(crate) const MISALIGNED_ADDRESS: i32 = 716;
    pub(crate) const INVALID_ADDRESS_SPACE: i32 = 717;
    pub(crate) const INVALID_PC: i32 = 718;
    pub(crate) const LAUNCH_FAILED: i32 = 719;
    pub(crate) const TENSOR_MEMORY_LEAK: i32 = 721;
    pub(crate) const SYSTEM_NOT_READY: i32 = 802;
    pub(crate) const SYSTEM_DRIVER_MISMATCH: i32 = 803;
    pub(crate) const COMPAT_NOT_SUPPORTED_ON_DEVICE: i32 = 804;
    pub(crate) const MPS_CLIENT_TERMINATED: i32 = 810;
    pub(crate) const EXTERNAL_DEVICE: i32 = 911;
    pub(crate) const UNKNOWN: i32 = 999;

    /// After these the process must be terminated and launched again for CUDA to be used, as cuda.h
    /// says of most of them; of the others, that the device or the driver's service is gone.
    pub(crate) const LOST: [i32; 19] = [
        DEINITIALIZED,
        DEVICE_UNAVAILABLE,
        ECC_UNCORRECTABLE,
        NVLINK_UNCORRECTABLE,
        CONTAINED,
        ILLEGAL_ADDRESS,
        LAUNCH_TIMEOUT,
        CONTEXT_IS_DESTROYED,
        ASSERT,
        HARDWARE_STACK_ERROR,
        ILLEGAL_INSTRUCTION,
        MISALIGNED_ADDRESS,
        INVALID_ADDRESS_SPACE,
        INVALID_PC,
        LAUNCH_FAILED,
        TENSOR_MEMORY_LEAK,
        MPS_CLIENT_TERMINATED,
        EXTERNAL_DEVICE,
        UNKNOWN,
    ];
}

/// `CUdevice_attribute`.
pub(crate) mod attribute {
    pub(crate) const MULTIPROCESSOR_COUNT: i32 = 16;
    pub(crate) const COMPUTE_MODE: i32 = 20;
    pub(crate) const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub(crate) const COMPUTE_CAPABILITY_MINOR: i32 = 76;
    pub(crate) const COOPERATIVE_LAUNCH: i32 = 95;
}

/// `CUcomputemode`, who may open a device.
pub(crate) mod compute_mode {
    pub(crate) const PROHIBITED: i32 = 2;
    pub(crate) const EXCLUSIVE_PROCESS: i32 = 3;
}

/// `CU_CTX_SCHED_BLOCKING_SYNC`: threads that wait for the device sleep.
pub(crate) const CTX_SCHED_BLOCKING_SYNC: u32 = 4;

/// `CU_STREAM_NON_BLOCKING`: the stream does not wait for the default one.
pub(crate) const STREAM_NON_BLOCKING: u32 = 1;

/// `CU_MEMHOSTALLOC_PORTABLE`: contexts other than the one that takes the memory may use it too.
pub(crate) const MEMHOSTALLOC_PORTABLE: u32 = 1;

#[cfg(test)]
mod tests {
    use cudarc::driver::sys;

    use super::*;

    macro_rules! results {
        ($($name:ident = $theirs:ident),* $(,)?) => {
            [$((result::$name, sys::CUresult::$theirs as i32, stringify!($name))),*]
        };
    }

    #[test]
    fn numbers_are_those_of_the_published_bindings() {
        let results = results! {
            OUT_OF_MEMORY = CUDA_ERROR_OUT_OF_MEMORY,
            DEINITIALIZED = CUDA_ERROR_DEINITIALIZED,
            DEVICE_UNAVAILABLE = CUDA_ERROR_DEVICE_UNAVAILABLE,
            NO_DEVICE = CUDA_ERROR_NO_DEVICE,
            NO_BINARY_FOR_GPU = CUDA_ERROR_NO_BINARY_FOR_GPU,
            ECC_UNCORRECTABLE = CUDA_ERROR_ECC_UNCORRECTABLE,
            NVLINK_UNCORRECTABLE = CUDA_ERROR_NVLINK_UNCORRECTABLE,
            JIT_COMPILER_NOT_FOUND = CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
            UNSUPPORTED_PTX_VERSION = CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
            JIT_COMPILATION_DISABLED = CUDA_ERROR_JIT_COMPILATION_DISABLED,
            CONTAINED = CUDA_ERROR_CONTAINED,
            ILLEGAL_ADDRESS = CUDA_ERROR_ILLEGAL_ADDRESS,
            LAUNCH_TIMEOUT = CUDA_ERROR_LAUNCH_TIMEOUT,
            CONTEXT_IS_DESTROYED = CUDA_ERROR_CONTEXT_IS_DESTROYED,
            ASSERT = CUDA_ERROR_ASSERT,
            HARDWARE_STACK_ERROR = CUDA_ERROR_HARDWARE_STACK_ERROR,
            ILLEGAL_INSTRUCTION = CUDA_ERROR_ILLEGAL_INSTRUCTION,
            MISALIGNED_ADDRESS = CUDA_ERROR_MISALIGNED_ADDRESS,
            INVALID_ADDRESS_SPACE = CUDA_ERROR_INVALID_ADDRESS_SPACE,
            INVALID_PC = CUDA_ERROR_INVALID_PC,
            LAUNCH_FAILED = CUDA_ERROR_LAUNCH_FAILED,
            TENSOR_MEMORY_LEAK = CUDA_ERROR_TENSOR_MEMORY_LEAK,
            SYSTEM_NOT_READY = CUDA_ERROR_SYSTEM_NOT_READY,
            SYSTEM_DRIVER_MISMATCH = CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
            COMPAT_NOT_SUPPORTED_ON_DEVICE = CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
            MPS_CLIENT_TERMINATED = CUDA_ERROR_MPS_CLIENT_TERMINATED,
            EXTERNAL_DEVICE = CUDA_ERROR_EXTERNAL_DEVICE,
            UNKNOWN = CUDA_ERROR_UNKNOWN,
        };
        for (ours, theirs, name) in results {
            assert_eq!(ours, theirs, "{name}");
        }
        use sys::CUdevice_attribute as theirs;
        for (ours, theirs) in [
            (
                attribute::MULTIPROCESSOR_COUNT,
                theirs::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as i32,
            ),
            (attribute::COMPUTE_MODE, theirs::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE as i32),
            (
                attribute::COMPUTE_CAPABILITY_MAJOR,
                theirs::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as i32,
            ),
            (
                attribute::COMPUTE_CAPABILITY_MINOR,
                theirs::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as i32,
            ),
            (attribute::COOPERATIVE_LAUNCH, theirs::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH as i32),
            (compute_mode::PROHIBITED, sys::CUcomputemode::CU_COMPUTEMODE_PROHIBITED as i32),
            (
                compute_mode::EXCLUSIVE_PROCESS,
                sys::CUcomputemode::CU_COMPUTEMODE_EXCLUSIVE_PROCESS as i32,
            ),
        ] {
            assert_eq!(ours, theirs);
        }
        let sched = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
        assert_eq!(CTX_SCHED_BLOCKING_SYNC, sched);
        let stream = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        assert_eq!(STREAM_NON_BLOCKING, stream);
        assert_eq!(MEMHOSTALLOC_PORTABLE, sys::CU_MEMHOSTALLOC_PORTABLE);
    }

    /// cuda.h says so in the comment of the code itself.
    #[test]
    fn every_code_of_a_dead_context_is_a_loss_and_others_are_not() {
        for code in result::LOST {
            assert_eq!(result::LOST.iter().filter(|other| **other == code).count(), 1, "{code}");
        }
        for passing in [result::OUT_OF_MEMORY, result::NO_DEVICE, result::NO_BINARY_FOR_GPU] {
            assert!(!result::LOST.contains(&passing), "{passing}");
        }
    }
}
