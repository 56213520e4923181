//! Choice of the kernel at run time.

use crate::chain::Run;
use crate::portable;
#[cfg(target_arch = "x86_64")]
use crate::shani;

/// The eight words of a SHA-256 state.
pub type State = [u32; 8];

/// The state before the first block.
pub const INITIAL_STATE: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The second block of a 64-byte message: padding and the length of 512 bits.
pub(crate) const PADDING_OF_64: [u8; 64] = {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    ShaNi(shani::Proof),
}

/// The chosen kernel. Holding one is proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Isa);

/// A kernel was asked for that this processor or this build does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelError {
    /// What was asked for.
    pub name: String,
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name } = self;
        write!(f, "the SHA-256 kernel {name:?} is not available here; there are: ")?;
        let names: Vec<_> = Kernel::available().map(Kernel::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl std::error::Error for KernelError {}

impl Kernel {
    /// The fastest kernel of this processor.
    pub fn detect() -> Self {
        Self::shani().unwrap_or(Self::portable())
    }

    /// The kernel called `name`: `portable` or `shani`.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        Self::available()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| KernelError { name: name.to_owned() })
    }

    /// All kernels this processor can run.
    pub fn available() -> impl Iterator<Item = Self> {
        [Some(Self::portable()), Self::shani()].into_iter().flatten()
    }

    /// The kernel that every processor can run.
    pub const fn portable() -> Self {
        Self(Isa::Portable)
    }

    /// The kernel for the SHA extensions of x86-64.
    pub fn shani() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return shani::Proof::detect().map(|proof| Self(Isa::ShaNi(proof)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(_) => "shani",
        }
    }

    /// Adds `blocks` to `state`.
    #[inline]
    pub fn compress(self, state: &mut State, blocks: &[[u8; 64]]) {
        match self.0 {
            Isa::Portable => portable::compress(state, blocks),
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(proof) => proof.compress(state, blocks),
        }
    }

    /// Adds blocks to two states, side by side where that is faster.
    ///
    /// # Panics
    /// When there are not as many for the one as for the other.
    #[inline]
    pub fn compress_pair(self, states: &mut [State; 2], blocks: [&[[u8; 64]]; 2]) {
        assert_eq!(blocks[0].len(), blocks[1].len(), "blocks in pairs");
        match self.0 {
            Isa::Portable => {
                for (state, blocks) in states.iter_mut().zip(blocks) {
                    portable::compress(state, blocks);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(proof) => proof.compress_pair(states, blocks),
        }
    }

    /// Adds the block of two halves to `state`.
    #[inline]
    pub(crate) fn compress_halves(self, state: &mut State, left: &[u8; 32], right: &[u8; 32]) {
        match self.0 {
            Isa::Portable => portable::compress_halves(state, left, right),
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(proof) => proof.compress_halves(state, left, right),
        }
    }

    /// See [`Kernel::chain`].
    #[inline]
    pub(crate) fn run_chain<const PARENTS: usize, const LANES: usize>(
        self,
        run: &mut impl Run<LANES>,
    ) {
        match self.0 {
            Isa::Portable => portable::run_chain::<PARENTS, LANES>(run),
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(proof) => proof.run_chain::<PARENTS, LANES>(run),
        }
    }

    /// SHA-256 of 64 bytes, cut to 254 bits: one node of tree D from its two children.
    ///
    /// The two highest bits of the last byte are cleared, so that the node is an element of the
    /// scalar field (specification, "Merkle trees").
    #[inline]
    pub fn two_to_one(self, children: &[u8; 64]) -> [u8; 32] {
        let mut state = INITIAL_STATE;
        self.compress(&mut state, &[*children, PADDING_OF_64]);
        let mut node = digest_of(&state);
        node[31] &= CUT;
        node
    }

    /// A row of tree D: `parents[i]` is [`Kernel::two_to_one`] of the children `2 * i` and
    /// `2 * i + 1`. Several nodes are hashed side by side where that is faster.
    ///
    /// # Panics
    /// When there are not exactly two children for each parent.
    pub fn two_to_one_row(self, children: &[[u8; 32]], parents: &mut [[u8; 32]]) {
        let (pairs, rest) = children.as_chunks::<2>();
        assert!(rest.is_empty() && pairs.len() == parents.len(), "two children for each parent");
        match self.0 {
            Isa::Portable => portable::two_to_one_row(pairs, parents),
            #[cfg(target_arch = "x86_64")]
            Isa::ShaNi(proof) => proof.two_to_one_row(pairs, parents),
        }
    }
}

/// What the last byte of a node of tree D keeps.
pub(crate) const CUT: u8 = 0x3f;

/// The digest that `state` stands for.
#[inline]
pub fn digest_of(state: &State) -> [u8; 32] {
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn message_digest(kernel: Kernel, message: &[u8]) -> [u8; 32] {
        let mut padded = message.to_vec();
        padded.push(0x80);
        padded.resize(padded.len().next_multiple_of(64), 0);
        if padded.len() - message.len() < 9 {
            padded.resize(padded.len() + 64, 0);
        }
        let end = padded.len();
        padded[end - 8..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
        let (blocks, rest) = padded.as_chunks::<64>();
        assert!(rest.is_empty());
        let mut state = INITIAL_STATE;
        kernel.compress(&mut state, blocks);
        digest_of(&state)
    }

    #[test]
    fn the_standard_examples_hold_for_every_kernel() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for kernel in Kernel::available() {
            let digest = message_digest(kernel, b"abc");
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{}", kernel.name());
        }
    }

    #[test]
    fn unknown_kernels_are_refused_by_name() {
        let error = Kernel::by_name("mmx").unwrap_err();
        assert!(error.to_string().contains("\"mmx\""), "{error}");
        assert_eq!(Kernel::by_name("portable"), Ok(Kernel::portable()));
    }

    #[test]
    fn a_row_is_its_nodes_whatever_its_length() {
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 33] {
            let children: Vec<[u8; 32]> = (0..2 * length)
                .map(|i: u8| std::array::from_fn(|b| i ^ b.to_le_bytes()[0]))
                .collect();
            let mut expected = Vec::new();
            for pair in children.chunks(2) {
                let mut node: [u8; 32] = Sha256::digest(pair.as_flattened()).into();
                node[31] &= 0x3f;
                expected.push(node);
            }
            for kernel in Kernel::available() {
                let mut row = vec![[0xee; 32]; usize::from(length)];
                kernel.two_to_one_row(&children, &mut row);
                assert_eq!(row, expected, "{}", kernel.name());
            }
        }
    }

    proptest! {
        #[test]
        fn every_kernel_equals_the_published_crate(message in proptest::collection::vec(any::<u8>(), 0..700)) {
            let expected: [u8; 32] = Sha256::digest(&message).into();
            for kernel in Kernel::available() {
                prop_assert_eq!(message_digest(kernel, &message), expected, "{}", kernel.name());
            }
        }

        #[test]
        fn a_pair_is_its_two(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let (blocks, _) = bytes.as_chunks::<64>();
            let (one, other) = blocks.split_at(blocks.len() / 2);
            let other = &other[..one.len()];
            for kernel in Kernel::available() {
                let mut expected = [INITIAL_STATE, [7; 8]];
                Kernel::portable().compress(&mut expected[0], one);
                Kernel::portable().compress(&mut expected[1], other);
                let mut states = [INITIAL_STATE, [7; 8]];
                kernel.compress_pair(&mut states, [one, other]);
                prop_assert_eq!(states, expected, "{}", kernel.name());
            }
        }

        #[test]
        fn two_to_one_is_the_cut_digest(children in proptest::collection::vec(any::<u8>(), 64)) {
            let children: [u8; 64] = children.try_into().expect("64 bytes");
            let mut expected: [u8; 32] = Sha256::digest(children).into();
            expected[31] &= 0x3f;
            for kernel in Kernel::available() {
                prop_assert_eq!(kernel.two_to_one(&children), expected, "{}", kernel.name());
            }
        }
    }
}
