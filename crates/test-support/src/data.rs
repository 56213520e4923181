//! Sector data as `tests/vectors` defines it, and its fr32 padding.
//!
//! Both are written here from their definitions, so that they can judge other implementations.

use sha2::{Digest, Sha256};

/// `h(tag) = SHA-256(tag + ":" + case)`, last byte and-ed with 0x3f.
pub fn derive(tag: &str, case: &str) -> [u8; 32] {
    let mut hash: [u8; 32] = Sha256::digest(format!("{tag}:{case}")).into();
    hash[31] &= 0x3f;
    hash
}

/// The first `length` bytes of the xorshift stream of `case`.
pub fn piece(case: &str, length: usize) -> Vec<u8> {
    let mut x = u64::from_le_bytes(*derive("data", case).first_chunk().expect("32 bytes")) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// fr32 padding: after every 254 bits, counted from the lowest bit of the first byte, two zero
/// bits. 127 bytes become 128.
///
/// # Panics
/// When the length is not a multiple of 127.
pub fn fr32_pad(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes.len() % 127, 0, "whole groups of 127 bytes");
    let mut padded = vec![0_u8; bytes.len() / 127 * 128];
    for (group, out) in bytes.chunks_exact(127).zip(padded.chunks_exact_mut(128)) {
        for (quarter, element) in out.chunks_exact_mut(32).enumerate() {
            // Element `quarter` starts at bit 254 * quarter of the group.
            let (first, shift) = (254 * quarter / 8, 254 * quarter % 8);
            for (i, byte) in element.iter_mut().enumerate() {
                let low = u16::from(*group.get(first + i).unwrap_or(&0));
                let high = u16::from(*group.get(first + i + 1).unwrap_or(&0));
                *byte = ((low | high << 8) >> shift).to_le_bytes()[0];
            }
            element[31] &= 0x3f;
        }
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the definition reads.
    fn plain_pad(bytes: &[u8]) -> Vec<u8> {
        let mut padded = vec![0_u8; bytes.len() / 127 * 128];
        for bit in 0..bytes.len() * 8 {
            let to = bit / 254 * 256 + bit % 254;
            padded[to / 8] |= (bytes[bit / 8] >> (bit % 8) & 1) << (to % 8);
        }
        padded
    }

    #[test]
    fn padding_moves_every_bit_where_the_definition_says() {
        let bytes = piece("padding", 127 * 5);
        assert_eq!(fr32_pad(&bytes), plain_pad(&bytes));
        assert_eq!(fr32_pad(&[0xff; 127]), plain_pad(&[0xff; 127]));
    }

    #[test]
    fn streams_are_cut_not_padded() {
        assert_eq!(piece("a", 21), piece("a", 100)[..21]);
        assert_ne!(piece("a", 21), piece("b", 21));
    }
}
