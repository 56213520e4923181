//! Reading tables key by key, so that every complaint knows its line and the full name of its key,
//! and no key is left unread.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use seal_options::nearest;

use crate::error::{ConfigError, Invalid};
use crate::{Ignored, Place, Places};

/// The file being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    places: &'a RefCell<Places>,
}

/// A table with the keys that have not been read yet.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    source: Source<'a>,
    name: String,
    left: BTreeMap<Cow<'a, str>, (Range<usize>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
    /// Whether its values may be secrets, which are never shown.
    secret: bool,
}

/// A value with its place and name.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    source: Source<'a>,
    name: String,
    value: Spanned<DeValue<'a>>,
    /// Whether it may be a secret, which is never shown.
    secret: bool,
}

impl<'a> Source<'a> {
    /// The file `path` with its text; where values stand is noted in `places`.
    pub(crate) fn new(path: &'a Path, text: &'a str, places: &'a RefCell<Places>) -> Self {
        Self { path, text, places }
    }

    pub(crate) fn read(self) -> Result<Table<'a>, ConfigError> {
        let table = DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            path: self.path.to_path_buf(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            reason: error.message().trim().replace('\n', ", "),
        })?;
        Ok(Table::new(self, String::new(), table.into_inner()))
    }

    /// A value with its name, whose place is noted.
    fn node(self, name: String, value: Spanned<DeValue<'a>>) -> Node<'a> {
        let span = value.span();
        let place = Place { line: self.line(span.start), span };
        self.places.borrow_mut().note(name.clone(), place);
        Node { source: self, name, value, secret: false }
    }

    /// A value as it is written, where that is one line.
    fn shown(self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        const SHOWN: usize = 80;
        let text = &self.text[value.span()];
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        // Tables, also those with a header of their own, are more than what stands there.
        let is_table = value.get_ref().is_table() || text.starts_with("[[");
        let is_long = is_table || shown.contains('\n');
        (!is_long && !shown.is_empty()).then_some(shown)
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
        Self { source, name, left, known: Vec::new(), secret: false }
    }

    /// The value of a key that this table may have.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let (_, value) = self.left.remove(key)?;
        let node = self.source.node(self.name_of(key), value);
        Some(Node { secret: self.secret, ..node })
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
                let node = self.source.node(self.name_of(&key), value);
                (key.into_owned(), Node { secret: self.secret, ..node })
            })
            .collect()
    }

    /// Complains of the first key, in the order of the file, that nobody read.
    pub(crate) fn finish(self, what: &str) -> Result<(), ConfigError> {
        let Some((key, (span, value))) = self.left.iter().min_by_key(|(_, (span, _))| span.start)
        else {
            return Ok(());
        };
        let hint = nearest(key, self.known.iter().copied());
        // What is known to be a slip of a setting is shown; anything else may be a secret that
        // stands in the wrong place.
        let may_show = !self.secret && hint.is_some_and(|hint| hint != "envs");
        Err(Box::new(Invalid {
            path: self.source.path.to_path_buf(),
            line: self.source.line(span.start),
            key: self.name_of(key),
            value: self.source.shown(value).filter(|_| may_show),
            reason: format!("unknown {what}; known are {}", self.known.join(", ")),
            hint: hint.map(str::to_owned),
        })
        .into())
    }

    fn name_of(&self, key: &str) -> String {
        let key = quoted(key);
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
        Box::new(Invalid {
            path: self.source.path.to_path_buf(),
            line: self.line(),
            key: self.name.clone(),
            value: self.source.shown(&self.value).filter(|_| !self.secret),
            reason: reason.to_string(),
            hint: hint.map(str::to_owned),
        })
        .into()
    }

    /// An error about the name of this value in its table, of which only what is before `=` is
    /// shown: what follows may be a secret.
    pub(crate) fn invalid_name(&self, name: &str, reason: impl Display) -> ConfigError {
        let table = self.name.strip_suffix(&quoted(name)).unwrap_or_default();
        let shown = name.split(['=', '\0']).next().unwrap_or_default();
        Box::new(Invalid {
            path: self.source.path.to_path_buf(),
            line: self.line(),
            key: format!("{table}{}", quoted(shown)),
            value: None,
            reason: reason.to_string(),
            hint: None,
        })
        .into()
    }

    /// What is said of this value where it has no effect.
    pub(crate) fn ignored(&self, reason: impl Into<String>) -> Ignored {
        Ignored {
            path: self.source.path.to_path_buf(),
            line: self.line(),
            key: self.name.clone(),
            reason: reason.into(),
        }
    }

    /// The same value, which may be a secret, as all that is in it.
    pub(crate) fn secret(self) -> Self {
        Self { secret: true, ..self }
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
            DeValue::Table(table) => {
                let secret = self.secret;
                Ok(Table { secret, ..Table::new(self.source, self.name, table) })
            }
            _ => unreachable!("checked above"),
        }
    }

    pub(crate) fn into_items(self) -> Result<Vec<Self>, ConfigError> {
        if !self.value.get_ref().is_array() {
            return Err(self.expected("an array"));
        }
        let DeValue::Array(items) = self.value.into_inner() else { unreachable!("checked above") };
        let (source, name, secret) = (self.source, self.name, self.secret);
        let node = |(index, value)| {
            let node = source.node(format!("{name}[{index}]"), value);
            Node { secret, ..node }
        };
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

    /// A number that is not more than `most`.
    pub(crate) fn number_up_to(&self, most: u32) -> Result<u32, ConfigError> {
        match self.number()? {
            number if number <= most => Ok(number),
            _ => Err(self.invalid(format!("must be between 0 and {most}"))),
        }
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

    /// A duration that is not nothing.
    pub(crate) fn span_of_time(&self) -> Result<Duration, ConfigError> {
        match self.duration()? {
            Duration::ZERO => Err(self.invalid("must be longer than nothing")),
            duration => Ok(duration),
        }
    }

    /// Bytes, as a number with a unit of 1024: `64GiB`.
    pub(crate) fn bytes(&self) -> Result<u64, ConfigError> {
        const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let text = self.text()?;
        let sized = UNITS.iter().find_map(|(unit, shift)| {
            let number = text.strip_suffix(unit)?.trim_end();
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(1 << shift)
        });
        sized.ok_or_else(|| self.invalid("not a size; write for example \"512MiB\" or \"64GiB\""))
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let hint = nearest(text, known.iter().copied());
        Err(self.invalid_with_hint(format!("must be one of {}", known.join(", ")), hint))
    }

    /// An address to listen on: a port of the loopback address, or an address with a port.
    pub(crate) fn address(&self) -> Result<SocketAddr, ConfigError> {
        let wanted = || {
            self.invalid(
                "not an address; write a port, such as 9184, for the loopback address, or \
                 \"ADDRESS:PORT\"",
            )
        };
        match self.value.get_ref().as_str() {
            Some(text) => text.parse().map_err(|_| wanted()),
            None => match u16::try_from(self.number()?) {
                Ok(port @ 1..) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
                _ => Err(wanted()),
            },
        }
    }
}

/// A key as it is written.
fn quoted(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}

/// Reads a value where there is one.
pub(crate) fn opt<'a, T>(
    node: Option<Node<'a>>,
    read: impl FnOnce(Node<'a>) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    node.map(read).transpose()
}
