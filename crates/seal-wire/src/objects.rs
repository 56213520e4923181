//! Messages are objects whose values have names.
//!
//! What serde derives for a struct also reads a JSON array, with the values in the order in which
//! the fields stand in our sources. No protocol says so, and a sender that forgot the names would
//! be understood by accident.

use std::fmt;
use std::marker::PhantomData;

use seal_types::shown_reason;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::{BadLine, salvage_id};

/// Whether the first thing in `text` begins an object.
pub(crate) fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

/// Reads a line that is one object. What is told of a bad one is bounded: it may quote all of it.
pub(crate) fn message_of<'de, T: Deserialize<'de>>(line: &'de [u8]) -> Result<T, BadLine> {
    let bad = |reason: String| BadLine { id: salvage_id(line), reason };
    if !is_object(line) {
        // Where it is not even JSON, that is the better reason.
        let text = serde_json::from_slice::<serde::de::IgnoredAny>(line);
        return Err(bad(
            text.map_or_else(|error| shown_reason(&error), |_| "it is no JSON object".to_owned())
        ));
    }
    serde_json::from_slice(line).map_err(|error| bad(shown_reason(&error)))
}

/// Reads an object by `read`, which gets its fields by name, and nothing else.
pub(crate) fn from_object<'de, D, T, F>(deserializer: D, name: &str, read: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: ObjectReader<'de, T>,
{
    deserializer.deserialize_map(Named { name, read, value: PhantomData })
}

/// What makes a `T` of the fields of an object.
pub(crate) trait ObjectReader<'de, T> {
    fn read<A: MapAccess<'de>>(self, fields: MapAccessDeserializer<A>) -> Result<T, A::Error>;
}

struct Named<'a, T, F> {
    name: &'a str,
    read: F,
    value: PhantomData<T>,
}

impl<'de, T, F: ObjectReader<'de, T>> Visitor<'de> for Named<'_, T, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the fields of {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        self.read.read(MapAccessDeserializer::new(fields))
    }
}

/// Lets structs that derive serde with `remote = "Self"` be read from objects alone, at whatever
/// depth they stand.
macro_rules! objects_only {
    ($($name:ident),+ $(,)?) => {
        $(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    // What is derived, which `remote` makes a function of the type.
                    $name::serialize(self, serializer)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Self, D::Error> {
                    struct Derived;
                    impl<'de> $crate::objects::ObjectReader<'de, $name> for Derived {
                        fn read<A: serde::de::MapAccess<'de>>(
                            self,
                            fields: serde::de::value::MapAccessDeserializer<A>,
                        ) -> Result<$name, A::Error> {
                            $name::deserialize(fields)
                        }
                    }
                    $crate::objects::from_object(deserializer, stringify!($name), Derived)
                }
            }
        )+
    };
}

pub(crate) use objects_only;
