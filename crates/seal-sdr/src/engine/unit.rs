//! The threads of one unit and how layers reach them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use seal_host::{AdmissionError, MemoryPolicy, ring};
use seal_sha256::Prepared;

use super::consumer::{self, Seated, Source};
use super::feed::Feed;
use super::job::{LayerHandle, LayerJob, start};
use super::producer::{self, Share};
use super::{Bind, UnitCores};
use crate::SdrError;

/// Nodes that change hands together, and between two looks at what is new. The look-ahead makes
/// parents within two batches or so of a node late, which costs the consumer a copy each.
pub(crate) const BATCH: usize = 16;
/// Batches in a ring, of all producers together: 4 MiB. The consumer goes on for 6 ms when a
/// producer is taken off its core, which is how long a scheduler lets somebody else run; with four
/// batches each such moment cost the consumer as much time as the producer lost.
const PLACES: usize = 512;

/// Waiting without a system call for each node: a hint to the processor, and only after many of
/// them the core is offered to others, for the case that there are more threads than cores.
#[derive(Debug, Default)]
pub(crate) struct Spin(u32);

impl Spin {
    const BEFORE_YIELD: u32 = 4096;

    pub(crate) fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(Self::BEFORE_YIELD) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Layers on their way to a thread.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    /// Not zero if something has arrived: looked at without the lock, often.
    news: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// The thread is to end.
    ended: bool,
    /// The thread has ended, by a panic too.
    closed: bool,
}

/// Closes an inbox when its thread ends, however that happens: a layer that nobody works on would
/// be waited for without end.
struct Closing<'a, T>(&'a Inbox<T>);

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), ended: false, closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new(), news: AtomicUsize::new(0) }
    }
}

impl<T> Inbox<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands it to the thread; it is dropped if the thread has ended.
    fn send(&self, one: T) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return;
        }
        state.waiting.push(one);
        drop(state);
        self.news.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
    }

    /// The thread takes nothing any more: what waits is dropped, which tells those who wait for it.
    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    fn end(&self) {
        self.lock().ended = true;
        self.news.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
    }

    /// Adds what has arrived to `work`; sleeps while there is no work at all. `false` at the end.
    #[inline]
    pub(crate) fn receive(&self, work: &mut Vec<T>) -> bool {
        // Only this thread takes from the inbox, so a count that has not changed since it last
        // looked means that there is nothing new.
        if !work.is_empty() && self.news.load(Ordering::Acquire) == 0 {
            return true;
        }
        let mut state = self.lock();
        while state.waiting.is_empty() && work.is_empty() && !state.ended {
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.news.store(0, Ordering::Release);
        work.append(&mut state.waiting);
        !state.ended
    }
}

/// The threads of one unit.
#[derive(Debug)]
pub(crate) struct Unit {
    consumer: Arc<Inbox<Seated>>,
    producers: Vec<Arc<Inbox<Share>>>,
    /// Where rings lie.
    memory: MemoryPolicy,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Seated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seated")
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share")
    }
}

impl Unit {
    pub(crate) fn start(cores: &UnitCores, bind: Arc<Bind>) -> Result<Self, SdrError> {
        let mut unit = Self {
            consumer: Arc::default(),
            producers: cores.producers.iter().map(|_| Arc::default()).collect(),
            memory: MemoryPolicy { node: cores.node, ..MemoryPolicy::default() },
            threads: Vec::new(),
        };
        let inbox = Arc::clone(&unit.consumer);
        let run = move || {
            let _closed_at_the_end = Closing(&inbox);
            consumer::run(&inbox);
        };
        unit.spawn(format!("sdr-{}", cores.consumer), cores.consumer, &bind, run)?;
        for (index, cpu) in cores.producers.iter().enumerate() {
            let inbox = Arc::clone(&unit.producers[index]);
            let run = move || {
                let _closed_at_the_end = Closing(&inbox);
                producer::run(&inbox);
            };
            unit.spawn(format!("sdr-p-{cpu}"), *cpu, &bind, run)?;
        }
        Ok(unit)
    }

    /// Starts a thread and waits until it is bound.
    fn spawn(
        &mut self,
        name: String,
        cpu: usize,
        bind: &Arc<Bind>,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), SdrError> {
        let (bind, (bound, answer)) = (Arc::clone(bind), std::sync::mpsc::channel());
        let body = move || {
            let result = bind(cpu);
            let is_bound = result.is_ok();
            // The starter waits for it.
            let _ = bound.send(result);
            if is_bound {
                run();
            }
        };
        let failed = |reason: String| SdrError::Core { cpu, reason };
        let thread = seal_host::start_thread(&name, body);
        self.threads.push(thread.map_err(|error| failed(error.to_string()))?);
        answer.recv().unwrap_or_else(|_| Err("the thread ended".to_owned())).map_err(failed)
    }

    pub(crate) fn label_layer(&self, job: LayerJob) -> Result<LayerHandle, SdrError> {
        let (lane, handle) = start(job);
        let feed = || Feed { shared: Arc::clone(&handle.shared) };
        let source = if self.producers.is_empty() {
            Source::own(feed())
        } else {
            let count = self.producers.len();
            let places = places(lane.nodes(), count);
            let ring = ring::<Prepared>(BATCH, places, count, &self.memory);
            let (consumer, rings) = ring.map_err(AdmissionError::from)?;
            if let Some((node, _)) = self.memory.node {
                let nodes = consumer.percent_by_node();
                let percent_local = nodes.map(|nodes| nodes.get(&node).copied().unwrap_or(0));
                tracing::debug!(%node, percent_local, "ring of a layer");
            }
            for (inbox, ring) in self.producers.iter().zip(rings) {
                let may_rest = places >= PLACES;
                inbox.send(Share { feed: feed(), ring, producers: count, may_rest });
            }
            Source::Ring(consumer)
        };
        self.consumer.send(Seated::new(lane, source));
        Ok(handle)
    }
}

/// Places of a ring for a layer of `nodes` nodes: no more than it has batches, and at least one
/// for each producer.
fn places(nodes: usize, producers: usize) -> usize {
    nodes.div_ceil(BATCH).min(PLACES).max(producers)
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.consumer.end();
        self.producers.iter().for_each(|inbox| inbox.end());
        for thread in self.threads.drain(..) {
            // A thread that panicked has told its layers.
            let _ = thread.join();
        }
    }
}
