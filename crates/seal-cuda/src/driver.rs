//! The driver's library, found when it is needed.
//!
//! Bindings of our own and not a crate's: the thirty functions are looked up together, so that a
//! driver that is too old is an error with a name at start and not a panic in the middle of a
//! sector, and the library is a value and not a global, so that tests bring their own.
//!
//! Handles of the driver are opaque numbers of the size of a pointer, and are declared so.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::Library;

use crate::CudaError;

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
    };
}

functions! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
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
    found.map(|symbol| *symbol).map_err(|source| CudaError::OldDriver {
        library: path.to_owned(),
        symbol: name.to_owned(),
        source,
    })
}

/// A loaded and initialised driver.
pub(crate) struct Driver {
    pub(crate) functions: Functions,
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
        let functions = Functions::find(&library, &name)?;
        let driver = Self { functions, _library: ManuallyDrop::new(library) };
        // SAFETY: takes a number of flags, of which there are none.
        let code = unsafe { (driver.functions.cuInit)(0) };
        driver.check("cuInit", code)?;
        Ok(driver)
    }

    /// The version of CUDA that the driver was made for, such as 13000.
    pub(crate) fn version(&self) -> Result<i32, CudaError> {
        let mut version = 0;
        // SAFETY: writes a number to the place that is given, which lives until the call is over.
        let code = unsafe { (self.functions.cuDriverGetVersion)(&mut version) };
        self.check("cuDriverGetVersion", code)?;
        Ok(version)
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
