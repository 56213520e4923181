//! Reading tables key by key, so that every complaint knows its line and the full name of its key,
//! and no key is left unread.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Invalid, nearest};

/// The file being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

/// A table with the keys that have not been read yet.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    source: Source<'a>,
    name: String,
    left: BTreeMap<Cow<'a, str>, (Range<usize>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

/// A value with its place and name.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    source: Source<'a>,
    name: String,
    value: Spanned<DeValue<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(crate) fn read(self) -> Result<Table<'a>, ConfigError> {
        let table = DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            path: self.path.to_path_buf(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            reason: error.message().trim().replace('\n', ", "),
        })?;
        Ok(Table::new(self, String::new(), table.into_inner()))
    }

    fn line(self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

impl<'a> Table<'a> {
    fn new(source: Source<'a>, name: String, table: DeTable<'a>) -> Self {
        let left = table
            .into_iter()
            .map(|(key, value)| {
                let span = key.span();
                (key.into_inner(), (span, value))
            })
            .collect();
        Self { source, name, left, known: Vec::new() }
    }

    /// The value of a key that this table may have.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let (_, value) = self.left.remove(key)?;
        Some(Node { source: self.source, name: self.name_of(key), value })
    }

    /// The table under a key that this table may have.
    pub(crate) fn take_table(&mut self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        self.take(key).map(Node::into_table).transpose()
    }

    /// All keys not read so far with their values: for tables whose keys users choose.
    pub(crate) fn take_all(&mut self) -> Vec<(String, Node<'a>)> {
        std::mem::take(&mut self.left)
            .into_iter()
            .map(|(key, (_, value))| {
                let node = Node { source: self.source, name: self.name_of(&key), value };
                (key.into_owned(), node)
            })
            .collect()
    }

    /// Complains of the first key, in the order of the file, that nobody read.
    pub(crate) fn finish(self, what: &str) -> Result<(), ConfigError> {
        let Some((key, (span, _))) = self.left.iter().min_by_key(|(_, (span, _))| span.start)
        else {
            return Ok(());
        };
        Err(Box::new(Invalid {
            path: self.source.path.to_path_buf(),
            line: self.source.line(span.start),
            key: self.name_of(key),
            value: None,
            reason: format!("unknown {what}; known are {}", self.known.join(", ")),
            hint: nearest(key, self.known.iter().copied()).map(str::to_owned),
        })
        .into())
    }

    fn name_of(&self, key: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = if !key.is_empty() && key.chars().all(plain) {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) }
    }
}

impl<'a> Node<'a> {
    /// An error about this value.
    pub(crate) fn invalid(&self, reason: impl Display) -> ConfigError {
        self.invalid_with_hint(reason, None)
    }

    /// An error about this value, with what was probably meant.
    pub(crate) fn invalid_with_hint(
        &self,
        reason: impl Display,
        hint: Option<&str>,
    ) -> ConfigError {
        const SHOWN: usize = 80;
        let text = &self.source.text[self.value.span()];
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        let whole_table = self.value.get_ref().is_table() || shown.contains('\n');
        Box::new(Invalid {
            path: self.source.path.to_path_buf(),
            line: self.line(),
            key: self.name.clone(),
            value: (!whole_table && !shown.is_empty()).then_some(shown),
            reason: reason.to_string(),
            hint: hint.map(str::to_owned),
        })
        .into()
    }

    /// The line the value starts on.
    pub(crate) fn line(&self) -> usize {
        self.source.line(self.value.span().start)
    }

    fn expected(&self, wanted: &str) -> ConfigError {
        self.invalid(format!("expected {wanted}, found {}", self.value.get_ref().type_str()))
    }

    pub(crate) fn into_table(self) -> Result<Table<'a>, ConfigError> {
        if !self.value.get_ref().is_table() {
            return Err(self.expected("a table"));
        }
        match self.value.into_inner() {
            DeValue::Table(table) => Ok(Table::new(self.source, self.name, table)),
            _ => unreachable!("checked above"),
        }
    }

    pub(crate) fn into_items(self) -> Result<Vec<Self>, ConfigError> {
        if !self.value.get_ref().is_array() {
            return Err(self.expected("an array"));
        }
        let DeValue::Array(items) = self.value.into_inner() else { unreachable!("checked above") };
        let (source, name) = (self.source, self.name);
        let node = |(index, value)| Node { source, name: format!("{name}[{index}]"), value };
        Ok(items.into_iter().enumerate().map(node).collect())
    }

    pub(crate) fn text(&self) -> Result<&str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("a string"))
    }

    /// Text that can be an argument, a path or an environment value.
    pub(crate) fn nonnul_text(&self) -> Result<&str, ConfigError> {
        let text = self.text()?;
        if text.contains('\0') {
            return Err(self.invalid("must not contain a NUL character"));
        }
        Ok(text)
    }

    pub(crate) fn nonempty_text(&self) -> Result<&str, ConfigError> {
        let text = self.nonnul_text()?;
        if text.is_empty() {
            return Err(self.invalid("must not be empty"));
        }
        Ok(text)
    }

    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(crate) fn number(&self) -> Result<u32, ConfigError> {
        let integer =
            self.value.get_ref().as_integer().ok_or_else(|| self.expected("a whole number"))?;
        u32::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.invalid(format!("must be between 0 and {}", u32::MAX)))
    }

    /// A number from 1. Zero would mean that nothing ever runs.
    pub(crate) fn count(&self) -> Result<NonZeroU32, ConfigError> {
        NonZeroU32::new(self.number()?).ok_or_else(|| {
            self.invalid(
                "must be at least 1, or nothing would ever run; leave the key out for no limit",
            )
        })
    }

    pub(crate) fn duration(&self) -> Result<Duration, ConfigError> {
        humantime::parse_duration(self.text()?).map_err(|error| {
            self.invalid(format!(
                "not a duration ({error}); write for example \"5s\" or \"2m 30s\""
            ))
        })
    }
}
