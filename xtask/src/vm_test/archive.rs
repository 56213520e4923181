//! A cpio archive, as the kernel unpacks its first file system from.

use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive in the making, in the format that cpio calls `newc`.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: std::collections::BTreeSet<std::path::PathBuf>,
}

impl Archive {
    /// Adds a directory and those above it, unless they are there.
    pub(crate) fn directory(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.directories.contains(path) {
            return;
        }
        if let Some(above) = path.parent() {
            self.directory(above);
        }
        self.directories.insert(path.to_path_buf());
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds a file that may be run.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8]) {
        if let Some(above) = path.parent() {
            self.directory(above);
        }
        self.entry(path, PROGRAM, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = path.as_os_str().as_encoded_bytes();
        let size = |bytes: usize| u32::try_from(bytes).expect("files here are small");
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            size(content.len()),
            0, // device of the file, major and minor
            0,
            0, // device it stands for, major and minor
            0,
            size(name.len() + 1),
            0, // no checksum
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_first_and_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("a/b/c"), b"text");
        archive.file(Path::new("a/d"), b"x");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().unwrap_or_default())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"]);
        assert!(text.contains("a/b/c\0text"));
    }
}
