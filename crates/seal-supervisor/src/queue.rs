//! Requests that no executor has, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::parent::{Held, RequestLine};

/// A request with what is needed to send it once more.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// The sector as logs name it, if the task tells.
    pub(crate) sector: Option<Arc<str>>,
    /// The line as it came, with its end.
    pub(crate) line: Arc<Vec<u8>>,
    /// How many executors have had it.
    pub(crate) tries: u32,
    /// Since when it waits.
    pub(crate) since: Instant,
    arrived: u64,
    /// The room that it takes while no executor has had it.
    held: Option<Arc<Held>>,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Request>,
    arrived: u64,
}

impl Queue {
    /// Adds a request that has just come.
    pub(crate) fn add(
        &mut self,
        id: u64,
        sector: Option<Arc<str>>,
        line: RequestLine,
        now: Instant,
    ) {
        self.arrived += 1;
        let RequestLine { text: mut line, held } = line;
        line.push(b'\n');
        let (line, arrived, held) = (Arc::new(line), self.arrived, held.map(Arc::new));
        self.waiting.push_back(Request { id, sector, line, tries: 0, since: now, arrived, held });
    }

    /// Puts back a request whose executor died, where it was among the others.
    pub(crate) fn put_back(&mut self, request: Request, now: Instant) {
        let place = self.waiting.partition_point(|other| other.arrived < request.arrived);
        self.waiting.insert(place, Request { since: now, ..request });
    }

    /// The next one, which goes to an executor.
    pub(crate) fn take(&mut self) -> Option<Request> {
        let mut request = self.waiting.pop_front()?;
        request.tries += 1;
        // What executors have is bounded by what they take.
        request.held = None;
        Some(request)
    }

    /// The next one, which stays.
    pub(crate) fn first(&self) -> Option<&Request> {
        self.waiting.front()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The waiting ones in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.waiting.iter()
    }

    /// Takes all.
    pub(crate) fn clear(&mut self) -> Vec<Request> {
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_put_back_are_where_they_were() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for id in [7, 3, 9, 1] {
            queue.add(id, None, RequestLine::default(), now);
        }
        let [first, second] = [(); 2].map(|()| queue.take().expect("one"));
        assert_eq!((first.id, first.tries), (7, 1));
        queue.put_back(second, now);
        queue.put_back(first, now);
        assert_eq!((queue.len(), queue.first().map(|request| request.id)), (4, Some(7)));
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|r| (r.id, r.tries)).collect();
        assert_eq!(order, [(7, 2), (3, 2), (9, 1), (1, 1)]);
        assert!(queue.is_empty());
    }
}
