//! The marker file that tells test parameters from published ones.
//!
//! Test parameters have the official names, since other software finds them by these, so a
//! directory that holds any has a list of them beside. Whoever made test parameters could forge
//! proofs with them: they are for tests alone.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use seal_host::{PartFile, read_input};
use serde::{Deserialize, Serialize};

use crate::Groth16Error;

/// Name of the marker file.
pub const MARKER: &str = "seal-exec-test-params.json";

/// The parameter files of a directory that are only for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// For people who find the file.
    pub note: String,
    /// The test parameters by file name.
    pub files: BTreeMap<String, MarkedFile>,
}

/// A file of test parameters as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedFile {
    /// Length in bytes.
    pub size: u64,
    /// First 16 bytes of BLAKE2b-512, in hex.
    pub blake2b_16: String,
}

impl Marker {
    /// The marker of a directory; empty where there is none.
    pub fn read(dir: &Path) -> Result<Self, Groth16Error> {
        let path = dir.join(MARKER);
        let text = match read_input(&path) {
            Ok(text) => text,
            Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&text)
            .map_err(|error| Groth16Error::DamagedParameters { path, reason: error.to_string() })
    }

    /// Writes the marker into a directory.
    pub(crate) fn write(&mut self, dir: &Path) -> Result<(), Groth16Error> {
        self.note = "The parameter files named here were made by c2-exec gen-params for tests. \
                     Proofs made with them are worthless on the network."
            .to_owned();
        let text = serde_json::to_vec_pretty(self)
            .map_err(Groth16Error::upstream("write the marker as JSON"))?;
        let mut part = PartFile::create(&dir.join(MARKER))?;
        part.write_all(&text)?;
        Ok(part.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_empty_where_there_is_none_and_read_back_where_there_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut marker = Marker::read(dir.path()).expect("none is no error");
        assert!(marker.files.is_empty());
        let file = MarkedFile { size: 7, blake2b_16: "00".repeat(16) };
        marker.files.insert("x.params".to_owned(), file);
        marker.write(dir.path()).expect("writable");
        assert_eq!(Marker::read(dir.path()).expect("just written"), marker);
    }

    #[test]
    fn a_broken_marker_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join(MARKER), "{").expect("writable");
        let error = Marker::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains(MARKER), "{error}");
    }
}
