//! Measurements measure what they say, and notice a device that computes nonsense.

use seal_cuda::measure::{Load, PIPE_ROUNDS, Pipe, kernel_times, pipe_rate, whole_sector};
use seal_cuda::{BatchError, CudaError, Shape};

use test_support::cuda::executes_ptx;

use crate::support::{device, open, real, scripted};

const LOAD: Load = Load { shape: Shape { layers: 11, arity: 8, nodes: 64 }, streams: 2 };

#[test]
fn kernels_and_whole_sectors_are_measured() {
    let Some(tested) = device("measurements on a device") else { return };
    let times = kernel_times(&tested.device, LOAD, 2).expect("the device works");
    assert!(times.columns > 0.0 && times.rows > 0.0 && times.encode > 0.0, "{times:?}");
    let took = whole_sector(&tested.device, LOAD, 300).expect("the device computes right");
    assert!(!took.is_zero());
}

#[test]
fn a_stream_that_finds_no_batch_left_is_not_looked_at() {
    let Some(tested) = device("more streams than batches") else { return };
    let load = Load { streams: 4, ..LOAD };
    // One batch, so that three of the streams have nothing to show.
    whole_sector(&tested.device, load, 64).expect("the device computes right");
}

#[test]
fn every_pipe_of_a_device_is_measured() {
    if !real() && !executes_ptx() {
        // The host build has no pipe; what is missing is named.
        let Some((library, _dir)) = scripted("a stand-in's pipe", "") else { return };
        let device = open(&library).expect("it works");
        let error =
            pipe_rate(&device, Pipe::Dfma, PIPE_ROUNDS).expect_err("there is none").to_string();
        assert!(error.starts_with("cuModuleGetFunction"), "{error}");
        return;
    }
    let Some(tested) = device("the pipes of a device") else { return };
    let rounds = if real() { PIPE_ROUNDS } else { 4..64 };
    for pipe in Pipe::ALL {
        let rate = pipe_rate(&tested.device, pipe, rounds.clone()).expect("the device works");
        assert!((0.5..1024.0).contains(&rate.per_clock), "{}: {rate:?}", pipe.name());
        if !real() {
            // Executed PTX has no clock that seconds could be compared with.
            continue;
        }
        let blocks = f64::from(tested.device.info().multiprocessors);
        let clock = rate.per_second / (rate.per_clock * blocks);
        assert!((1e8..1e10).contains(&clock), "{}: {rate:?}, {clock} Hz", pipe.name());
    }
}

#[test]
fn a_replica_that_is_wrong_is_noticed() {
    let Some((library, _dir)) = scripted("a wrong replica", "misplace 1") else { return };
    let device = open(&library).expect("it works");
    let error = whole_sector(&device, LOAD, 64).expect_err("nonsense");
    assert_eq!(error.to_string(), "the device computes the replica wrongly");
}

#[test]
fn no_batch_in_flight_is_an_error() {
    let Some(tested) = device("no batch in flight") else { return };
    let none = Load { streams: 0, ..LOAD };
    for error in [
        whole_sector(&tested.device, none, 64).expect_err("nobody works"),
        kernel_times(&tested.device, none, 2).expect_err("nobody works"),
    ] {
        assert!(error.to_string().contains("no batch in flight"), "{error}");
    }
}

#[test]
fn a_device_that_computes_nonsense_is_noticed() {
    let Some((library, _dir)) = scripted("a device that computes nonsense", "spoil 1") else {
        return;
    };
    let device = open(&library).expect("it works");
    let error = whole_sector(&device, LOAD, 64).expect_err("nonsense");
    assert!(matches!(error, BatchError::Device(CudaError::Wrong { .. })), "{error}");
}
