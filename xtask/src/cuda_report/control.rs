//! How often each instruction of a kernel is executed by a thread, without a device: only what
//! decides branches is computed, from the numbers in the program. What comes from memory or from
//! arguments is unknown, and no loop may depend on it.

use anyhow::{Result, bail};

/// Where a program goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To the next instruction.
    Next,
    /// To this one.
    To(usize),
    /// To the next or to this one: it depends on what is unknown.
    Either(usize),
    /// Into a function, and back to the next instruction.
    Call(usize),
    /// Back from a function.
    Return,
    /// The thread ends.
    End,
}

/// A program whose control can be computed.
pub(crate) trait Program {
    /// How many instructions it has.
    fn length(&self) -> usize;

    /// Executes an instruction.
    fn step(&mut self, at: usize) -> Result<Flow>;

    /// Where an instruction leads when no condition holds: `None` for the end of a thread.
    fn straight(&self, at: usize) -> Option<usize>;

    /// How messages name an instruction.
    fn show(&self, at: usize) -> String;
}

/// How often things were done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Executed {
    /// Each instruction.
    pub(crate) counts: Vec<u64>,
    /// Each branch backwards, and where to.
    pub(crate) back: Vec<Back>,
    /// Branches that depend on data. Of their two ways the shorter one was taken.
    pub(crate) by_data: usize,
}

/// A branch backwards: the end of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Back {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) taken: u64,
}

/// More than any kernel has.
const MOST_STEPS: u64 = 200_000_000;

/// Runs a program from its first instruction on.
pub(crate) fn run(program: &mut impl Program) -> Result<Executed> {
    let length = program.length();
    let mut executed = Executed { counts: vec![0; length], ..Executed::default() };
    let mut back = vec![(0, 0); length];
    let mut by_data = vec![false; length];
    let mut calls = Vec::new();
    let mut at = 0;
    for _ in 0..MOST_STEPS {
        if at >= length {
            bail!("the program goes on behind its last instruction");
        }
        executed.counts[at] += 1;
        let to = match program.step(at)? {
            Flow::Next => at + 1,
            Flow::To(to) => to,
            Flow::Either(to) if to <= at => {
                bail!("a loop depends on what is not known without its data: {}", program.show(at))
            }
            Flow::Either(to) => {
                by_data[at] = true;
                shorter(program, at + 1, to)
            }
            Flow::Call(to) => {
                calls.push(at + 1);
                to
            }
            Flow::Return => match calls.pop() {
                Some(to) => to,
                None => bail!("a return without a call: {}", program.show(at)),
            },
            Flow::End => {
                executed.back = back
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, taken))| *taken > 0)
                    .map(|(from, &(to, taken))| Back { from, to, taken })
                    .collect();
                executed.by_data = by_data.iter().filter(|by_data| **by_data).count();
                return Ok(executed);
            }
        };
        if to <= at && calls.is_empty() {
            back[at] = (to, back[at].1 + 1);
        }
        at = to;
    }
    bail!("the program does not end in {MOST_STEPS} steps, at {}", program.show(at))
}

/// Where the longer of two ways begins.
fn longer(one: &[usize], other: &[usize]) -> usize {
    let longer = if other.len() > one.len() { other } else { one };
    longer.first().copied().unwrap_or_default()
}

/// Which of two ways is the shorter to where they meet.
fn shorter(program: &impl Program, one: usize, other: usize) -> usize {
    const FAR: usize = 10_000;
    let way = |from: usize| {
        let mut way = Vec::new();
        let mut at = Some(from);
        while let Some(here) = at.filter(|here| *here < program.length() && way.len() < FAR) {
            way.push(here);
            // A way that goes in circles meets nothing new.
            at = program.straight(here).filter(|next| *next > here || !way.contains(next));
        }
        way
    };
    let (ones, others) = (way(one), way(other));
    let mut place_of = std::collections::HashMap::new();
    for (place, at) in others.iter().enumerate() {
        place_of.entry(*at).or_insert(place);
    }
    let met = ones.iter().enumerate().find_map(|(i, at)| Some((i, *place_of.get(at)?)));
    match met {
        // They meet where the thread ends: it is the end of a grid, and what goes on counts.
        Some((i, _)) if program.straight(ones[i]).is_none() => longer(&ones, &others),
        Some((of_one, of_other)) if of_other < of_one => other,
        Some(_) => one,
        None => longer(&ones, &others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program given by what each step does.
    struct Script(Vec<Flow>, Vec<u64>);

    impl Program for Script {
        fn length(&self) -> usize {
            self.0.len()
        }

        fn step(&mut self, at: usize) -> Result<Flow> {
            // A branch backwards is taken twice, then not.
            self.1[at] += 1;
            Ok(match self.0[at] {
                Flow::To(to) if to < at && self.1[at].is_multiple_of(3) => Flow::Next,
                flow => flow,
            })
        }

        fn straight(&self, at: usize) -> Option<usize> {
            match self.0[at] {
                Flow::End => None,
                Flow::To(to) => Some(to),
                _ => Some(at + 1),
            }
        }

        fn show(&self, at: usize) -> String {
            at.to_string()
        }
    }

    fn run_script(flows: &[Flow]) -> Result<Executed> {
        run(&mut Script(flows.to_vec(), vec![0; flows.len()]))
    }

    #[test]
    fn nested_loops_are_counted() {
        let executed = run_script(&[Flow::Next, Flow::Next, Flow::To(1), Flow::To(0), Flow::End])
            .expect("runs");
        assert_eq!(executed.counts, [3, 9, 9, 3, 1]);
        assert_eq!(
            executed.back,
            [Back { from: 2, to: 1, taken: 6 }, Back { from: 3, to: 0, taken: 2 }]
        );
    }

    #[test]
    fn of_two_ways_the_shorter_is_taken() {
        // Over a rare piece of work.
        let over = [Flow::Either(3), Flow::Next, Flow::Next, Flow::Next, Flow::End];
        let executed = run_script(&over).expect("runs");
        assert_eq!((executed.counts, executed.by_data), (vec![1, 0, 0, 1, 1], 1));
        // Not to a piece of work that lies far away.
        let away = [Flow::Either(4), Flow::Next, Flow::Next, Flow::End, Flow::Next, Flow::To(1)];
        assert_eq!(run_script(&away).expect("runs").counts, [1, 1, 1, 1, 0, 0]);
        // A thread that ends early is not the one that counts.
        let ends = [Flow::Either(2), Flow::End, Flow::Next, Flow::End];
        assert_eq!(run_script(&ends).expect("runs").counts, [1, 0, 1, 1]);
        let guarded = [Flow::Either(3), Flow::Next, Flow::Next, Flow::End];
        assert_eq!(run_script(&guarded).expect("runs").counts, [1, 1, 1, 1]);
    }

    #[test]
    fn functions_return_to_where_they_were_called() {
        let flows = [Flow::Call(3), Flow::Call(3), Flow::End, Flow::Next, Flow::Return];
        assert_eq!(run_script(&flows).expect("runs").counts, [1, 1, 1, 2, 2]);
        assert!(run_script(&[Flow::Return]).is_err());
    }

    #[test]
    fn a_loop_that_depends_on_data_is_an_error() {
        let error = run_script(&[Flow::Next, Flow::Either(0), Flow::End]).expect_err("unknown");
        assert!(error.to_string().contains("a loop depends on what is not known"), "{error}");
        assert!(run_script(&[Flow::Next]).is_err());
    }
}
