//! Semaphores within one process, for simulations and tests.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::{Needs, Resource, Semaphores};

/// How many of each resource are free. Resources that are not listed are not limited.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    free: BTreeMap<Resource, u32>,
}

/// What one task holds. It must be given back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a grant that is dropped is never free again"]
pub struct Grant(Vec<Resource>);

impl Counters {
    /// Ends a task's hold.
    pub fn give_back(&mut self, grant: Grant) {
        for resource in grant.0 {
            if let Some(free) = self.free.get_mut(&resource) {
                *free += 1;
            }
        }
    }
}

impl FromIterator<(Resource, NonZeroU32)> for Counters {
    fn from_iter<I: IntoIterator<Item = (Resource, NonZeroU32)>>(limits: I) -> Self {
        Self { free: limits.into_iter().map(|(name, most)| (name, most.get())).collect() }
    }
}

impl Semaphores for Counters {
    type Held = Grant;

    fn try_take(&mut self, needs: &Needs) -> Option<Grant> {
        if needs.iter().any(|need| self.free.get(need) == Some(&0)) {
            return None;
        }
        for need in needs.iter() {
            if let Some(free) = self.free.get_mut(need) {
                *free -= 1;
            }
        }
        Some(Grant(needs.iter().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_all_or_nothing() {
        let lock = |name: &str| Resource::Lock(name.to_owned());
        let one = NonZeroU32::MIN;
        let mut counters: Counters = [(lock("x"), one), (lock("y"), one)].into_iter().collect();
        let y = counters.try_take(&[lock("y")].into_iter().collect()).expect("free");
        let both: Needs = [lock("x"), lock("y"), lock("unlimited")].into_iter().collect();
        assert_eq!(counters.try_take(&both), None);
        let x = counters.try_take(&[lock("x")].into_iter().collect()).expect("was not taken");
        counters.give_back(x);
        counters.give_back(y);
        assert!(counters.try_take(&both).is_some());
    }
}
