//! Instructions that touch memory, from their names to what is executed.

use crate::decode::{Decoder, Given};
use crate::fault::TextFault;
use crate::op::{Base, Op, Place, Space};
use crate::parse::{Class, Operand, Register};

impl Decoder {
    /// Loads, stores and what else touches memory.
    pub(crate) fn memory(
        &mut self,
        given: &Given<'_>,
        name: &str,
    ) -> Result<Option<Op>, TextFault> {
        let parts: Vec<_> = name.split('.').collect();
        let (stored, rest) = match parts[..] {
            ["ld", ref rest @ ..] => (false, rest),
            ["st", ref rest @ ..] => (true, rest),
            ["atom" | "red", "global", "min", "u64"] => {
                let red = name.starts_with("red");
                given.operands(3 - usize::from(red))?;
                let at = usize::from(!red);
                let d = match given.at(0)? {
                    _ if red => None,
                    Operand::Sink => None,
                    _ => Some(self.to_double(given, 0)?),
                };
                let (base, offset) = self.address(given, at)?;
                let a = self.double(given, at + 1)?;
                return Ok(Some(Op::AtomicMinimum { d, a, base, offset }));
            }
            _ => return Ok(None),
        };
        let space = match rest.first() {
            Some(&"global") => Space::Global,
            Some(&"const") => Space::Constant,
            Some(&"shared") => Space::Shared,
            Some(&"local") => Space::Local,
            Some(&"param") => Space::Parameter,
            _ => return Ok(None),
        };
        // `nc`: through the cache for what nobody writes.
        let rest: Vec<_> = rest[1..].iter().copied().filter(|part| *part != "nc").collect();
        let (count, kind) = match rest[..] {
            [kind] => (1, kind),
            ["v2", kind] => (2, kind),
            ["v4", kind] => (4, kind),
            ["v8", kind] => (8, kind),
            _ => return Ok(None),
        };
        let class = match kind {
            "b32" | "u32" | "s32" => Class::Word,
            "b64" | "u64" | "s64" | "f64" => Class::Double,
            _ => return Ok(None),
        };
        given.operands(2)?;
        let (values, address) = if stored { (1, 0) } else { (0, 1) };
        let (base, offset) = self.address(given, address)?;
        let (places, found, halves) = self.values(given, values, class, stored)?;
        if kind == "s32" && !stored && halves {
            return Err(given.fault("a sign would be filled up"));
        }
        if found != count {
            return Err(given.fault(format!("{found} registers where {count} belong")));
        }
        Ok(Some(if stored {
            if matches!(space, Space::Constant | Space::Parameter) {
                return Err(given.fault("nothing can be stored there"));
            }
            Op::Store { space, from: places.into(), base, offset }
        } else {
            Op::Load { space, to: places.into(), halves, base, offset }
        }))
    }

    /// `[base+offset]`.
    fn address(&self, given: &Given<'_>, i: usize) -> Result<(Base, i64), TextFault> {
        let Operand::Address(base, offset) = given.at(i)? else {
            return Err(given.fault("an address belongs here"));
        };
        Ok(match &**base {
            Operand::Register(Register { class: Class::Double, number }) => {
                (Base::Double(self.halves(*number)), *offset)
            }
            Operand::Register(Register { class: Class::Word, number }) => {
                (Base::Word(*number), *offset)
            }
            Operand::Name(name) => {
                let address = self.address_of(given, name)?;
                (Base::Zero, offset.wrapping_add_unsigned(address))
            }
            Operand::Number(number) => (Base::Zero, offset.wrapping_add_unsigned(*number)),
            other => return Err(given.fault(format!("{other:?} is no address"))),
        })
    }

    /// What is loaded or stored, `class` of it: one register or a list. And how many there are,
    /// and whether they are registers of 64 bits for words: their lower halves are stored, and
    /// filled up where they are loaded.
    fn values(
        &mut self,
        given: &Given<'_>,
        i: usize,
        class: Class,
        stored: bool,
    ) -> Result<(Vec<Place>, usize, bool), TextFault> {
        let operands = match given.at(i)? {
            Operand::List(list) => list.clone(),
            other => vec![other.clone()],
        };
        let wide = class == Class::Word
            && operands.iter().all(
                |o| matches!(o, Operand::Register(register) if register.class == Class::Double),
            );
        let mut places = Vec::new();
        for operand in &operands {
            match (operand, class) {
                (Operand::Register(Register { class: Class::Double, number }), _)
                    if wide || class == Class::Double =>
                {
                    let [low, high] = self.halves(*number);
                    places.push(low);
                    if !(wide && stored) {
                        places.push(high);
                    }
                }
                (Operand::Register(Register { class: Class::Word, number }), Class::Word) => {
                    places.push(*number);
                }
                (Operand::Number(value), Class::Word) if stored => {
                    places.push(self.word_number(*value as u32));
                }
                (Operand::Number(value), Class::Double) if stored => {
                    places.extend(self.double_number(*value));
                }
                (other, _) => {
                    return Err(given.fault(format!("{other:?} cannot be loaded or stored here")));
                }
            }
        }
        Ok((places, operands.len(), wide))
    }
}
