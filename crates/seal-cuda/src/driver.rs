//! The driver's library, found when it is needed.
//!
//! The declarations are our own and not those of `cudarc`, the published bindings. Those look a
//! function up when it is first called, in a library that is one for the whole process, and panic
//! where either is missing. Here all functions are looked up together, so that what is missing is
//! an error with a name at start and not a panic in the middle of a sector, and the library is a
//! value, so that tests bring their own. A test holds every declaration against those of `cudarc`.
//!
//! Handles of the driver are opaque numbers of the size of a pointer, and are declared so.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::Library;

use crate::CudaError;
use crate::codes::result;

/// A context, module, function, stream or event.
pub(crate) type Handle = usize;
/// An address in the memory of a device.
pub(crate) type Address = u64;

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ty),*);)*) => {
        /// The driver's functions. Names and types as in `cuda.h` of CUDA 13; the names of those
        /// with several versions say which.
        #[allow(non_snake_case)]
        pub(crate) struct Functions {
            $($(#[$doc])* pub(crate) $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            fn find(library: &Library, path: &str) -> Result<Self, CudaError> {
                Ok(Self { $($name: find(library, path, stringify!($name))?,)* })
            }
        }

        /// Every declaration beside that of the published bindings. It compiles only if each
        /// function has as many arguments, and each argument is of a type that is the same to the
        /// driver.
        #[cfg(test)]
        #[test]
        fn declarations_are_those_of_the_published_bindings() {
            let mut held = Vec::new();
            $({
                let name = stringify!($name);
                let theirs = cudarc::driver::sys::$name as unsafe fn($(any!($argument)),*) -> _;
                type Ours = unsafe extern "C" fn($($argument),*) -> c_int;
                published::hold::<Ours, _>(name, theirs);
                held.push(name);
            })*
            assert!(held.contains(&"cuLaunchKernel") && held.len() > 25, "{held:?}");
        }
    };
}

/// A type that the compiler is to find out.
#[cfg(test)]
macro_rules! any {
    ($argument:ty) => {
        _
    };
}

functions! {
    cuInit(c_uint);
    cuGetErrorName(c_int, *mut *const c_char);
    cuGetErrorString(c_int, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut c_int, c_int);
    cuDeviceGetName(*mut c_char, c_int, c_int);
    cuDeviceGetUuid_v2(*mut [u8; 16], c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, c_int);
    cuDeviceTotalMem_v2(*mut usize, c_int);
    cuDevicePrimaryCtxSetFlags_v2(c_int, c_uint);
    cuDevicePrimaryCtxRetain(*mut Handle, c_int);
    cuDevicePrimaryCtxRelease_v2(c_int);
    cuCtxSetCurrent(Handle);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuModuleLoadData(*mut Handle, *const c_void);
    cuModuleUnload(Handle);
    cuModuleGetFunction(*mut Handle, Handle, *const c_char);
    cuModuleGetGlobal_v2(*mut Address, *mut usize, Handle, *const c_char);
    cuMemAlloc_v2(*mut Address, usize);
    cuMemFree_v2(Address);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemcpyHtoDAsync_v2(Address, *const c_void, usize, Handle);
    cuMemcpyDtoHAsync_v2(*mut c_void, Address, usize, Handle);
    cuStreamCreate(*mut Handle, c_uint);
    cuStreamSynchronize(Handle);
    cuStreamDestroy_v2(Handle);
    cuLaunchKernel(
        Handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Handle,
        *mut *mut c_void,
        *mut *mut c_void
    );
}

/// The function `name`, whose type is the caller's word.
fn find<F: Copy>(library: &Library, path: &str, name: &str) -> Result<F, CudaError> {
    // SAFETY: `get` needs the type to be the symbol's. All callers are in `functions!` above,
    // whose types are those of cuda.h; the symbol is copied and used while `Driver` holds the
    // library.
    let found = unsafe { library.get::<F>(name) };
    found.map(|symbol| *symbol).map_err(|source| CudaError::MissingFunction {
        library: path.to_owned(),
        symbol: name.to_owned(),
        source,
    })
}

/// The version of CUDA that a driver must be made for: that of the kernels' compiler.
const OLDEST_VERSION: i32 = 13_000;

type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;

/// The version of CUDA that a driver was made for. It need not be initialised.
fn version(library: &Library, path: &str) -> Result<i32, CudaError> {
    let get_version: GetVersion = find(library, path, "cuDriverGetVersion")?;
    let mut version = 0;
    // SAFETY: writes a number to the place that is given, which lives until the call is over.
    let code = unsafe { get_version(&mut version) };
    // It fails for a null pointer only.
    if code == 0 { Ok(version) } else { Ok(0) }
}

/// A loaded and initialised driver.
pub(crate) struct Driver {
    pub(crate) functions: Functions,
    /// The version of CUDA that it was made for, such as 13000.
    pub(crate) version: i32,
    /// Keeps the functions where they are. Never unloaded: a driver has threads of its own, which
    /// would be left without code.
    _library: ManuallyDrop<Library>,
}

impl Driver {
    /// The name under which every driver installs itself on Linux.
    const LIBRARY: &str = "libcuda.so.1";

    /// Loads the driver, or what stands in for it at `path`.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, CudaError> {
        let library = path.unwrap_or_else(|| Path::new(Self::LIBRARY));
        let name = library.display().to_string();
        // SAFETY: loading runs the library's initialisers. It is the system's driver, or a file
        // that the caller names; what else could be said of it is the system's to keep.
        let loaded = unsafe { Library::new(library) };
        let library =
            loaded.map_err(|source| CudaError::NoDriver { library: name.clone(), source })?;
        // First of all: an old driver may lack functions, or say that there is no device.
        let version = version(&library, &name)?;
        if version < OLDEST_VERSION {
            return Err(CudaError::OldDriver { library: name, version });
        }
        let functions = Functions::find(&library, &name)?;
        let driver = Self { functions, version, _library: ManuallyDrop::new(library) };
        // SAFETY: takes a number of flags, of which there are none.
        let code = unsafe { (driver.functions.cuInit)(0) };
        driver.check("cuInit", code).map_err(|error| match error {
            CudaError::Call { code: result::NO_DEVICE, .. } => error,
            error => CudaError::Init { library: name, version, source: Box::new(error) },
        })?;
        Ok(driver)
    }

    /// An error for every code but 0.
    pub(crate) fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let name = self.text(self.functions.cuGetErrorName, code);
        let text = self.text(self.functions.cuGetErrorString, code);
        Err(CudaError::Call {
            call,
            code,
            name: name.unwrap_or_else(|| "an unknown error".to_owned()),
            text: text.unwrap_or_else(|| "the driver has no text for it".to_owned()),
        })
    }

    fn text(
        &self,
        function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
        code: c_int,
    ) -> Option<String> {
        let mut text = std::ptr::null();
        // SAFETY: both functions that are passed here write a pointer to the place that is given.
        let result = unsafe { function(code, &mut text) };
        if result != 0 || text.is_null() {
            return None;
        }
        // SAFETY: not null, and then a text that ends with 0 and lives as long as the driver.
        let text = unsafe { CStr::from_ptr(text) };
        Some(text.to_string_lossy().into_owned())
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

/// Which of our types are, to the driver, which of the published ones.
#[cfg(test)]
mod published {
    use std::any::type_name;

    use cudarc::driver::sys;

    use super::{c_char, c_int, c_uint, c_void};

    /// A type that is handed over in the same way as `T`.
    pub(super) trait As<T> {}

    impl As<c_int> for c_int {}
    impl As<c_uint> for c_uint {}
    impl As<c_char> for c_char {}
    impl As<c_void> for c_void {}
    impl As<usize> for usize {}
    impl As<sys::CUdeviceptr> for u64 {}
    impl As<sys::CUuuid> for [u8; 16] {}
    impl As<sys::CUresult> for c_int {}
    impl As<sys::CUdevice_attribute> for c_int {}
    impl As<sys::CUcontext> for usize {}
    impl As<sys::CUmodule> for usize {}
    impl As<sys::CUfunction> for usize {}
    impl As<sys::CUstream> for usize {}
    impl<O: As<T>, T> As<*mut T> for *mut O {}
    impl<O: As<T>, T> As<*const T> for *const O {}

    /// A function that is called in the same way as `T`.
    pub(super) trait CalledAs<T> {
        /// Size and alignment of every argument, ours and theirs.
        fn layouts() -> Vec<(&'static str, [(usize, usize); 2])>;
    }

    fn layout<T>() -> (usize, usize) {
        (size_of::<T>(), align_of::<T>())
    }

    macro_rules! called_as {
        ($($ours:ident $theirs:ident)*) => {
            impl<$($ours: As<$theirs>, $theirs),*> CalledAs<unsafe fn($($theirs),*) -> sys::CUresult>
                for unsafe extern "C" fn($($ours),*) -> c_int
            {
                fn layouts() -> Vec<(&'static str, [(usize, usize); 2])> {
                    vec![$((type_name::<$theirs>(), [layout::<$ours>(), layout::<$theirs>()])),*]
                }
            }
        };
    }

    called_as!(A1 B1);
    called_as!(A1 B1 A2 B2);
    called_as!(A1 B1 A2 B2 A3 B3);
    called_as!(A1 B1 A2 B2 A3 B3 A4 B4);
    called_as!(A1 B1 A2 B2 A3 B3 A4 B4 A5 B5 A6 B6 A7 B7 A8 B8 A9 B9 A10 B10 A11 B11);

    /// Holds a declaration against the published one.
    pub(super) fn hold<Ours: CalledAs<Theirs>, Theirs>(name: &str, _: Theirs) {
        for (number, (argument, [ours, theirs])) in Ours::layouts().into_iter().enumerate() {
            assert_eq!(ours, theirs, "argument {number} of {name}, {argument}");
        }
    }

    #[test]
    fn the_version_is_asked_for_as_in_the_published_bindings() {
        let theirs = sys::cuDriverGetVersion as unsafe fn(_) -> _;
        hold::<super::GetVersion, _>("cuDriverGetVersion", theirs);
    }

    #[test]
    fn pointees_are_as_large_as_the_published_ones() {
        assert_eq!(layout::<[u8; 16]>(), layout::<sys::CUuuid>());
        assert_eq!(layout::<usize>(), layout::<sys::CUcontext>());
        assert_eq!(layout::<u64>(), layout::<sys::CUdeviceptr>());
        assert_eq!(layout::<c_int>(), layout::<sys::CUresult>());
    }
}
