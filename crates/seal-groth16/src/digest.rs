//! The digest by which parameter files are published: the first 16 bytes of BLAKE2b-512.

use std::io::{self, Read, Write};
use std::path::Path;

use seal_host::{FileError, open_input};

/// How much is read at a time.
const BLOCK: usize = 4 << 20;

/// The digest of a whole file, in hex.
pub fn digest_file(path: &Path) -> Result<String, FileError> {
    let mut file = open_input(path)?;
    let mut digest = Digest::default();
    let mut block = vec![0; BLOCK];
    loop {
        let count = match file.read(&mut block) {
            Ok(0) => return Ok(digest.finish()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(FileError::of("read", path))?,
        };
        digest.update(&block[..count]);
    }
}

/// A digest in the making.
#[derive(Default)]
pub(crate) struct Digest {
    state: blake2b_simd::State,
    bytes: u64,
}

impl Digest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes went in.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Not BLAKE2b-128, which is another function.
    pub(crate) fn finish(&self) -> String {
        self.state.finalize().to_hex()[..32].to_owned()
    }
}

/// A writer that keeps the digest of what it passes on.
pub(crate) struct DigestWriter<W> {
    sink: W,
    digest: Digest,
}

impl<W: Write> DigestWriter<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, digest: Digest::default() }
    }

    pub(crate) fn into_digest(self) -> Digest {
        self.digest
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_head_of_blake2b_512() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").expect("writable");
        // RFC 7693, appendix A.
        assert_eq!(digest_file(&path).expect("readable"), "ba80a53f981c4d0d6a2797b69f12f6e9");
    }

    #[test]
    fn a_writer_digests_what_it_wrote() {
        let mut writer = DigestWriter::new(Vec::new());
        writer.write_all(b"a").expect("memory");
        writer.write_all(b"bc").expect("memory");
        let digest = writer.into_digest();
        assert_eq!(digest.bytes(), 3);
        assert_eq!(digest.finish(), "ba80a53f981c4d0d6a2797b69f12f6e9");
    }
}
