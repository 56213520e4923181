//! What a task holds while it runs.

use std::fmt;

/// A counted resource: so many tasks may hold it at the same time.
///
/// The order of the variants and names is the order in which resources are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// A declared lock, such as one for a GPU.
    Lock(String),
    /// A place among the tasks of one kind that may run at the same time.
    Limit(String),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(name) => write!(f, "lock {name}"),
            Self::Limit(kind) => write!(f, "limit of {kind}"),
        }
    }
}

/// The resources of one task in the order in which they are taken, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs(Vec<Resource>);

impl Needs {
    /// The resources in iteration order.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter()
    }
}

impl FromIterator<Resource> for Needs {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut resources: Vec<_> = resources.into_iter().collect();
        resources.sort();
        resources.dedup();
        Self(resources)
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(names, ["lock gpu1", "lock gpu2", "limit of c2"]);
    }
}
