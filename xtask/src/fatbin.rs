//! Device code as it lies in a file: which images there are, and how nvcc made them.
//!
//! nvcc packs its images into containers, each with a header and, before every image, one of its
//! own. What the headers mean is not documented by NVIDIA; the offsets are those that readers of
//! the format agree on, and tests hold them against what nvcc writes.

use std::fmt;

use anyhow::{Context, Result, ensure};

/// The first bytes of a container.
const MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
/// Version and header length of containers that are known.
const KNOWN: (u16, u16) = (1, 16);
/// The image was compiled for a debugger (`-G`): ptxas optimised nothing.
const DEBUG: u64 = 1 << 1;
/// The shortest header of an image.
const HEADER: usize = 64;

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// For the driver to compile.
    Ptx,
    /// For one architecture.
    Machine,
}

/// An image of device code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Image {
    pub(crate) kind: Kind,
    /// Compute capability, without its point.
    pub(crate) architecture: u32,
    /// Whether it was compiled for a debugger.
    pub(crate) debug: bool,
    /// Its length, before it was packed.
    pub(crate) bytes: u64,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Ptx => "PTX of compute",
            Kind::Machine => "machine code of sm",
        };
        let Self { architecture, bytes, .. } = self;
        write!(f, "{kind}_{architecture} ({bytes} bytes)")
    }
}

/// All images in a file. Whatever else is in it is passed over; a container that is not
/// understood is an error.
pub(crate) fn images(file: &[u8]) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut from = 0;
    while let Some(found) = file[from..].windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
        let start = from + found;
        from = start + MAGIC.len();
        // The same four bytes in code or data, this program's own among them, are no container.
        if (number::<2>(file, start + 4), number::<2>(file, start + 6))
            != (Some(KNOWN.0.into()), Some(KNOWN.1.into()))
        {
            continue;
        }
        let length = number::<8>(file, start + 8).and_then(|length| usize::try_from(length).ok());
        let first = start + usize::from(KNOWN.1);
        let end = length.and_then(|length| first.checked_add(length));
        let end = end.filter(|end| *end <= file.len()).with_context(|| {
            format!("the device code at byte {start} is longer than what holds it")
        })?;
        let mut at = first;
        while at + HEADER <= end {
            let (image, length) = image(file, at)
                .with_context(|| format!("the device code at byte {at} has an unknown form"))?;
            images.push(image);
            at = at.checked_add(length).filter(|next| *next <= end).with_context(|| {
                format!("the device code at byte {at} is longer than what holds it")
            })?;
        }
        from = end;
    }
    Ok(images)
}

/// The image whose header is at `at`, and its length with the header.
fn image(file: &[u8], at: usize) -> Result<(Image, usize)> {
    let read = |bytes: Option<u64>| bytes.context("the file ends");
    let kind = match read(number::<2>(file, at))? {
        1 => Kind::Ptx,
        2 => Kind::Machine,
        other => anyhow::bail!("an image of kind {other}"),
    };
    let header = usize::try_from(read(number::<4>(file, at + 4))?)?;
    ensure!(header >= HEADER, "a header of {header} bytes");
    let packed = read(number::<8>(file, at + 8))?;
    let architecture = u32::try_from(read(number::<4>(file, at + 28))?)?;
    let flags = read(number::<8>(file, at + 40))?;
    // None where it is not packed.
    let unpacked = read(number::<8>(file, at + 56))?;
    let bytes = if unpacked == 0 { packed } else { unpacked };
    let image = Image { kind, architecture, debug: flags & DEBUG != 0, bytes };
    let length = header.checked_add(usize::try_from(packed)?).context("too long")?;
    Ok((image, length))
}

/// `N` bytes at `at`, the lowest first.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(N)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use test_support::skip::skipped;

    use super::*;
    use crate::cuda_toolkit::find_nvcc;

    /// A container with an image of each of these kinds, architectures and flags.
    fn container(images: &[(u16, u32, u64)]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (kind, architecture, flags) in images {
            let mut header = vec![0; 72];
            header[..2].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&72_u32.to_le_bytes());
            header[8..16].copy_from_slice(&24_u64.to_le_bytes());
            header[28..32].copy_from_slice(&architecture.to_le_bytes());
            header[40..48].copy_from_slice(&flags.to_le_bytes());
            header[56..64].copy_from_slice(&900_u64.to_le_bytes());
            inner.extend(header);
            inner.extend([7; 24]);
        }
        let mut out = MAGIC.to_vec();
        out.extend([1, 0, 16, 0]);
        out.extend((inner.len() as u64).to_le_bytes());
        out.extend(inner);
        out
    }

    #[test]
    fn all_images_of_all_containers_are_read() {
        let mut file = vec![0; 40];
        // The bytes alone are none.
        file.extend(MAGIC);
        file.extend([3; 60]);
        file.extend(container(&[(1, 80, 0x8011), (2, 80, 0x8013)]));
        file.extend([0; 3]);
        file.extend(container(&[(2, 120, 0x11)]));
        file.extend(MAGIC);
        let image = |kind, architecture, debug| Image { kind, architecture, debug, bytes: 900 };
        let expected = [
            image(Kind::Ptx, 80, false),
            image(Kind::Machine, 80, true),
            image(Kind::Machine, 120, false),
        ];
        assert_eq!(images(&file).expect("whole"), expected);
        assert_eq!(images(b"").expect("nothing"), []);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        let whole = container(&[(2, 90, 0x11)]);
        let error = images(&whole[..whole.len() - 1]).expect_err("cut off").to_string();
        assert!(error.contains("longer than what holds it"), "{error}");
        let mut longer = whole.clone();
        longer[16 + 8] += 1;
        assert!(images(&longer).is_err(), "an image that is longer than its container");
        let error = format!("{:#}", images(&container(&[(9, 90, 0)])).expect_err("unknown"));
        assert!(error.contains("kind 9"), "{error}");
    }

    #[test]
    fn nvcc_marks_what_it_compiles_for_a_debugger() {
        let Some(nvcc) = find_nvcc() else {
            return skipped("xtask nvcc_marks_what_it_compiles_for_a_debugger", "no nvcc");
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = dir.path().join("add.cu");
        let text = "__global__ void add(unsigned* a, unsigned n) { a[threadIdx.x] += n; }\n";
        std::fs::write(&source, text).expect("writable");
        for (debugger, packed) in [(false, false), (false, true), (true, false), (true, true)] {
            let object = dir.path().join("add.o");
            let mut command = Command::new(&nvcc);
            command.args(["-c", "-gencode", "arch=compute_80,code=[compute_80,sm_80]"]);
            command.args(["-gencode", "arch=compute_120,code=sm_120"]);
            command.arg(["--compress-mode=none", "--compress-mode=size"][usize::from(packed)]);
            if debugger {
                command.arg("-G");
            }
            // What nvcc adds by itself is not of this test.
            command.env_remove("NVCC_APPEND_FLAGS").env_remove("NVCC_PREPEND_FLAGS");
            let status = command.arg(&source).arg("-o").arg(&object).status().expect("nvcc starts");
            assert!(status.success(), "nvcc compiles");
            let mut found = images(&std::fs::read(&object).expect("there")).expect("understood");
            found.sort_unstable();
            let told: Vec<_> =
                found.iter().map(|image| (image.kind, image.architecture, image.debug)).collect();
            let expected = [
                (Kind::Ptx, 80, debugger),
                (Kind::Machine, 80, debugger),
                (Kind::Machine, 120, debugger),
            ];
            assert_eq!(told, expected, "packed: {packed}");
            assert!(found.iter().all(|image| image.bytes > 200), "{found:?}");
        }
    }
}
