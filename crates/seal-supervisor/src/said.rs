//! What was said: a start that fails is tried again every second, and meets the same each time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After which time the same is said again for the first time; each further time takes twice as
/// long.
const AGAIN: Duration = Duration::from_secs(10);

/// The longest time until the same is said again.
const LONGEST: Duration = Duration::from_secs(3600);

/// So many texts are remembered; those that contain numbers may be new ones for ever.
const MOST: usize = 256;

/// Texts that were said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    texts: BTreeMap<String, Next>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    at: Instant,
    pause: Duration,
}

impl Said {
    /// Whether a text is to be said now: because it is new, or was said long ago.
    pub(crate) fn is_due(&mut self, text: &str, now: Instant) -> bool {
        if let Some(next) = self.texts.get_mut(text) {
            if now < next.at {
                return false;
            }
            next.pause = (next.pause * 2).min(LONGEST);
            next.at = now + next.pause;
            return true;
        }
        if self.texts.len() >= MOST {
            let first = self.texts.iter().min_by_key(|(_, next)| next.at);
            if let Some(first) = first.map(|(text, _)| text.clone()) {
                self.texts.remove(&first);
            }
        }
        self.texts.insert(text.to_owned(), Next { at: now + AGAIN, pause: AGAIN });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_ever_more_seldom_and_what_is_new_at_once() {
        let (mut said, began) = (Said::default(), Instant::now());
        let mut due =
            |text: &str, second: u64| said.is_due(text, began + Duration::from_secs(second));
        let seconds: Vec<_> = (0..400).filter(|second| due("one", *second)).collect();
        assert_eq!(seconds, [0, 10, 30, 70, 150, 310]);
        assert!(due("other", 400) && !due("other", 401) && !due("one", 401));
        let far = (1..100).map(|hour| hour * 7200);
        assert_eq!(far.filter(|second| due("one", 400 + second)).count(), 99);
    }

    #[test]
    fn texts_that_are_new_each_time_take_no_memory_without_bound() {
        let (mut said, now) = (Said::default(), Instant::now());
        for number in 0..10_000 {
            assert!(said.is_due(&number.to_string(), now));
        }
        assert_eq!(said.texts.len(), MOST);
    }
}
