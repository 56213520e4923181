//! The build script's check of inline assembly, tested: a build script has no tests of its own.

#[path = "../build/asm/mod.rs"]
mod asm;

use std::path::Path;

#[test]
fn all_sources_of_the_kernels_have_exact_constraints() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).expect("the kernels") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a source");
        let (statements, faults) = asm::faults_of_sources(&path.to_string_lossy(), &text);
        assert_eq!(faults, []);
        count += statements.len();
    }
    assert!(count > 0, "no inline assembly was found in {}", dir.display());
}
