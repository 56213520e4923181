//! The calls into the published prover: no unsafe code by its signatures, unsafe by what it does.
//!
//! [`super`] has checked all lengths. Errors of its library come as a panic from `prove`, with the
//! text of the failed CUDA call, and are caught here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::{Assignment, Circuit, Density, RawProof, Scalar};

// Words of densities are read as `usize`.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// What its library is given, laid out as `struct Assignment` in its `groth16_cuda.cu`: pointers
/// and `size_t`, in this order.
type Given = supraseal_c2::Assignment<Scalar>;
const _: () = {
    const fn word(offset: usize, place: usize) -> bool {
        offset == place * size_of::<u64>()
    }
    use std::mem::offset_of;
    assert!(size_of::<Given>() == 17 * size_of::<u64>());
    assert!(word(offset_of!(Given, a_aux_density), 0));
    assert!(word(offset_of!(Given, a_aux_bit_len), 1));
    assert!(word(offset_of!(Given, a_aux_popcount), 2));
    assert!(word(offset_of!(Given, b_inp_density), 3));
    assert!(word(offset_of!(Given, b_inp_bit_len), 4));
    assert!(word(offset_of!(Given, b_inp_popcount), 5));
    assert!(word(offset_of!(Given, b_aux_density), 6));
    assert!(word(offset_of!(Given, b_aux_bit_len), 7));
    assert!(word(offset_of!(Given, b_aux_popcount), 8));
    assert!(word(offset_of!(Given, a), 9));
    assert!(word(offset_of!(Given, b), 10));
    assert!(word(offset_of!(Given, c), 11));
    assert!(word(offset_of!(Given, abc_size), 12));
    assert!(word(offset_of!(Given, inp_assignment_data), 13));
    assert!(word(offset_of!(Given, inp_assignment_size), 14));
    assert!(word(offset_of!(Given, aux_assignment_data), 15));
    assert!(word(offset_of!(Given, aux_assignment_size), 16));
};

// `fr_t` of sppark on the host: four words, with no alignment of its own. `groth16_proof`: affine
// points of G1, G2 and G1, without a mark for infinity.
const _: () = assert!(size_of::<Scalar>() == 32 && align_of::<Scalar>() == 8);
const _: () = assert!(size_of::<RawProof>() == 96 + 192 + 96 && align_of::<RawProof>() == 8);

/// Parameters that it reads or has read.
pub(super) struct Parameters(supraseal_c2::SRS);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parameters")
    }
}

/// What Linux answers where a component of a path is no directory.
const ENOTDIR: i32 = 20;

/// Lets it look for devices. It offers no call for that, but looks for them before it opens a file:
/// a file that cannot be there tells whether it has found any. Whatever fails in this first call is
/// returned, while it would end the process in a later one.
pub(super) fn open() -> Result<(), String> {
    match read("/dev/null/parameters") {
        Ok(_) => Err("it has read a file that cannot be there".to_owned()),
        Err((ENOTDIR, _)) => Ok(()),
        Err((_, said)) => Err(said),
    }
}

pub(super) fn load(path: &str) -> Result<Parameters, String> {
    read(path).map(Parameters).map_err(|(_, said)| said)
}

/// The error's code and text otherwise. Never from the cache that it has: whoever drops the last
/// use of parameters wants their memory back.
fn read(path: &str) -> Result<supraseal_c2::SRS, (i32, String)> {
    catch_unwind(|| supraseal_c2::SRS::try_new(PathBuf::from(path), false))
        .map_err(|panic| (0, text(panic.as_ref())))?
        .map_err(|error| (error.code, String::from(error)))
}

pub(super) fn prove(
    parameters: &Parameters,
    circuit: &Circuit,
    assignment: &Assignment<'_>,
    [r, s]: [Scalar; 2],
) -> Result<RawProof, String> {
    let words = |density: &Density| density.words().as_ptr().cast::<usize>();
    let Circuit { rows, a_aux, b_inputs, b_aux } = circuit;
    let [a, b, c] = assignment.products.map(<[Scalar]>::as_ptr);
    // All of it is borrowed until the call has returned, and it keeps no pointer beyond.
    let given = Given {
        a_aux_density: words(a_aux),
        a_aux_bit_len: a_aux.len(),
        a_aux_popcount: a_aux.ones(),
        b_inp_density: words(b_inputs),
        b_inp_bit_len: b_inputs.len(),
        b_inp_popcount: b_inputs.ones(),
        b_aux_density: words(b_aux),
        b_aux_bit_len: b_aux.len(),
        b_aux_popcount: b_aux.ones(),
        a,
        b,
        c,
        abc_size: *rows,
        inp_assignment_data: assignment.inputs.as_ptr(),
        inp_assignment_size: assignment.inputs.len(),
        aux_assignment_data: assignment.aux.as_ptr(),
        aux_assignment_size: assignment.aux.len(),
    };
    let mut proofs = [RawProof::default()];
    catch_unwind(AssertUnwindSafe(|| {
        supraseal_c2::generate_groth16_proofs(&[given], &[r], &[s], &mut proofs, &parameters.0);
    }))
    .map_err(|panic| text(panic.as_ref()))?;
    let [proof] = proofs;
    Ok(proof)
}

fn text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "it panicked without a text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is a device this would find it, and then there is nothing to see.
    #[test]
    fn without_a_device_it_says_so_and_the_process_lives() {
        match open() {
            Ok(()) => test_support::skip::skipped(
                "seal-cuda without_a_device_it_says_so_and_the_process_lives",
                "there is a device",
            ),
            Err(said) => {
                assert!(said.contains("No CUDA devices available"), "{said}");
                let error = load("/dev/zero").expect_err("no device");
                assert!(error.contains("No CUDA devices available"), "{error}");
            }
        }
    }
}
