//! What ptxas says of each kernel: registers, shared memory, stack, spills.

use anyhow::{Context, Result, bail};

/// What ptxas says of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Such as 90.
    pub(crate) architecture: u32,
    pub(crate) registers: u32,
    /// Bytes of a block.
    pub(crate) shared: u32,
    pub(crate) stack: u32,
    pub(crate) spilled: u32,
}

/// Reads the lines that ptxas prints with `-v`.
pub(crate) fn parse(text: &str) -> Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut words = rest.split('\'');
            let (name, architecture) = (words.next(), words.nth(1));
            let number = architecture.and_then(|name| name.strip_prefix("sm_")?.parse().ok());
            let (Some(name), Some(architecture)) = (name, number) else {
                bail!("nvcc's report has an unknown form: {line}");
            };
            kernels.push(Kernel {
                name: name.to_owned(),
                architecture,
                registers: 0,
                shared: 0,
                stack: 0,
                spilled: 0,
            });
            continue;
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        let before = |what: &str| -> Option<u32> {
            let (text, _) = line.split_once(what)?;
            text.split([' ', ',']).rfind(|word| !word.is_empty())?.parse().ok()
        };
        if let Some(stack) = before(" bytes stack frame") {
            let spilled = before(" bytes spill stores").zip(before(" bytes spill loads"));
            let (stores, loads) =
                spilled.with_context(|| format!("nvcc's report has an unknown form: {line}"))?;
            (kernel.stack, kernel.spilled) = (stack, stores + loads);
        } else if let Some(registers) = before(" registers") {
            kernel.registers = registers;
            kernel.shared = before(" bytes smem").unwrap_or(0);
        }
    }
    if let Some(kernel) = kernels.iter().find(|kernel| kernel.registers == 0) {
        bail!("nvcc's report says nothing of the registers of {}", kernel.name);
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem, 22412 bytes cmem[3]
ptxas info    : Compiling entry function 'seal_rows_8' for 'sm_90'
ptxas info    : Function properties for seal_rows_8
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers, 36864 bytes smem
ptxas info    : Compile time = 615.860 ms
ptxas info    : Compiling entry function 'seal_columns_11' for 'sm_90'
ptxas info    : Function properties for seal_columns_11
    104 bytes stack frame, 32 bytes spill stores, 36 bytes spill loads
ptxas info    : Used 167 registers, used 0 barriers, 104 bytes cumulative stack size, 49152 bytes smem
";

    #[test]
    fn registers_stack_and_spills_are_read() {
        let kernels = parse(REPORT).expect("a report");
        let numbers: Vec<_> = kernels
            .iter()
            .map(|k| (&*k.name, k.architecture, k.registers, k.shared, k.stack, k.spilled))
            .collect();
        assert_eq!(
            numbers,
            [("seal_rows_8", 90, 128, 36864, 0, 0), ("seal_columns_11", 90, 167, 49152, 104, 68)]
        );
    }

    #[test]
    fn a_report_of_another_form_is_an_error() {
        let cut = REPORT.replace("Used 128 registers", "Used some registers");
        assert!(parse(&cut).is_err());
        let cut = REPORT.replace("36 bytes spill loads", "");
        assert!(parse(&cut).is_err());
        assert!(parse(&REPORT.replace("'sm_90'", "'gfx90'")).is_err());
    }
}
