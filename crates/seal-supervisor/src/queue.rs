//! Requests that no executor has, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;

/// A request with what is needed to send it once more.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// The line as it came, with its end.
    pub(crate) line: Arc<Vec<u8>>,
    /// How many executors have had it.
    pub(crate) tries: u32,
    arrived: u64,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Request>,
    arrived: u64,
}

impl Queue {
    /// Adds a request that has just come.
    pub(crate) fn add(&mut self, id: u64, line: Vec<u8>) {
        self.arrived += 1;
        let (line, arrived) = (Arc::new(line), self.arrived);
        self.waiting.push_back(Request { id, line, tries: 0, arrived });
    }

    /// Puts back a request whose executor died, where it was among the others.
    pub(crate) fn put_back(&mut self, request: Request) {
        let place = self.waiting.partition_point(|other| other.arrived < request.arrived);
        self.waiting.insert(place, request);
    }

    /// The next one, which goes to an executor.
    pub(crate) fn take(&mut self) -> Option<Request> {
        let mut request = self.waiting.pop_front()?;
        request.tries += 1;
        Some(request)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes all, and tells their ids.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        self.waiting.drain(..).map(|request| request.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_put_back_are_where_they_were() {
        let mut queue = Queue::default();
        for id in [7, 3, 9, 1] {
            queue.add(id, Vec::new());
        }
        let [first, second] = [(); 2].map(|()| queue.take().expect("one"));
        assert_eq!((first.id, first.tries), (7, 1));
        queue.put_back(second);
        queue.put_back(first);
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|r| (r.id, r.tries)).collect();
        assert_eq!(order, [(7, 2), (3, 2), (9, 1), (1, 1)]);
        assert!(queue.is_empty());
    }
}
