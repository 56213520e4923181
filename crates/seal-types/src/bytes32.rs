//! 32-byte identifiers and commitments, one type each so that none can be taken for another.
//!
//! On the wire they are arrays of 32 numbers, as `filecoin-proofs-api` writes them; people see
//! lower-case hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not 64 hex digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not 32 bytes in hex (64 digits)")]
pub struct HexError {
    /// What was given.
    pub text: String,
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| HexError { text: text.to_owned() })?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes32!(
    /// A commitment: `comm_d`, `comm_r`, `comm_c`, `comm_r_last` or the commitment of a piece.
    Commitment
);
bytes32!(
    /// The replica id: what makes one sector's labels differ from every other's.
    ReplicaId
);
bytes32!(
    /// The storage provider's id as the proofs see it.
    ProverId
);
bytes32!(
    /// The sealing randomness of PC1.
    Ticket
);
bytes32!(
    /// The interactive randomness of C1.
    Seed
);
bytes32!(
    /// The id of a proof of replication; it seeds the graph.
    PorepId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let text = "00ff".repeat(16);
        let commitment: Commitment = text.parse().expect("64 digits");
        assert_eq!(commitment.to_string(), text);
    }

    #[test]
    fn rejects_text_that_is_not_32_bytes() {
        for text in ["", "00", &"zz".repeat(32), &"00".repeat(33)] {
            assert_eq!(text.parse::<Ticket>(), Err(HexError { text: text.to_owned() }));
        }
    }

    #[test]
    fn is_32_numbers_in_json() {
        let json = serde_json::to_string(&ReplicaId([7; 32])).expect("plain data");
        assert_eq!(json, format!("[{}]", ["7"; 32].join(",")));
        assert!(serde_json::from_str::<ReplicaId>("[1,2,3]").is_err());
    }
}
