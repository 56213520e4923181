//! Writes the assembly of the kernels in double precision: `cargo run -p fma-gen`.
//!
//! A kernel is a list of instructions over vectors whose values have limits: a step that could
//! leave the range in which it is exact is refused while it is written down (`builder`), and so is
//! a routine that needs more registers than there are (`allocate`). A test compares what is in the
//! source tree with what would be written now, so that a change that breaks a limit fails.

#![forbid(unsafe_code)]

mod allocate;
mod builder;
mod emit;
mod fr;
mod numbers;
mod program;

use std::path::PathBuf;

/// The generated files, by their place in the source tree.
fn files() -> [(PathBuf, String); 1] {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../seal-field/src/fma");
    [(folder.join("fr_code.rs"), emit::file("The scalar field.", fr::output))]
}

fn main() -> std::io::Result<()> {
    for (path, text) in files() {
        std::fs::write(&path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_source_tree_has_what_the_generator_writes() {
        for (path, text) in super::files() {
            let there = std::fs::read_to_string(&path).expect("a file of the source tree");
            assert!(
                there == text,
                "{} is not what is generated: run cargo run -p fma-gen",
                path.display()
            );
        }
    }
}
