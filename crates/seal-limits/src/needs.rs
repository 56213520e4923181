//! What a task holds while it runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A counted resource: so many tasks may hold it at the same time.
///
/// The order of the variants and names is the order in which resources are taken. As text a
/// resource is its kind and its name, and the two kinds never share a name.
///
/// ```
/// use seal_limits::Resource;
///
/// let gpu = Resource::Lock("gpu1".to_owned());
/// assert_eq!(gpu.to_string(), "lock gpu1");
/// assert_eq!("limit c2".parse(), Ok(Resource::Limit("c2".to_owned())));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Resource {
    /// A declared lock, such as one for a GPU.
    Lock(String),
    /// A place among the tasks of one kind that may run at the same time.
    Limit(String),
}

impl Resource {
    /// Its name among those of its kind.
    pub fn name(&self) -> &str {
        let (Self::Lock(name) | Self::Limit(name)) = self;
        name
    }

    /// Its kind, as a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lock(_) => "lock",
            Self::Limit(_) => "limit",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// A text that names no resource.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no resource; it is \"lock NAME\" or \"limit NAME\"")]
pub struct NoResource {
    /// The text.
    pub text: String,
}

impl FromStr for Resource {
    type Err = NoResource;

    fn from_str(text: &str) -> Result<Self, NoResource> {
        match text.split_once(' ') {
            Some(("lock", name)) => Ok(Self::Lock(name.to_owned())),
            Some(("limit", name)) => Ok(Self::Limit(name.to_owned())),
            _ => Err(NoResource { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for Resource {
    type Error = NoResource;

    fn try_from(text: String) -> Result<Self, NoResource> {
        text.parse()
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        resource.to_string()
    }
}

/// The resources of one task in the order in which they are taken, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(from = "Vec<Resource>")]
pub struct Needs(Vec<Resource>);

impl Needs {
    /// The resources in the order in which they are taken.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter()
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `resource` is among them.
    pub fn contains(&self, resource: &Resource) -> bool {
        self.0.binary_search(resource).is_ok()
    }
}

impl FromIterator<Resource> for Needs {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        resources.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<Resource>> for Needs {
    fn from(mut resources: Vec<Resource>) -> Self {
        resources.sort();
        resources.dedup();
        Self(resources)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locks_come_sorted_before_the_limit() {
        let needs: Needs = [
            Resource::Limit("c2".to_owned()),
            Resource::Lock("gpu2".to_owned()),
            Resource::Lock("gpu1".to_owned()),
            Resource::Lock("gpu2".to_owned()),
        ]
        .into_iter()
        .collect();
        let names: Vec<_> = needs.iter().map(Resource::to_string).collect();
        assert_eq!(names, ["lock gpu1", "lock gpu2", "limit c2"]);
    }

    proptest! {
        #[test]
        fn a_resource_is_read_back_from_its_text(name in ".*", lock: bool) {
            let resource = if lock { Resource::Lock(name) } else { Resource::Limit(name) };
            prop_assert_eq!(resource.to_string().parse(), Ok(resource));
        }
    }
}
