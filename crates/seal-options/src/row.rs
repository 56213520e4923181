//! A row of a table of settings.

/// What is said of a setting.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The option of the command line, with its dashes.
    pub option: Option<&'static str>,
    /// Other spellings of the option.
    pub aliases: &'static [&'static str],
    /// The name of the environment.
    pub variable: Option<&'static str>,
    /// What stands for the value in help texts; `None` for an option that is there or not.
    pub value: Option<&'static str>,
    /// Whether the option may be given several times.
    pub repeats: bool,
    /// Whether commands that do not serve have the option too.
    pub everywhere: bool,
    /// Settings that are made together: where one of them is made by an option, names of the
    /// environment make none of them.
    pub together: Option<&'static str>,
    /// Whether an empty value of the environment is one; otherwise it is as if it were not set.
    pub empty_is_a_value: bool,
    /// What values look like, as it completes "it has to be".
    pub form: &'static str,
    /// The value where none is given, or what holds then.
    pub default: Unset,
    /// What it does.
    pub meaning: &'static str,
}

/// What holds where nothing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// This value.
    Value(&'static str),
    /// Something that is no value.
    Else(&'static str),
    /// Nothing worth saying.
    Nothing,
}

/// A setting of the options `O`.
#[derive(Debug)]
pub struct Row<O: 'static> {
    /// What is said of it.
    pub about: About,
    /// Takes a value; `None` if it is not of the form.
    pub set: fn(&mut O, &str) -> Option<()>,
}

impl About {
    /// A setting by an option of the command line.
    pub(crate) const fn option(name: &'static str, value: &'static str) -> Self {
        Self { option: Some(name), value: Some(value), ..Self::NONE }
    }

    /// A setting that an option makes by being there.
    pub(crate) const fn flag(name: &'static str) -> Self {
        Self { option: Some(name), form: crate::forms::YES_OR_NO, ..Self::NONE }
    }

    /// A setting by a name of the environment.
    pub(crate) const fn variable(name: &'static str) -> Self {
        Self { variable: Some(name), ..Self::NONE }
    }

    const NONE: Self = Self {
        option: None,
        aliases: &[],
        variable: None,
        value: None,
        repeats: false,
        everywhere: false,
        together: None,
        empty_is_a_value: false,
        form: "",
        default: Unset::Nothing,
        meaning: "",
    };

    /// The same setting by a name of the environment too.
    pub(crate) const fn or_variable(self, name: &'static str) -> Self {
        Self { variable: Some(name), ..self }
    }

    pub(crate) const fn form(self, form: &'static str) -> Self {
        Self { form, ..self }
    }

    /// The value where none is given.
    pub(crate) const fn default(self, value: &'static str) -> Self {
        Self { default: Unset::Value(value), ..self }
    }

    /// What holds where no value is given.
    pub(crate) const fn without(self, what: &'static str) -> Self {
        Self { default: Unset::Else(what), ..self }
    }

    pub(crate) const fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    pub(crate) const fn meaning(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// The key by which it is found among parsed arguments.
    pub(crate) fn id(&self) -> &'static str {
        self.option.map_or("", |option| option.trim_start_matches('-'))
    }
}
