//! PTX as nvcc emits it: kernels, their instructions and labels.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use super::operands::split;

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The most of a block, where the source says so.
    pub(crate) threads: Option<u32>,
    pub(crate) instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// In the file, from 1 on.
    pub(crate) line: usize,
    /// `%p1` or `!%p1`, without the `@`.
    pub(crate) guard: Option<String>,
    pub(crate) opcode: String,
    pub(crate) operands: Vec<String>,
    /// The instruction that a label among the operands stands for.
    pub(crate) target: Option<usize>,
}

impl Instruction {
    /// The opcode without what stands behind its dots.
    pub(crate) fn base(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether the opcode has this part behind a dot.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.opcode.split('.').skip(1).any(|known| known == part)
    }

    /// Whether it is a product of two words of which the upper half counts: what becomes one wide
    /// product of the machine, alone or together with the lower half. Products with a sign or with a
    /// number in the program are of places in arrays.
    pub(crate) fn is_wide_product(&self) -> bool {
        let mut factors = self.operands.iter().skip(1).take(2);
        let by_number = factors.any(|text| text.starts_with(|c: char| c.is_ascii_digit()));
        ["mul", "mad", "madc"].contains(&self.base())
            && (self.has("wide") || self.has("hi"))
            && self.has("u32")
            && !by_number
    }

    /// As it may be shown.
    pub(crate) fn show(&self) -> String {
        let guard = self.guard.as_ref().map(|guard| format!("@{guard} ")).unwrap_or_default();
        format!("line {}: {guard}{} {}", self.line, self.opcode, self.operands.join(", "))
    }
}

/// Reads a file of PTX.
pub(crate) fn parse(text: &str) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = Vec::new();
    let mut labels = HashMap::new();
    // Between the name of a kernel and its first brace stand its parameters.
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if let Some((_, rest)) = line.split_once(".entry ") {
            let name = rest.split(['(', ' ']).next().unwrap_or_default();
            let name = name.to_owned();
            functions.push(Function { name, threads: None, instructions: Vec::new() });
            inside = false;
            continue;
        }
        let place = functions.len();
        let Some(function) = functions.last_mut() else { continue };
        if !inside {
            inside = line == "{";
            if let Some(threads) = line.strip_prefix(".maxntid ") {
                let sizes = threads.split(',').map(|size| size.trim().parse::<u32>().ok());
                function.threads = sizes.product();
            }
            continue;
        }
        if line == "}" {
            // Of inline assembly, or the end.
            continue;
        }
        if let Some(label) = line.strip_suffix(':') {
            labels.insert((place, label.to_owned()), function.instructions.len());
            continue;
        }
        for statement in line.split(';') {
            let statement = statement.trim().trim_start_matches(['{', '}']).trim();
            // What follows a brace may be a list of registers and not a block.
            if !statement.is_empty() && !statement.starts_with('.') {
                function.instructions.push(instruction(number + 1, statement)?);
            }
        }
    }
    ensure!(!functions.is_empty(), "the PTX has no kernel");
    for (place, function) in functions.iter_mut().enumerate() {
        for instruction in &mut function.instructions {
            if instruction.base() == "bra" {
                let label = instruction.operands.first().context("a branch without a label")?;
                let target = labels.get(&(place + 1, label.clone()));
                let target = target.with_context(|| format!("no label {label}"))?;
                instruction.target = Some(*target);
            }
        }
    }
    Ok(functions)
}

fn instruction(line: usize, statement: &str) -> Result<Instruction> {
    let unclear = || format!("PTX of an unknown form in line {line}: {statement}");
    let (guard, rest) = match statement.strip_prefix('@') {
        Some(guarded) => {
            let (guard, rest) = guarded.split_once(char::is_whitespace).with_context(unclear)?;
            (Some(guard.to_owned()), rest.trim())
        }
        None => (None, statement),
    };
    let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    ensure!(opcode.starts_with(|c: char| c.is_ascii_lowercase()), unclear());
    Ok(Instruction {
        line,
        guard,
        opcode: opcode.to_owned(),
        operands: split(operands),
        target: None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pieces of what nvcc 13.0 emits.
    pub(crate) const KERNEL: &str = r#"
.version 9.0
.target sm_90
.visible .entry seal_columns_11(
	.param .u32 seal_columns_11_param_1,
	.param .u64 seal_columns_11_param_2
)
.maxntid 64, 1, 1
{
	.reg .pred 	%p<124>;
	.reg .b32 	%r<9389>;
	// demoted variable
	.shared .align 16 .b8 memory[24576];

	ld.param.u32 	%r534, [seal_columns_11_param_1];
	mov.u32 	%r1, %tid.x;
	setp.ge.u32 	%p1, %r1, %r534;
	@%p1 bra 	$L__BB0_50;
	mov.u64 	%rd11597, seal_constants_12;
	mov.u32 	%r9210, 0;

$L__BB0_2:
	.pragma "nounroll";
	ld.global.v4.u32 	{%r540, %r541, %r542, %r543}, [%rd730+16];
	// begin inline asm
	{ .reg .u32 t0, t1;
	mov.b64 {t0, t1}, %rd11288;
	mad.lo.cc.u32 t0, %r9146, %r8991, t0;
	madc.hi.cc.u32 t1, %r9146, %r8991, t1;
	addc.u32 %r8981, %r8981, 0;
	mov.b64 %rd11288, {t0, t1};
	}
	// end inline asm
	mul.wide.u32 	%rd900, %r540, %r541;
	mul.wide.u32 	%rd901, %r9210, 32;
	mul.wide.s32 	%rd902, %r9210, %r541;
	mad.lo.s32 	%r10, %r540, 5, %r541;
	add.s64 	%rd11597, %rd11597, 32;
	add.s32 	%r9210, %r9210, 1;
	setp.ne.s32 	%p2, %r9210, 11;
	@%p2 bra 	$L__BB0_2;

$L__BB0_50:
	ret;

}
	// .globl	other
.visible .entry other()
{
	ret;
}
"#;

    #[test]
    fn kernels_instructions_and_labels_are_read() {
        let functions = parse(KERNEL).expect("PTX");
        let names: Vec<_> = functions.iter().map(|f| (&*f.name, f.instructions.len())).collect();
        assert_eq!(names, [("seal_columns_11", 21), ("other", 1)]);
        assert_eq!((functions[0].threads, functions[1].threads), (Some(64), None));
        let instructions = &functions[0].instructions;
        assert_eq!(instructions[3].guard.as_deref(), Some("%p1"));
        assert_eq!(instructions[3].target, Some(20));
        assert_eq!(instructions[6].operands, ["{%r540, %r541, %r542, %r543}", "[%rd730+16]"]);
        assert_eq!(instructions[7].show(), "line 27: mov.b64 {t0, t1}, %rd11288");
        let wide: Vec<_> =
            instructions.iter().filter(|i| i.is_wide_product()).map(|i| &*i.opcode).collect();
        assert_eq!(wide, ["madc.hi.cc.u32", "mul.wide.u32"]);
        assert_eq!(instructions[19].target, Some(6));
    }

    #[test]
    fn what_is_no_ptx_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse(&KERNEL.replace("bra \t$L__BB0_2;", "bra \t$L__BB0_3;")).is_err());
        assert!(parse(&KERNEL.replace("ret;", "%r1;")).is_err());
    }
}
