//! Benches live in `benches/`; run them with `cargo bench -p benches`. Results that a document
//! quotes are kept under `runs/`.
#![forbid(unsafe_code)]
