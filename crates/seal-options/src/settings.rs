//! Reading the settings of an executor from its command line and environment.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use seal_types::Stage;

use crate::common::{self, Common};
use crate::row::{About, Row, Unset};
use crate::{Environment, Fault, Source};

/// Where each setting was made, by its option or name of the environment.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<&'static str, Source>);

impl Sources {
    /// Where the setting of this option or name of the environment was made, if it was.
    pub(crate) fn of(&self, name: &'static str) -> Option<&Source> {
        self.0.get(name)
    }
}

/// The settings of an executor.
pub trait Settings: Default + Send + Sync + Sized + 'static {
    /// The stage that the executor serves.
    const STAGE: Stage;

    /// Its table.
    fn rows() -> &'static [Row<Self>];

    /// The settings that all executors have.
    fn common(&mut self) -> &mut Common;

    /// What follows from several settings together. `sources` says where each was made.
    fn finish(&mut self, sources: &Sources, environment: &Environment, faults: &mut Vec<Fault>);

    /// The command line by which it serves; `about` says what it is for.
    fn command(about: &'static str) -> Command {
        let stage = Self::STAGE;
        let processor = Command::new("processor")
            .about("Serve requests, as venus-worker starts an external processor")
            .arg(
                Arg::new("stage")
                    .value_name("STAGE")
                    .required(true)
                    .help(format!("The stage; only {stage} is served here")),
            );
        let add = |command: Command, everywhere: bool| {
            Self::abouts().filter(|about| about.option.is_some()).fold(command, |command, about| {
                match (about.everywhere, everywhere) {
                    (true, false) => command,
                    (global, _) => command.arg(argument(about).global(global)),
                }
            })
        };
        // Options of serving may stand before `processor` and after it.
        add(Command::new(stage.executor()), true)
            .about(about)
            .max_term_width(100)
            .subcommand(add(processor, false))
    }

    /// What is said of each setting.
    fn abouts() -> impl Iterator<Item = &'static About> {
        let own = Self::rows().iter().map(|row| &row.about);
        own.chain(common::ROWS.iter().map(|row| &row.about))
    }

    /// The settings, of parsed arguments and an environment: an option overrides the environment,
    /// and that the default. All faults are found; a setting that has one is as if it were not
    /// made.
    fn read(matches: &ArgMatches, environment: &Environment) -> (Self, Vec<Fault>) {
        let mut settings = Self::default();
        let (sources, faults) = (Sources::default(), Vec::new());
        let mut reading = Reading { matches, environment, sources, faults };
        for row in common::ROWS {
            reading.read(&row.about, Self::abouts(), |value| (row.set)(settings.common(), value));
        }
        for row in Self::rows() {
            reading.read(&row.about, Self::abouts(), |value| (row.set)(&mut settings, value));
        }
        let Reading { sources, mut faults, .. } = reading;
        settings.finish(&sources, environment, &mut faults);
        (settings, faults)
    }
}

impl Common {
    /// What an environment says of the settings that all executors have, for programs that are none.
    pub fn of(environment: &Environment) -> Result<Self, Vec<Fault>> {
        let mut common = Self::default();
        let matches = ArgMatches::default();
        let (sources, faults) = (Sources::default(), Vec::new());
        let mut reading = Reading { matches: &matches, environment, sources, faults };
        for row in common::ROWS {
            let all = common::ROWS.iter().map(|row| &row.about);
            reading.read(&row.about, all, |value| (row.set)(&mut common, value));
        }
        if reading.faults.is_empty() { Ok(common) } else { Err(reading.faults) }
    }
}

fn argument(about: &About) -> Arg {
    let help = match about.default {
        Unset::Value(value) => format!("{} [default: {value}]", about.meaning),
        Unset::Else(what) => format!("{} [default: {what}]", about.meaning),
        Unset::Nothing => about.meaning.to_owned(),
    };
    let argument = Arg::new(about.id()).long(about.id()).help(help);
    let argument = about.aliases.iter().fold(argument, |argument, alias| argument.alias(*alias));
    match (about.value, about.repeats) {
        (Some(name), true) => argument.value_name(name).action(ArgAction::Append),
        (Some(name), false) => argument.value_name(name).action(ArgAction::Set),
        (None, _) => argument.action(ArgAction::SetTrue),
    }
}

struct Reading<'a> {
    matches: &'a ArgMatches,
    environment: &'a Environment,
    sources: Sources,
    faults: Vec<Fault>,
}

impl Reading<'_> {
    /// Finds the value of a setting and gives it to `set`.
    fn read(
        &mut self,
        about: &'static About,
        all: impl Iterator<Item = &'static About>,
        mut set: impl FnMut(&str) -> Option<()>,
    ) {
        if let Unset::Value(value) = about.default {
            let is_taken = set(value).is_some();
            debug_assert!(is_taken, "{value:?} is a good default");
        }
        let Some((source, value)) = self.given(about, all) else { return };
        if set(&value).is_none() {
            self.faults.push(Fault::not_of_form(source.clone(), &value, about.form));
        }
        for name in [about.option, about.variable].into_iter().flatten() {
            self.sources.0.insert(name, source.clone());
        }
    }

    fn given(
        &self,
        about: &'static About,
        mut all: impl Iterator<Item = &'static About>,
    ) -> Option<(Source, String)> {
        if let (Some(option), Some(value)) = (about.option, self.option(about)) {
            return Some((Source::Option(option), value));
        }
        let name = about.variable?;
        let together = about.together.is_some();
        if together
            && all.any(|other| other.together == about.together && self.option(other).is_some())
        {
            return None;
        }
        let value = self.environment.get(name)?;
        let is_set = about.empty_is_a_value || !value.trim().is_empty();
        is_set.then(|| (Source::Variable(name), value.to_owned()))
    }

    /// What was given by an option, before or after `processor`.
    fn option(&self, about: &About) -> Option<String> {
        about.option?;
        let of_processor = self.matches.subcommand_matches("processor");
        [of_processor, Some(self.matches)]
            .into_iter()
            .flatten()
            .find_map(|matches| value_in(matches, about))
    }
}

fn value_in(matches: &ArgMatches, about: &About) -> Option<String> {
    // Commands that do not serve have no such option.
    let source = matches.try_contains_id(about.id()).ok().filter(|there| *there)?;
    let given = source && matches.value_source(about.id()) == Some(ValueSource::CommandLine);
    if !given {
        return None;
    }
    if about.value.is_none() {
        return Some("1".to_owned());
    }
    let values: Vec<_> = matches.get_many::<String>(about.id())?.map(String::as_str).collect();
    Some(values.join(","))
}
