//! Field elements as the 32 bytes they have in files: little-endian and canonical.

use ff::PrimeField;

use crate::Fr;

/// 32 bytes that are no field element: read as a little-endian number they are not below the
/// modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {index} is not below the field's modulus")]
pub struct NotCanonical {
    /// Which of the given nodes, counted from 0.
    pub index: usize,
}

/// The element that `bytes` stand for, if they are canonical.
pub fn element_from_bytes(bytes: &[u8; 32]) -> Option<Fr> {
    Fr::from_repr_vartime(*bytes)
}

/// The bytes of an element.
pub fn element_to_bytes(element: &Fr) -> [u8; 32] {
    element.to_repr()
}

/// The elements that `nodes` stand for, into `elements`.
///
/// # Panics
/// When the two slices differ in length.
pub fn elements_from_bytes(nodes: &[[u8; 32]], elements: &mut [Fr]) -> Result<(), NotCanonical> {
    assert_eq!(nodes.len(), elements.len(), "one element per node");
    for (index, (node, element)) in nodes.iter().zip(elements).enumerate() {
        *element = element_from_bytes(node).ok_or(NotCanonical { index })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ff::Field;

    /// The modulus, little-endian.
    fn modulus() -> [u8; 32] {
        let mut bytes = element_to_bytes(&-Fr::ONE);
        bytes[0] += 1;
        bytes
    }

    #[test]
    fn bytes_are_little_endian() {
        let mut bytes = [0; 32];
        bytes[1] = 1;
        assert_eq!(element_from_bytes(&bytes), Some(Fr::from(256)));
        assert_eq!(element_to_bytes(&Fr::from(256)), bytes);
    }

    #[test]
    fn the_largest_element_is_taken_and_the_modulus_is_not() {
        assert_eq!(element_from_bytes(&element_to_bytes(&-Fr::ONE)), Some(-Fr::ONE));
        assert_eq!(modulus()[31], 0x73);
        for bytes in [modulus(), [0xff; 32]] {
            assert_eq!(element_from_bytes(&bytes), None);
        }
    }

    #[test]
    fn the_error_names_the_node() {
        let mut elements = [Fr::ZERO; 3];
        let nodes = [[0; 32], modulus(), [0xff; 32]];
        let error = elements_from_bytes(&nodes, &mut elements).unwrap_err();
        assert_eq!(error, NotCanonical { index: 1 });
        assert_eq!(error.to_string(), "node 1 is not below the field's modulus");
    }
}
