//! A text as a device takes it: its variables in memory, its kernels by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::decode::{PARAMETERS, decode};
use crate::fault::{RunFault, TextFault};
use crate::flow::{Program, program};
use crate::grid::{Launch, run};
use crate::memory::Memory;
use crate::parse::{Variable, parse};

/// How many instructions threads have executed, by their names.
pub type Counts = BTreeMap<String, u64>;

/// What a kernel is launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks, side by side.
    pub blocks: u32,
    /// Threads of each.
    pub threads: u32,
    /// What orders are drawn from.
    pub seed: u64,
    /// Steps after which a block is taken not to come to an end.
    pub most_steps: u64,
}

impl Grid {
    /// More steps of a block than any kernel here takes: they take half a minute.
    pub const MOST_STEPS: u64 = 1 << 30;
}

/// Why a kernel was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The text has no such kernel.
    #[error("there is no kernel {name}")]
    NoKernel {
        /// The name.
        name: String,
    },
    /// The launch does not fit the kernel.
    #[error("{name} {what}")]
    Wrong {
        /// The kernel.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// It did what it must not.
    #[error(transparent)]
    Fault(#[from] Box<RunFault>),
}

#[derive(Debug)]
struct Kernel {
    program: Program,
    parameters: Vec<(u64, Variable)>,
    shared_bytes: u64,
    local_bytes: u64,
    most_threads: Option<u32>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    threads: u64,
    entered: Vec<u64>,
}

/// A text, loaded into a memory.
#[derive(Debug)]
pub struct Module {
    target: String,
    kernels: BTreeMap<String, Kernel>,
    variables: HashMap<String, (u64, u64)>,
    lines: Vec<String>,
}

impl Module {
    /// Loads a text. Its variables take memory.
    pub fn load(text: &str, memory: &Memory) -> Result<Self, TextFault> {
        let parsed = parse(text)?;
        let mut variables = HashMap::new();
        for (list, constant) in [(&parsed.constants, true), (&parsed.globals, false)] {
            for variable in list {
                let place = memory.take_piece(variable.bytes, constant);
                variables.insert(variable.name.clone(), (place, variable.bytes));
            }
        }
        let addresses: HashMap<_, _> =
            variables.iter().map(|(name, (place, _))| (name.clone(), *place)).collect();
        let mut kernels = BTreeMap::new();
        for entry in &parsed.entries {
            let decoded = decode(entry, &addresses)?;
            let kernel = Kernel {
                program: program(&decoded)?,
                parameters: decoded.parameter_places.into_iter().zip(decoded.parameters).collect(),
                shared_bytes: decoded.shared_bytes,
                local_bytes: decoded.local_bytes,
                most_threads: entry.most_threads,
                counted: Mutex::default(),
            };
            if kernels.insert(entry.name.clone(), kernel).is_some() {
                return Err(TextFault::new(entry.line, format!("a second {}", entry.name)));
            }
        }
        let lines = text.lines().map(|line| line.trim().to_owned()).collect();
        Ok(Self { target: parsed.target, kernels, variables, lines })
    }

    /// What it was compiled for, such as `sm_90`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The names of all kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// Where a variable lies, and its bytes.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        self.variables.get(name).copied()
    }

    /// The bytes of each parameter of a kernel, if there is such a kernel.
    pub fn parameters(&self, name: &str) -> Option<Vec<u64>> {
        let kernel = self.kernels.get(name)?;
        Some(kernel.parameters.iter().map(|(_, variable)| variable.bytes).collect())
    }

    /// Runs a kernel to its end.
    pub fn launch(
        &self,
        name: &str,
        grid: Grid,
        arguments: &[Vec<u8>],
        memory: &Memory,
    ) -> Result<(), LaunchError> {
        let kernel = self
            .kernels
            .get(name)
            .ok_or_else(|| LaunchError::NoKernel { name: name.to_owned() })?;
        let wrong = |what: String| LaunchError::Wrong { name: name.to_owned(), what };
        if arguments.len() != kernel.parameters.len() {
            let (found, wanted) = (arguments.len(), kernel.parameters.len());
            return Err(wrong(format!("takes {wanted} arguments, {found} were given")));
        }
        if grid.blocks == 0 || grid.threads == 0 || grid.threads > 1024 {
            return Err(wrong(format!("cannot run as {grid:?}")));
        }
        if kernel.most_threads.is_some_and(|most| grid.threads > most) {
            return Err(wrong(format!("was compiled for fewer threads than {}", grid.threads)));
        }
        let mut parameters = Vec::new();
        for ((place, variable), bytes) in kernel.parameters.iter().zip(arguments) {
            if bytes.len() as u64 != variable.bytes {
                let (found, wanted) = (bytes.len(), variable.bytes);
                return Err(wrong(format!(
                    "takes {wanted} bytes for {}, not {found}",
                    variable.name
                )));
            }
            parameters.resize((place - PARAMETERS) as usize, 0);
            parameters.extend(bytes);
        }
        let launch = Launch {
            program: &kernel.program,
            shared_bytes: kernel.shared_bytes,
            local_bytes: kernel.local_bytes,
            parameters: &parameters,
            blocks: grid.blocks,
            threads: grid.threads,
            seed: grid.seed,
            most_steps: grid.most_steps,
        };
        let entered = run(&launch, memory).map_err(|fault| {
            let line = fault.line as usize;
            let instruction = self.lines.get(line.wrapping_sub(1)).cloned().unwrap_or_default();
            Box::new(RunFault { kernel: name.to_owned(), instruction, ..*fault })
        })?;
        let mut counted = kernel.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        counted.threads += u64::from(grid.blocks) * u64::from(grid.threads);
        counted.entered.resize(entered.len(), 0);
        counted.entered.iter_mut().zip(entered).for_each(|(sum, more)| *sum += more);
        Ok(())
    }

    /// How many threads of a kernel have been started, and what all threads have executed so far.
    pub fn counts(&self, name: &str) -> Option<(u64, Counts)> {
        let kernel = self.kernels.get(name)?;
        let counted = kernel.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut counts = Counts::new();
        for (entered, names) in counted.entered.iter().zip(&kernel.program.blocks) {
            for (name, times) in names {
                *counts.entry(name.clone()).or_default() += entered * times;
            }
        }
        Some((counted.threads, counts))
    }
}
