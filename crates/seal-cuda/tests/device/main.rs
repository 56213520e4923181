//! The kernels and everything around them, on a stand-in for the driver that runs the kernels'
//! host build. With `SEAL_TEST_CUDA=device` the tests of results run on the first real device, and
//! those of failures, which need a script, are skipped.

mod arithmetic;
mod batches;
mod cards;
mod failures;
mod measure;
mod support;
