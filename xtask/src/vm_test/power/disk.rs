//! A disk with a volatile cache, which QEMU reaches as a network block device over a socket.
//!
//! What a machine has written is on such a disk for sure only after a flush, or when the write
//! itself asked for it (FUA). At a power cut each sector of the rest is there or not, as it
//! happens; a file on the host would keep it all, and forgive every flush that was forgotten.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rand::Rng;

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The protocol's magic numbers and constants, from the description that the Network Block Device
/// project publishes (doc/proto.md).
const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const FIXED_NEWSTYLE: u16 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
/// Has flags, takes flushes, takes FUA.
const TRANSMISSION_FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_FLUSH: u16 = 3;
const FLAG_FUA: u16 = 1;
const INVALID: u32 = 22;

/// The disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    stable: Vec<u8>,
    /// What only the cache holds, by sector: the last that was written to each.
    cached: BTreeMap<usize, [u8; SECTOR]>,
    /// How many flushes the machine has asked for.
    pub(super) flushes: u64,
}

impl Disk {
    /// A disk with this content.
    pub(super) fn new(content: Vec<u8>) -> Self {
        assert!(content.len().is_multiple_of(SECTOR), "whole sectors");
        Self { stable: content, cached: BTreeMap::new(), flushes: 0 }
    }

    /// The power goes: of what only the cache held each sector is kept with the chance `kept`.
    /// Returns how many there were and how many were lost.
    pub(super) fn cut(&mut self, kept: f64, random: &mut impl Rng) -> (usize, usize) {
        let cached = std::mem::take(&mut self.cached);
        let (all, mut lost) = (cached.len(), 0);
        for (sector, bytes) in cached {
            if random.gen_bool(kept) {
                self.stable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
            } else {
                lost += 1;
            }
        }
        (all, lost)
    }

    fn flush(&mut self) {
        self.flushes += 1;
        for (sector, bytes) in std::mem::take(&mut self.cached) {
            self.stable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
        }
    }

    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = self.stable[offset..offset + length].to_vec();
        let first = offset / SECTOR;
        for (sector, cached) in self.cached.range(first..first + length / SECTOR) {
            bytes[(sector - first) * SECTOR..][..SECTOR].copy_from_slice(cached);
        }
        bytes
    }

    fn write(&mut self, offset: usize, bytes: &[u8], through: bool) {
        for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            let number = offset / SECTOR + index;
            if through {
                self.cached.remove(&number);
                self.stable[number * SECTOR..][..SECTOR].copy_from_slice(sector);
            } else {
                self.cached.insert(number, sector.try_into().expect("whole sectors"));
            }
        }
    }

    /// Whether `length` bytes from `offset` are whole sectors of this disk.
    fn has(&self, offset: u64, length: u64) -> bool {
        let whole = |value: u64| value.is_multiple_of(SECTOR as u64);
        let end = offset.checked_add(length);
        whole(offset) && whole(length) && end.is_some_and(|end| end <= self.stable.len() as u64)
    }

    /// Serves the disk to the one machine that connects, until it is gone.
    pub(super) fn serve(mut self, listener: &UnixListener) -> io::Result<Self> {
        let (stream, _) = listener.accept()?;
        match self.converse(&stream) {
            // A machine that is killed says no farewell.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                Err(error)
            }
            _ => Ok(self),
        }
    }

    fn converse(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        stream.write_all(&NBD_MAGIC.to_be_bytes())?;
        stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
        stream.write_all(&FIXED_NEWSTYLE.to_be_bytes())?;
        let _client_flags = u32::from_be_bytes(take(stream)?);
        loop {
            let magic = u64::from_be_bytes(take(stream)?);
            if magic != OPTION_MAGIC {
                return Err(io::Error::other(format!("not an option: {magic:x}")));
            }
            let option = u32::from_be_bytes(take(stream)?);
            let length = u32::from_be_bytes(take(stream)?);
            io::copy(&mut stream.take(u64::from(length)), &mut io::sink())?;
            match option {
                OPTION_GO => {
                    let mut export = Vec::from(0_u16.to_be_bytes());
                    export.extend((self.stable.len() as u64).to_be_bytes());
                    export.extend(TRANSMISSION_FLAGS.to_be_bytes());
                    option_reply(stream, option, REPLY_INFO, &export)?;
                    option_reply(stream, option, REPLY_ACK, &[])?;
                    return self.transmit(stream);
                }
                OPTION_ABORT => return option_reply(stream, option, REPLY_ACK, &[]),
                _ => option_reply(stream, option, REPLY_UNSUPPORTED, &[])?,
            }
        }
    }

    fn transmit(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        loop {
            let magic = u32::from_be_bytes(take(stream)?);
            if magic != REQUEST_MAGIC {
                return Err(io::Error::other(format!("not a request: {magic:x}")));
            }
            let flags = u16::from_be_bytes(take(stream)?);
            let command = u16::from_be_bytes(take(stream)?);
            let handle: [u8; 8] = take(stream)?;
            let offset = u64::from_be_bytes(take(stream)?);
            let length = u32::from_be_bytes(take(stream)?);
            let (fits, at, size) =
                (self.has(offset, length.into()), offset as usize, length as usize);
            let mut reply = Vec::from(REPLY_MAGIC.to_be_bytes());
            let mut data = Vec::new();
            let error = match command {
                COMMAND_DISCONNECT => return Ok(()),
                COMMAND_READ if fits => {
                    data = self.read(at, size);
                    0
                }
                COMMAND_WRITE => {
                    let mut bytes = vec![0; size];
                    stream.read_exact(&mut bytes)?;
                    if fits {
                        self.write(at, &bytes, flags & FLAG_FUA != 0);
                    }
                    if fits { 0 } else { INVALID }
                }
                COMMAND_FLUSH => {
                    self.flush();
                    0
                }
                _ => INVALID,
            };
            reply.extend(error.to_be_bytes());
            reply.extend(handle);
            reply.extend(data);
            stream.write_all(&reply)?;
        }
    }
}

/// A socket on which a disk can be served.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

fn option_reply(mut stream: &UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).expect("replies are short");
    let mut reply = Vec::from(OPTION_REPLY_MAGIC.to_be_bytes());
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(length.to_be_bytes());
    reply.extend(data);
    stream.write_all(&reply)
}

fn take<const N: usize>(mut stream: &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_cut_takes_what_was_not_flushed_and_nothing_else() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut disk = Disk::new(vec![0; 8 * SECTOR]);
        disk.write(0, &[1; SECTOR], false);
        disk.flush();
        disk.write(SECTOR, &[2; 2 * SECTOR], false);
        disk.write(3 * SECTOR, &[3; SECTOR], true);
        // The machine reads what it wrote, wherever that is.
        assert_eq!(disk.read(SECTOR, SECTOR), [2; SECTOR]);
        assert_eq!(disk.read(0, 4 * SECTOR)[2 * SECTOR..], [[2; SECTOR], [3; SECTOR]].concat());
        let mut kept = disk.clone();
        assert_eq!(disk.cut(0.0, &mut random), (2, 2));
        let sectors = |disk: &Disk| [0, 1, 2, 3].map(|sector| disk.read(sector * SECTOR, 1)[0]);
        assert_eq!(sectors(&disk), [1, 0, 0, 3]);
        assert_eq!(kept.cut(1.0, &mut random), (2, 0));
        assert_eq!(sectors(&kept), [1, 2, 2, 3]);
    }

    #[test]
    fn a_write_through_replaces_what_the_cache_held() {
        let mut disk = Disk::new(vec![0; 2 * SECTOR]);
        disk.write(0, &[1; SECTOR], false);
        disk.write(0, &[2; SECTOR], true);
        disk.flush();
        assert_eq!(disk.read(0, SECTOR), [2; SECTOR]);
        assert!(disk.has(512, 512) && !disk.has(512, 1024) && !disk.has(1, 512));
    }

    #[test]
    fn a_client_that_speaks_the_protocol_gets_its_bytes_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("disk");
        let listener = listen(&path).expect("free");
        let server = std::thread::spawn(move || Disk::new(vec![7; 4096]).serve(&listener));
        let mut client = UnixStream::connect(&path).expect("listening");
        let mut hello = [0; 18];
        client.read_exact(&mut hello).expect("a greeting");
        client.write_all(&1_u32.to_be_bytes()).expect("connected");
        // An option that is unknown here, and then the one that begins.
        for (option, replies) in [(8_u32, 20), (OPTION_GO, 20 + 12 + 20)] {
            client.write_all(&OPTION_MAGIC.to_be_bytes()).expect("connected");
            client.write_all(&option.to_be_bytes()).expect("connected");
            client.write_all(&0_u32.to_be_bytes()).expect("connected");
            client.read_exact(&mut vec![0; replies]).expect("replies");
        }
        let mut ask = |command: u16, offset: u64, length: u32, data: &[u8], back: usize| {
            let mut request = Vec::from(REQUEST_MAGIC.to_be_bytes());
            request.extend(0_u16.to_be_bytes());
            request.extend(command.to_be_bytes());
            request.extend(*b"12345678");
            request.extend(offset.to_be_bytes());
            request.extend(length.to_be_bytes());
            request.extend(data);
            client.write_all(&request).expect("connected");
            let mut reply = vec![0; 16 + back];
            client.read_exact(&mut reply).expect("a reply");
            assert_eq!(reply[8..16], *b"12345678");
            (u32::from_be_bytes(reply[4..8].try_into().expect("four")), reply.split_off(16))
        };
        assert_eq!(ask(COMMAND_WRITE, 512, 512, &[9; 512], 0), (0, vec![]));
        assert_eq!(ask(COMMAND_READ, 0, 1024, &[], 1024), (0, [[7; 512], [9; 512]].concat()));
        assert_eq!(ask(COMMAND_FLUSH, 0, 0, &[], 0), (0, vec![]));
        assert_eq!(ask(COMMAND_READ, 4096, 512, &[], 0), (INVALID, vec![]), "behind its end");
        drop(client);
        let disk = server.join().expect("no panic").expect("served");
        assert_eq!((disk.flushes, disk.stable[512]), (1, 9));
    }
}
