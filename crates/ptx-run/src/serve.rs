//! What a stand-in for the driver asks for, one request after the other.
//!
//! A request is a byte that says what is wanted, then numbers of 64 bits, and bytes, each with
//! their length before them. An answer is a byte, 0 for "done", then what was asked for; with any
//! other byte comes the reason, as bytes. Numbers are little-endian.
//!
//! | byte | with | answer |
//! |---|---|---|
//! | `A` | bytes to take | where they begin |
//! | `F` | where a piece begins | |
//! | `W` | address, bytes | |
//! | `R` | address, how many bytes | the bytes |
//! | `V` | name of a variable | where it lies, its bytes |
//! | `K` | name of a kernel | number of its parameters, the bytes of each |
//! | `L` | name, blocks, threads, number of arguments, each as bytes | |

use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::memory::Memory;
use crate::module::{Grid, Module};

/// The longest list of bytes that is taken: nobody has more memory.
const MOST_BYTES: u64 = 1 << 36;

/// Serves a stand-in until it hangs up.
pub struct Server<'s> {
    module: &'s Module,
    memory: &'s Memory,
    seed: u64,
    launches: u64,
}

impl<'s> Server<'s> {
    /// For the kernels of `module`, in orders drawn from `seed`.
    pub fn new(module: &'s Module, memory: &'s Memory, seed: u64) -> Self {
        Self { module, memory, seed, launches: 0 }
    }

    /// Answers requests until there are no more.
    pub fn serve(&mut self, input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
        let mut kind = [0];
        while input.read(&mut kind)? == 1 {
            match self.answer(kind[0], input)? {
                Ok(bytes) => {
                    output.write_all(&[0])?;
                    output.write_all(&bytes)?;
                }
                Err(reason) => {
                    output.write_all(&[1])?;
                    output.write_all(&(reason.len() as u64).to_le_bytes())?;
                    output.write_all(reason.as_bytes())?;
                }
            }
            output.flush()?;
        }
        Ok(())
    }

    fn answer(&mut self, kind: u8, input: &mut dyn Read) -> io::Result<Result<Vec<u8>, String>> {
        let nothing = |done: bool, what: &str| {
            if done { Ok(Vec::new()) } else { Err(what.to_owned()) }
        };
        Ok(match kind {
            b'A' => {
                let bytes = number(input)?;
                if bytes > MOST_BYTES {
                    Err(format!("{bytes} bytes are more than there are"))
                } else {
                    Ok(self.memory.take(bytes).to_le_bytes().to_vec())
                }
            }
            b'F' => {
                let start = number(input)?;
                nothing(self.memory.give_back(start), "no memory begins there")
            }
            b'W' => {
                let address = number(input)?;
                let bytes = list(input)?;
                nothing(self.memory.write(address, &bytes), "no memory is there to be written")
            }
            b'R' => {
                let (address, length) = (number(input)?, number(input)?);
                let mut bytes = vec![0; room(length)?];
                if self.memory.read(address, &mut bytes) {
                    Ok(bytes)
                } else {
                    Err("no memory is there to be read".to_owned())
                }
            }
            b'V' => {
                let name = text(input)?;
                let found = self.module.variable(&name);
                found
                    .map(|(place, bytes)| [place.to_le_bytes(), bytes.to_le_bytes()].concat())
                    .ok_or_else(|| format!("there is no variable {name}"))
            }
            b'K' => {
                let name = text(input)?;
                let found = self.module.parameters(&name);
                found
                    .map(|sizes| {
                        let numbers = [sizes.len() as u64].into_iter().chain(sizes);
                        numbers.flat_map(u64::to_le_bytes).collect()
                    })
                    .ok_or_else(|| format!("there is no kernel {name}"))
            }
            b'L' => {
                let name = text(input)?;
                let (blocks, threads) = (number(input)?, number(input)?);
                let count = number(input)?;
                let arguments: Vec<_> =
                    (0..count).map(|_| list(input)).collect::<Result<_, _>>()?;
                self.launch(&name, (blocks, threads), &arguments)
            }
            other => Err(format!("{other:#x} is no request")),
        })
    }

    fn launch(
        &mut self,
        name: &str,
        (blocks, threads): (u64, u64),
        arguments: &[Vec<u8>],
    ) -> Result<Vec<u8>, String> {
        let narrow = |number: u64| u32::try_from(number).map_err(|_| format!("{number} are many"));
        self.launches += 1;
        // Each launch in an order of its own.
        let seed = self.seed.wrapping_add(self.launches << 20);
        let (blocks, threads) = (narrow(blocks)?, narrow(threads)?);
        let grid = Grid { blocks, threads, seed, most_steps: Grid::MOST_STEPS };
        match self.module.launch(name, grid, arguments, self.memory) {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Err(format!("{error} (seed {seed})")),
        }
    }
}

fn number(input: &mut dyn Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn room(length: u64) -> io::Result<usize> {
    let length = Some(length).filter(|&length| length <= MOST_BYTES);
    length
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a list that is too long"))
}

fn list(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; room(number(input)?)?];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(input: &mut dyn Read) -> io::Result<String> {
    let bytes = list(input)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What has been executed, by kernel.
pub fn counts(module: &Module) -> Value {
    let kernels: serde_json::Map<_, _> = module
        .kernels()
        .filter_map(|name| {
            let (threads, counts) = module.counts(name)?;
            Some((name.to_owned(), json!({ "threads": threads, "instructions": counts })))
        })
        .collect();
    json!({ "target": module.target(), "kernels": kernels })
}

/// Writes what has been executed into a new file of `dir`, if anything has.
pub fn keep_counts(module: &Module, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let name = format!("{}-{}.json", module.target(), std::process::id());
    std::fs::write(dir.join(name), format!("{:#}\n", counts(module)))
}
