//! Machine code as nvdisasm prints it.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};

use super::operands::split;

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) instructions: Vec<Instruction>,
    /// The constants that the compiler has laid beside it, by the number of their bank.
    pub(crate) constants: BTreeMap<u8, Vec<u8>>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Its place in the function, in bytes.
    pub(crate) address: u32,
    /// `P0` or `!UP1`, without the `@`.
    pub(crate) guard: Option<String>,
    /// With all that stands behind its dots.
    pub(crate) opcode: String,
    pub(crate) operands: Vec<String>,
    /// The instruction that a label among the operands stands for.
    pub(crate) target: Option<usize>,
}

/// Bytes of an instruction, from compute capability 7.0 on.
pub(crate) const INSTRUCTION_BYTES: usize = 16;

impl Instruction {
    /// The opcode without what stands behind its dots.
    pub(crate) fn base(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether the opcode has this part behind a dot.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.opcode.split('.').skip(1).any(|known| known == part)
    }

    /// An operand, without a register's mark that it will be used again.
    pub(crate) fn operand(&self, number: usize) -> &str {
        let operand = self.operands.get(number).map_or("", String::as_str);
        operand.strip_suffix(".reuse").unwrap_or(operand)
    }

    /// As it may be shown.
    pub(crate) fn show(&self) -> String {
        let guard = self.guard.as_ref().map(|guard| format!("@{guard} ")).unwrap_or_default();
        format!("{:#06x}: {guard}{} {}", self.address, self.opcode, self.operands.join(", "))
    }
}

/// Where a line stands.
enum Place {
    Code,
    /// Constants of a bank, of the kernel of this name.
    Constants(u8, String),
    Elsewhere,
}

/// Reads what `nvdisasm` prints.
pub(crate) fn parse(text: &str) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = Vec::new();
    let mut labels: HashMap<String, usize> = HashMap::new();
    let mut constants: HashMap<(String, u8), Vec<u8>> = HashMap::new();
    let mut place = Place::Elsewhere;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':').filter(|line| line.starts_with('.')) {
            if let Some(name) = label.strip_prefix(".text.") {
                resolve(functions.last_mut(), &labels)?;
                labels.clear();
                place = Place::Code;
                functions.push(Function {
                    name: name.to_owned(),
                    instructions: Vec::new(),
                    constants: BTreeMap::new(),
                });
            } else if let Some((bank, name)) = constants_of(label) {
                place = Place::Constants(bank, name.to_owned());
            } else if let Some(function) = functions.last().filter(|_| matches!(place, Place::Code))
            {
                labels.insert(label.to_owned(), function.instructions.len());
            }
        } else if line.starts_with(".section") {
            place = Place::Elsewhere;
        } else if line.starts_with("/*") {
            match &place {
                Place::Code => {
                    let function =
                        functions.last_mut().context("machine code outside a function")?;
                    function.instructions.push(instruction(line)?);
                }
                Place::Constants(bank, name) => {
                    constants.entry((name.clone(), *bank)).or_default().extend(bytes(line)?);
                }
                Place::Elsewhere => {}
            }
        }
    }
    resolve(functions.last_mut(), &labels)?;
    ensure!(!functions.is_empty(), "the disassembly has no function");
    for ((name, bank), bytes) in constants {
        if let Some(function) = functions.iter_mut().find(|function| function.name == name) {
            function.constants.insert(bank, bytes);
        }
    }
    Ok(functions)
}

/// The bank and the kernel of `.nv.constant2.NAME`. Bank 0 has what a kernel is called with.
fn constants_of(label: &str) -> Option<(u8, &str)> {
    let (bank, name) = label.strip_prefix(".nv.constant")?.split_once('.')?;
    Some((bank.parse().ok().filter(|bank| *bank > 0)?, name))
}

/// The bytes of `/*0010*/ .byte 0x30, 0xe4`.
fn bytes(line: &str) -> Result<Vec<u8>> {
    let unclear = || format!("constants of an unknown form: {line}");
    let (_, list) = line.split_once(".byte").with_context(unclear)?;
    let byte = |text: &str| u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    list.split(',').map(byte).collect::<Option<_>>().with_context(unclear)
}

fn instruction(line: &str) -> Result<Instruction> {
    let unclear = || format!("machine code of an unknown form: {line}");
    let (address, rest) =
        line.strip_prefix("/*").and_then(|l| l.split_once("*/")).with_context(unclear)?;
    let address = u32::from_str_radix(address.trim(), 16).ok().with_context(unclear)?;
    // Notes stand behind the end.
    let rest = rest.split("(*").next().unwrap_or_default();
    let rest = rest.trim().trim_end_matches(';').trim();
    let (guard, rest) = match rest.strip_prefix('@') {
        Some(guarded) => {
            let (guard, rest) = guarded.split_once(' ').with_context(unclear)?;
            (Some(guard.to_owned()), rest.trim())
        }
        None => (None, rest),
    };
    let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
    ensure!(opcode.starts_with(|c: char| c.is_ascii_uppercase()), unclear());
    Ok(Instruction {
        address,
        guard,
        opcode: opcode.to_owned(),
        operands: split(operands),
        target: None,
    })
}

/// Gives each branch its target. Labels of other functions stay unknown.
fn resolve(function: Option<&mut Function>, labels: &HashMap<String, usize>) -> Result<()> {
    let Some(function) = function else { return Ok(()) };
    ensure!(!function.instructions.is_empty(), "{} has no machine code", function.name);
    for instruction in &mut function.instructions {
        let label = instruction
            .operands
            .iter()
            .filter_map(|operand| operand.strip_prefix("`(")?.strip_suffix(')'))
            .find_map(|label| labels.get(label));
        instruction.target = label.copied();
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pieces of what nvdisasm 13.2 prints of a kernel for compute 9.0.
    pub(crate) const KERNEL: &str = r#"
//--------------------- .text.seal_generate       --------------------------
	.section	.text.seal_generate,"ax",@progbits
	.sectionflags	@"SHF_BARRIERS=1"
	.align	128
.text.seal_generate:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R9, SR_TID.X ;
        /*0020*/                   ISETP.GE.U32.AND P0, PT, R9, UR5, PT ;
        /*0030*/               @P0 EXIT ;
        /*0040*/                   CS2R R2, SRZ ;
        /*0050*/                   IMAD.MOV.U32 R26, RZ, RZ, RZ ;
.L_x_1:
        /*0060*/                   IMAD.SHL.U32 R4, R26.reuse, 0x80, RZ ;
        /*0070*/                   LDC.64 R54, c[0x3][R4+0x1620] ;
        /*0080*/                   VIADD R26, R26, 0x1 ;
        /*0090*/                   IMAD.WIDE.U32 R18, P1, R8, R54, R18 ;
        /*00a0*/                   ISETP.GE.U32.AND P3, PT, R26, 0xc, PT ;
        /*00b0*/                   STG.E.128 desc[UR8][R4.64+0x10], R20 ;
        /*00c0*/              @!P3 BRA `(.L_x_1) ;
        /*00d0*/                   EXIT ;
.L_x_2:
        /*00e0*/                   BRA `(.L_x_2);
        /*00f0*/                   NOP;
.L_x_3:
"#;

    #[test]
    fn instructions_guards_operands_and_labels_are_read() {
        let functions = parse(KERNEL).expect("machine code");
        assert_eq!(functions.len(), 1);
        let Function { name, instructions, .. } = &functions[0];
        assert_eq!((&**name, instructions.len()), ("seal_generate", 16));
        assert_eq!(instructions[3].guard.as_deref(), Some("P0"));
        assert_eq!(instructions[6].operand(1), "R26");
        assert_eq!(instructions[7].operands, ["R54", "c[0x3][R4+0x1620]"]);
        assert_eq!(instructions[11].operands, ["desc[UR8][R4.64+0x10]", "R20"]);
        assert_eq!(instructions[12].target, Some(6));
        assert_eq!(instructions[12].show(), "0x00c0: @!P3 BRA `(.L_x_1)");
        assert_eq!(instructions[15].opcode, "NOP");
        assert!(instructions[9].has("WIDE") && instructions[9].base() == "IMAD");
    }

    #[test]
    fn constants_are_those_of_their_kernel_and_other_sections_are_left_out() {
        let text = "\
\t.section\t.debug_frame,\"\",@progbits
        /*0000*/ \t.byte\t0xff
\t.section\t.nv.constant2.f,\"a\",@progbits
.nv.constant2.f:
        /*0000*/ \t.byte\t0xa0, 0x24, 0x00, 0x00
        /*0004*/ \t.byte\t0x40, 0xa1, 0x00, 0x00
\t.section\t.nv.constant0.f,\"a\",@progbits
.nv.constant0.f:
\t.zero\t\t464
\t.section\t.text.f,\"ax\",@progbits
f:
.text.f:
        /*0000*/                   EXIT ;
";
        let functions = parse(text).expect("machine code");
        assert_eq!(functions[0].instructions.len(), 1);
        let expected = BTreeMap::from([(2, vec![0xa0, 0x24, 0, 0, 0x40, 0xa1, 0, 0])]);
        assert_eq!(functions[0].constants, expected);
    }

    #[test]
    fn tables_of_jumps_are_read() {
        let line = r#"/*0170*/  BRX R2 -0x180  (*"BRANCH_TARGETS .L_x_109,.L_x_110,.L_x_17"*);"#;
        let brx = instruction(line).expect("a branch");
        assert_eq!((&*brx.opcode, brx.operands.len()), ("BRX", 1));
    }

    #[test]
    fn what_is_no_machine_code_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse(".text.f:\n.text.g:\n  /*0000*/ EXIT ;").is_err());
        assert!(parse(".text.f:\n  /*zz*/ EXIT ;").is_err());
        assert!(parse(".text.f:\n  /*0000*/ 0x123 ;").is_err());
        assert!(parse("/*0000*/ EXIT ;").is_err());
        assert!(parse(".nv.constant2.f:\n/*0000*/ .word 0x1\n.text.f:\n/*0000*/ EXIT ;").is_err());
    }
}
