//! ChaCha8 streams side by side: the random numbers behind the drawn parents of the graph.
//!
//! Each node of the graph has a stream of its own, whose key is the graph's seed and the node,
//! and uses only its first words. So consecutive nodes are computed in the lanes of a vector, and
//! of the second block only the words that are used.
//!
//! Source: RFC 8439 with 8 rounds instead of 20, counter and nonce 0, as `rand_chacha` has it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Streams computed at once.
pub const STREAMS: usize = 16;
/// Words computed of each stream.
pub const STREAM_WORDS: usize = 20;
/// Words of a block.
const BLOCK: usize = 16;
/// Words of the second block that are used.
const SECOND: usize = STREAM_WORDS - BLOCK;
/// Pairs of a column round and a diagonal round.
const DOUBLE_ROUNDS: usize = 4;
/// "expand 32-byte k", the first four words of every block.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Word `w` of stream `lane` is at `[w][lane]`.
pub type StreamWords = [[u32; STREAMS]; STREAM_WORDS];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Proof),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Proof),
}

/// The chosen kernel for ChaCha8 streams. Holding one is proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChaCha8(Isa);

impl ChaCha8 {
    /// The fastest kernel of this processor.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::portable())
    }

    /// The kernel called `name`, if this processor has it: `portable`, `avx2` or `avx512`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().find(|kernel| kernel.name() == name)
    }

    /// All kernels this processor can run, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [
            avx2::Proof::detect().map(|proof| Self(Isa::Avx2(proof))),
            avx512::Proof::detect().map(|proof| Self(Isa::Avx512(proof))),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = [];
        [Some(Self::portable())].into_iter().chain(vectors).flatten()
    }

    /// The kernel that every processor can run.
    pub const fn portable() -> Self {
        Self(Isa::Portable)
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
        }
    }

    /// Computes the streams whose keys are `seed` and the numbers from `first` on, which wrap
    /// around.
    #[inline]
    pub fn streams(self, seed: &[u32; 7], first: u32, words: &mut StreamWords) {
        match self.0 {
            Isa::Portable => portable::streams(seed, first, words),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) => proof.streams(seed, first, words),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) => proof.streams(seed, first, words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn published(seed: &[u32; 7], last: u32) -> [u32; STREAM_WORDS] {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(4).zip(seed.iter().chain([&last])) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut random = ChaCha8Rng::from_seed(key);
        std::array::from_fn(|_| random.next_u32())
    }

    proptest! {
        #[test]
        fn every_kernel_equals_the_published_crate(seed: [u32; 7], first: u32) {
            for kernel in ChaCha8::available() {
                let mut words = [[0; STREAMS]; STREAM_WORDS];
                kernel.streams(&seed, first, &mut words);
                for lane in 0..STREAMS {
                    let stream = words.map(|lanes| lanes[lane]);
                    let expected = published(&seed, first.wrapping_add(lane as u32));
                    prop_assert_eq!(stream, expected, "{} {}", kernel.name(), lane);
                }
            }
        }
    }

    #[test]
    fn lanes_wrap_around_with_the_key() {
        for kernel in ChaCha8::available() {
            let mut words = [[0; STREAMS]; STREAM_WORDS];
            kernel.streams(&[7; 7], u32::MAX, &mut words);
            assert_eq!(words.map(|lanes| lanes[1]), published(&[7; 7], 0), "{}", kernel.name());
        }
    }

    #[test]
    fn kernels_are_found_by_name() {
        assert_eq!(ChaCha8::by_name("portable"), Some(ChaCha8::portable()));
        assert_eq!(ChaCha8::by_name("neon"), None);
        for kernel in ChaCha8::available() {
            assert_eq!(ChaCha8::by_name(kernel.name()), Some(kernel));
        }
    }
}
