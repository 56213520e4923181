//! End-to-end tests live in `e2e/`; what they share is the crate `test-support`.
#![forbid(unsafe_code)]
