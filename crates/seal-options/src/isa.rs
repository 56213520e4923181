//! Names of instructions that kernels are made of, as `SEAL_FORCE_ISA` takes them.
//!
//! Users set the name for all executors of a machine, so each takes the names of all: one that is
//! of no kernel of its own is said to do nothing, and the fastest kernel computes.

use seal_types::Stage;

use crate::{Environment, Fault, Source};

/// The setting.
pub(crate) const FORCE_ISA: &str = "SEAL_FORCE_ISA";

/// What a value of the setting has to be, for every executor.
pub(crate) const FORM: &str = "portable, shani, avx2, avx512, fma or ifma";

/// Instructions by which some kernel is chosen.
struct Isa {
    name: &'static str,
    /// The stages whose executors have such kernels.
    of: &'static [Stage],
    /// What the processor has to have, by its names in `/proc/cpuinfo`.
    needs: &'static [&'static str],
}

const ALL: [Isa; 6] = [
    Isa { name: "portable", of: &Stage::ALL, needs: &[] },
    Isa { name: "shani", of: &[Stage::Pc1], needs: &["sha_ni"] },
    Isa { name: "avx2", of: &[Stage::Pc1], needs: &["avx2"] },
    Isa { name: "avx512", of: &[Stage::Pc1], needs: &["avx512f"] },
    Isa { name: "fma", of: &[Stage::Pc2], needs: &["avx2", "fma"] },
    Isa { name: "ifma", of: &[Stage::Pc2, Stage::C2], needs: &["avx512f", "avx512ifma"] },
];

fn find(text: &str) -> Option<&'static Isa> {
    ALL.iter().find(|isa| isa.name == text.trim())
}

/// What the executor of `stage` makes of a value: the name of a kernel of its own, or none where
/// it is one of others; `None` if nobody knows the name.
pub(crate) fn own(stage: Stage, text: &str) -> Option<Option<&'static str>> {
    find(text).map(|isa| isa.of.contains(&stage).then_some(isa.name))
}

/// A value of `SEAL_FORCE_ISA` that says nothing of the kernels of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleIsa {
    /// The stage of the executor.
    pub stage: Stage,
    /// The value.
    pub name: &'static str,
    of: &'static [Stage],
}

impl IdleIsa {
    /// What can be done about it.
    pub fn remedy(&self) -> String {
        let own = ALL.iter().filter(|isa| isa.of.contains(&self.stage)).map(|isa| isa.name);
        format!("leave {FORCE_ISA} out here, or write {}", one_of(&own.collect::<Vec<_>>()))
    }
}

impl std::fmt::Display for IdleIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let others: Vec<_> = self.of.iter().map(|stage| stage.executor()).collect();
        write!(
            f,
            "{FORCE_ISA}={:?} does nothing here: it names instructions of {}; {} takes the fastest \
             that it has",
            self.name,
            others.join(" and "),
            self.stage.executor()
        )
    }
}

/// `a, b or c`.
fn one_of(names: &[&str]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => names.concat(),
    }
}

impl Environment {
    /// The instructions that the executor of `stage` is told to compute with, known or not; none
    /// where the name is one of other executors.
    pub fn isa(&self, stage: Stage) -> Option<&str> {
        let text = self.get(FORCE_ISA).map(str::trim).filter(|text| !text.is_empty())?;
        own(stage, text).is_none_or(|own| own.is_some()).then_some(text)
    }

    /// What is to be said where the executor of `stage` is told of instructions that none of its
    /// kernels is made of.
    pub fn idle_isa(&self, stage: Stage) -> Option<IdleIsa> {
        let Isa { name, of, .. } = find(self.get(FORCE_ISA)?)?;
        (!of.contains(&stage)).then_some(IdleIsa { stage, name, of })
    }

    /// What is wrong where the executor of `stage` is told to compute with instructions that the
    /// processor lacks. `has` knows what it has by the names in `/proc/cpuinfo`, or does not.
    pub fn lacking_isa(&self, stage: Stage, has: impl Fn(&str) -> Option<bool>) -> Option<Fault> {
        let isa = find(self.get(FORCE_ISA)?).filter(|isa| isa.of.contains(&stage))?;
        let is_lacking = |name: &&str| has(name) == Some(false);
        let lacking: Vec<_> = isa.needs.iter().copied().filter(is_lacking).collect();
        let there = |isa: &&Isa| isa.of.contains(&stage) && !isa.needs.iter().any(is_lacking);
        let there: Vec<_> = ALL.iter().filter(there).map(|isa| isa.name).collect();
        (!lacking.is_empty()).then(|| Fault {
            source: Source::Variable(FORCE_ISA),
            value: Some(isa.name.to_owned()),
            reason: format!("the processor lacks {}", lacking.join(" and ")),
            remedy: format!("write {}, or leave it out", one_of(&there)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, rows_of};

    #[test]
    fn every_executor_takes_the_names_of_all_and_warns_of_those_that_say_nothing_of_it() {
        for stage in Stage::ALL {
            for isa in &ALL {
                let environment = Environment::of(&[(FORCE_ISA, isa.name)]);
                let (settings, faults) = Options::look(stage, &[], &environment);
                assert!(faults.is_empty(), "{stage} {}: {faults:?}", isa.name);
                let taken = match settings {
                    Options::Pc1(pc1) => pc1.isa,
                    Options::Pc2(pc2) => pc2.isa,
                    Options::C2(c2) => c2.isa,
                };
                let own = isa.of.contains(&stage).then_some(isa.name);
                assert_eq!((taken, environment.isa(stage)), (own, own), "{stage}");
                assert_eq!(environment.idle_isa(stage).is_some(), own.is_none(), "{stage}");
            }
        }
        let environment = Environment::of(&[(FORCE_ISA, " fma ")]);
        let idle = environment.idle_isa(Stage::Pc1).expect("PC1 has no such kernel");
        assert_eq!(
            idle.to_string(),
            "SEAL_FORCE_ISA=\"fma\" does nothing here: it names instructions of pc2-exec; \
             pc1-exec takes the fastest that it has"
        );
        assert_eq!(
            idle.remedy(),
            "leave SEAL_FORCE_ISA out here, or write portable, shani, avx2 or avx512"
        );
    }

    #[test]
    fn what_nobody_knows_is_refused_by_all_with_all_names() {
        let environment = Environment::of(&[(FORCE_ISA, "mmx")]);
        for stage in Stage::ALL {
            let (_, faults) = Options::look(stage, &[], &environment);
            let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
            let expected = format!(
                "SEAL_FORCE_ISA=\"mmx\": it has to be {FORM}; write {FORM}, or leave it out"
            );
            assert_eq!(told, [expected]);
            assert_eq!((environment.isa(stage), environment.idle_isa(stage)), (Some("mmx"), None));
            let about = rows_of(stage).into_iter().find(|about| about.variable == Some(FORCE_ISA));
            assert_eq!(about.map(|about| about.form), Some(FORM));
        }
        assert_eq!(one_of(&ALL.map(|isa| isa.name)), FORM);
        let unset = Environment::of(&[(FORCE_ISA, " ")]);
        assert_eq!((unset.isa(Stage::Pc2), unset.idle_isa(Stage::Pc2)), (None, None));
    }

    #[test]
    fn what_the_processor_lacks_is_told_to_those_whom_it_stops() {
        let zen3 = |name: &str| Some(["sha_ni", "avx2", "fma"].contains(&name));
        let lacking = |stage, name: &str| {
            let fault = Environment::of(&[(FORCE_ISA, name)]).lacking_isa(stage, zen3);
            fault.map(|fault| fault.to_string())
        };
        assert_eq!(
            lacking(Stage::Pc2, "ifma").as_deref(),
            Some(
                "SEAL_FORCE_ISA=\"ifma\": the processor lacks avx512f and avx512ifma; write \
                 portable or fma, or leave it out"
            )
        );
        assert_eq!(
            lacking(Stage::Pc1, "avx512").as_deref(),
            Some(
                "SEAL_FORCE_ISA=\"avx512\": the processor lacks avx512f; write portable, shani or \
                 avx2, or leave it out"
            )
        );
        // It does nothing there, or is there, or is a fault of another kind.
        for (stage, name) in [
            (Stage::Pc1, "ifma"),
            (Stage::Pc2, "fma"),
            (Stage::Pc2, "portable"),
            (Stage::Pc2, "mmx"),
            (Stage::Pc2, ""),
        ] {
            assert_eq!(lacking(stage, name), None, "{stage} {name}");
        }
        let without = Environment::of(&[(FORCE_ISA, "fma")]);
        let old = without.lacking_isa(Stage::Pc2, |name| Some(name == "avx2"));
        assert!(old.is_some_and(|fault| fault.reason == "the processor lacks fma"));
        assert_eq!(without.lacking_isa(Stage::Pc2, |_| None), None);
    }
}
