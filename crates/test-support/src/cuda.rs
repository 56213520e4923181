//! A stand-in for the NVIDIA driver: a library that runs the kernels and fails by a script.
//! `crates/seal-cuda/tests/stand_in/driver.cpp` is it, and tells what scripts say.
//!
//! It runs the kernels' host build. With `SEAL_TEST_CUDA=ptx` it executes what nvcc has made of
//! them: `SEAL_TEST_PTX` names the file, `SEAL_TEST_PTX_SEED` what the order of threads is drawn
//! from, `SEAL_TEST_PTX_COUNTS` a directory where it tells what was executed, and
//! `SEAL_TEST_PTX_RUN` the program `ptx-run`, if it is not where cargo builds it.

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
    let Some(library) = place(dir, executed().as_deref()) else {
        // Whoever asks for executed PTX wants no test left out.
        assert!(!executes_ptx(), "no C++ compiler (c++, or the one in CXX) for the stand-in");
        skipped(
            test,
            "no C++ compiler (c++, or the one in CXX) to build the stand-in for a driver",
        );
        return None;
    };
    set_script(&library, script);
    Some(library)
}

/// The stand-in as `libcuda.so.1` in `dir`, which executes the file `ptx` by `program`, whatever the
/// environment says. Without a C++ compiler there is none.
///
/// # Panics
/// As [`cuda_stand_in`].
pub fn stand_in_that_executes(ptx: &str, program: &str, dir: &Path) -> Option<PathBuf> {
    place(dir, Some(&format!("{program}\n{ptx}\n1\n\n")))
}

/// The stand-in in `dir`, with the lines that make it execute PTX, if it is to.
fn place(dir: &Path, executed: Option<&str>) -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build).as_ref()?;
    let library = dir.join("libcuda.so.1");
    fs::copy(built, &library).expect("the stand-in is copied");
    if let Some(executed) = executed {
        fs::write(beside(&library, ".ptx"), executed).expect("the stand-in's PTX is named");
    }
    Some(library)
}

/// Whether tests are to execute PTX.
pub fn executes_ptx() -> bool {
    env::var("SEAL_TEST_CUDA").is_ok_and(|value| value == "ptx")
}

/// The lines that make the stand-in execute PTX, if that was asked for.
fn executed() -> Option<String> {
    if !executes_ptx() {
        return None;
    }
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let ptx = set("SEAL_TEST_PTX").expect("SEAL_TEST_CUDA=ptx needs a file in SEAL_TEST_PTX");
    let program = set("SEAL_TEST_PTX_RUN").unwrap_or_else(|| {
        let test = env::current_exe().expect("a test knows its binary");
        let built = test.ancestors().nth(2).expect("cargo's directories").join("ptx-run");
        built.to_str().expect("a path that is text").to_owned()
    });
    for file in [&ptx, &program] {
        assert!(Path::new(file).is_file(), "{file} is needed to execute PTX, and is not there");
    }
    let seed = set("SEAL_TEST_PTX_SEED").unwrap_or_else(|| "1".to_owned());
    let counts = set("SEAL_TEST_PTX_COUNTS").unwrap_or_default();
    Some(format!("{program}\n{ptx}\n{seed}\n{counts}\n"))
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
    let files = |dir| fs::read_dir(crate_dir.join(dir)).expect("the sources are there");
    let mut sources: Vec<_> = files("kernels")
        .chain(files("tests/stand_in"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
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
