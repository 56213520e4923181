//! A stand-in for the NVIDIA driver: a library that runs the kernels' host build, and fails by a
//! script. `crates/seal-cuda/tests/stand_in/driver.cpp` is it, and tells what scripts say.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::skip::skipped;

/// The stand-in as `libcuda.so.1` in `dir`, with this script. Without a C++ compiler the `test` is
/// noted as skipped and there is none.
///
/// # Panics
/// When it cannot be compiled or written, which fails the test that wants it.
pub fn cuda_stand_in(test: &str, dir: &Path, script: &str) -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(built) = BUILT.get_or_init(build) else {
        skipped(
            test,
            "no C++ compiler (c++, or the one in CXX) to build the stand-in for a driver",
        );
        return None;
    };
    let library = dir.join("libcuda.so.1");
    fs::copy(built, &library).expect("the stand-in is copied");
    set_script(&library, script);
    Some(library)
}

/// Gives the stand-in `library` another script, for processes that load it from now on.
///
/// # Panics
/// When it cannot be written.
pub fn set_script(library: &Path, script: &str) {
    fs::write(beside(library, ".script"), script).expect("the script is written");
}

/// What had not been given back when the device was closed, as `memory 0 pinned 0 streams 0`;
/// nothing if it has not been closed.
pub fn left_behind(library: &Path) -> Option<String> {
    let text = fs::read_to_string(beside(library, ".left")).ok()?;
    Some(text.trim().to_owned())
}

fn beside(library: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(library);
    path.push(ending);
    path.into()
}

/// The compiled library, made once for each state of its sources.
fn build() -> Option<PathBuf> {
    let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        return None;
    }
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seal-cuda");
    let source = crate_dir.join("tests/stand_in/driver.cpp");
    let mut hasher = DefaultHasher::new();
    let kernels = fs::read_dir(crate_dir.join("kernels")).expect("the kernels are there");
    let mut sources: Vec<_> =
        kernels.map(|entry| entry.expect("an entry").path()).chain([source.clone()]).collect();
    sources.sort();
    for path in sources {
        hasher.write(&fs::read(path).expect("sources can be read"));
    }
    let test = env::current_exe().expect("a test knows its binary");
    let target = test.parent().expect("a test lies in a directory");
    let library = target.join(format!("cuda-stand-in-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Some(library);
    }
    let made = tempfile_beside(&library);
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-o"])
        .args([&made, &source])
        .arg("-ldl")
        .output()
        .expect("the compiler runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the stand-in for a driver cannot be compiled:\n{said}");
    // Other tests may be at it too: whoever is last wins, with the same contents.
    fs::rename(&made, &library).expect("the stand-in gets its name");
    Some(library)
}

fn tempfile_beside(library: &Path) -> PathBuf {
    beside(library, &format!(".{}", std::process::id()))
}
