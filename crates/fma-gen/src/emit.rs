//! The generated file: constants and one function for each routine.

use std::fmt::Write;

use crate::allocate::text;
use crate::builder::Constants;
use crate::program::{Count, Part, Routine};

/// What a part of the generator gives: routines, and tables of offsets by their names.
pub(crate) struct Output {
    pub(crate) routines: Vec<Routine>,
    pub(crate) tables: Vec<Table>,
}

/// A constant array of the generated file.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) numbers: Vec<u64>,
}

/// The text of a file.
pub(crate) fn file(about: &str, routines: impl FnOnce(&mut Constants) -> Output) -> String {
    let mut constants = Constants::default();
    let Output { routines, tables } = routines(&mut constants);
    let mut out = String::new();
    write_file(&mut out, about, &constants, &routines, &tables).expect("a string takes all");
    out
}

fn write_file(
    out: &mut String,
    about: &str,
    constants: &Constants,
    routines: &[Routine],
    tables: &[Table],
) -> std::fmt::Result {
    writeln!(out, "//! {about} Written by `fma-gen`, not by hand: see there.\n")?;
    writeln!(out, "use std::arch::asm;\n")?;
    writeln!(out, "/// Constants in all lanes, by their bits.")?;
    writeln!(out, "#[repr(C, align(32))]")?;
    writeln!(out, "struct Constants([[u64; 4]; {}]);\n", constants.patterns.len())?;
    writeln!(out, "#[rustfmt::skip]")?;
    writeln!(out, "static CONSTANTS: Constants = Constants([")?;
    for pattern in &constants.patterns {
        writeln!(out, "    [0x{pattern:016x}; 4],")?;
    }
    writeln!(out, "]);")?;
    for Table { name, about, numbers } in tables {
        writeln!(out, "\n/// {about}")?;
        writeln!(out, "#[rustfmt::skip]")?;
        writeln!(out, "pub(super) const {name}: [u64; {}] = [", numbers.len())?;
        for number in numbers {
            writeln!(out, "    0x{number:016x},")?;
        }
        writeln!(out, "];")?;
    }
    for routine in routines {
        let name = routine.name.to_uppercase();
        let operations = operations(&routine.body);
        writeln!(
            out,
            "\n/// Vector operations of [`{}`], for each turn of a count.",
            routine.name
        )?;
        writeln!(out, "pub(super) const {name}_OPERATIONS: u64 = {operations};")?;
    }
    for routine in routines {
        write_routine(out, routine)?;
    }
    Ok(())
}

fn write_routine(out: &mut String, routine: &Routine) -> std::fmt::Result {
    let text = text(routine);
    writeln!(out)?;
    for line in routine.about {
        writeln!(out, "{}", format!("/// {line}").trim_end())?;
    }
    let counted = instructions(&routine.body);
    writeln!(
        out,
        "///\n/// {counted} instructions, {} registers, nothing spilled.",
        text.registers
    )?;
    writeln!(out, "///\n/// # Safety")?;
    writeln!(
        out,
        "/// The processor has AVX2 and FMA and rounds to nearest, and pointers are to as"
    )?;
    writeln!(out, "/// many values as are read and written.")?;
    writeln!(out, "#[rustfmt::skip]")?;
    writeln!(out, "#[target_feature(enable = \"avx2,fma\")]")?;
    let arguments: Vec<_> =
        routine.arguments.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
    writeln!(out, "pub(super) unsafe fn {}({}) {{", routine.name, arguments.join(", "))?;
    writeln!(
        out,
        "    // SAFETY: by what the function asks for. All registers and flags that are"
    )?;
    writeln!(out, "    // changed are named, and the stack is not used.")?;
    writeln!(out, "    unsafe {{\n        asm!(")?;
    for line in &text.lines {
        writeln!(out, "            {line:?},")?;
    }
    writeln!(out, "            \"vzeroupper\",")?;
    for (name, kind) in routine.arguments {
        let form = if kind.starts_with('*') { "inout(reg)" } else { "in(reg)" };
        let end = if kind.starts_with('*') { " => _" } else { "" };
        writeln!(out, "            {name} = {form} {name}{end},")?;
    }
    writeln!(out, "            constants = in(reg) &raw const CONSTANTS,")?;
    for place in 0..text.counters {
        writeln!(out, "            count{place} = out(reg) _,")?;
    }
    for place in 0..text.saved {
        writeln!(out, "            saved{place} = out(reg) _,")?;
    }
    for register in 0..text.registers {
        writeln!(out, "            out(\"ymm{register}\") _,")?;
    }
    writeln!(out, "            options(nostack),\n        );\n    }}\n}}")
}

/// Instructions that a vector unit executes: all but loads, stores and copies. A loop counts as
/// often as it runs, and once where an argument decides.
fn operations(parts: &[Part]) -> u64 {
    parts
        .iter()
        .map(|part| match part {
            Part::Instruction(instruction) => u64::from(instruction.is_operation()),
            Part::Loop(inner) => {
                let times = match inner.count {
                    Count::Fixed(times) => u64::from(times),
                    Count::Argument(_) => 1,
                };
                times * operations(&inner.body)
            }
        })
        .sum()
}

fn instructions(parts: &[Part]) -> usize {
    parts
        .iter()
        .map(|part| match part {
            Part::Instruction(_) => 1,
            Part::Loop(inner) => instructions(&inner.body),
        })
        .sum()
}
