//! The loop with executors that do what a test wants.

use std::io::{BufRead, BufReader, PipeReader};
use std::sync::mpsc::SyncSender;

use seal_types::Stage;
use seal_wire::{DeviceReport, DeviceStanding};

use super::*;

/// Never looks whether to stop; ends when the test lets go of the other end.
struct Deaf {
    begun: SyncSender<()>,
    released: Mutex<Receiver<()>>,
}

impl Executor for Deaf {
    const STAGE: Stage = Stage::C2;
    type Task = u64;
    type Output = u64;

    fn sector(task: &u64) -> SectorName {
        SectorName { name: task.to_string(), doubt: None }
    }

    fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
        self.begun.send(()).expect("the test waits for it");
        let _ = self.released.lock().expect("one task").recv();
        Ok(task)
    }
}

fn answers() -> (PipeReader, Arc<Answers>) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    (reader, Arc::new(Answers::start(file).expect("a thread")))
}

/// A loop of `executor` with its inbox at hand.
fn serving<E: Executor>(executor: E, answers: Arc<Answers>, events: Sender<Event>) -> Loop<E> {
    Loop {
        executor: Arc::new(executor),
        options: ServeOptions {
            concurrent: NonZeroUsize::new(1),
            events: false,
            grace: Duration::from_millis(50),
        },
        memory: Arc::default(),
        device_reports: Arc::new(DeviceReports::new(Arc::clone(&answers), false)),
        answers,
        events_wanted: false,
        events,
        cancel: CancelToken::default(),
        unanswered: Unanswered::default(),
        running: 0,
        queue: VecDeque::new(),
        input_ended: false,
        ended: None,
        deadline: None,
    }
}

fn request(id: u64) -> Event {
    Event::Line(Line::Whole(format!("{{\"id\":{id},\"task\":1}}").into_bytes()))
}

/// Its device is lost by the second task.
struct Losing {
    tasks: std::sync::atomic::AtomicU64,
}

impl Executor for Losing {
    const STAGE: Stage = Stage::Pc2;
    type Task = u64;
    type Output = u64;

    fn sector(task: &u64) -> SectorName {
        SectorName { name: task.to_string(), doubt: None }
    }

    fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
        let before = self.tasks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before == 1 {
            return Err(TaskError::new(ErrorCode::Unavailable, "the device failed"));
        }
        Ok(task)
    }

    fn is_lost(&self) -> Option<String> {
        let tasks = self.tasks.load(std::sync::atomic::Ordering::Relaxed);
        (tasks > 1).then(|| "device 7 is lost".to_owned())
    }
}

#[test]
fn a_lost_device_ends_the_process_after_the_answers() {
    let (reader, answers) = answers();
    let (events, inbox) = mpsc::channel();
    let serve = serving(Losing { tasks: 0.into() }, answers, events.clone());
    for id in [7, 8, 9] {
        events.send(request(id)).expect("it listens");
    }
    // The input stays open.
    assert_eq!(serve.run(&inbox), ExitCode::DeviceLost);
    let lines: Vec<String> =
        BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
    let [done, failed, refused] = &lines[..] else { panic!("three answers: {lines:?}") };
    assert!(done.contains("\"id\":7") && done.contains("\"output\":1"), "{done}");
    assert!(failed.contains("\"id\":8") && failed.contains("the device failed"), "{failed}");
    assert!(refused.contains("\"id\":9") && refused.contains("[unavailable]"), "{refused}");
    assert!(refused.contains("device 7 is lost") && refused.contains("again"), "{refused}");
}

/// Its device computes every second task wrongly.
struct Doubtful {
    tasks: std::sync::atomic::AtomicU64,
}

impl Executor for Doubtful {
    const STAGE: Stage = Stage::Pc2;
    type Task = u64;
    type Output = u64;

    fn sector(task: &u64) -> SectorName {
        SectorName { name: task.to_string(), doubt: None }
    }

    fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
        self.tasks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(task)
    }

    fn device_report(&self) -> Option<DeviceReport> {
        let wrong = self.tasks.load(std::sync::atomic::Ordering::Relaxed) / 2;
        let standing = if wrong == 0 { DeviceStanding::Good } else { DeviceStanding::Suspect };
        let device = "device 7".to_owned();
        Some(DeviceReport { device, standing, wrong, reason: None, replaced_by: None })
    }
}

fn telling<E: Executor>(events_wanted: bool, serve: Loop<E>) -> Loop<E> {
    let reports = DeviceReports::new(Arc::clone(&serve.answers), events_wanted);
    Loop { events_wanted, device_reports: Arc::new(reports), ..serve }
}

/// By the answer a supervisor gives the executor the next request, if it knows nothing against
/// it.
#[test]
fn a_device_is_reported_before_the_answer_that_it_is_to_blame_for() {
    let (reader, answers) = answers();
    let (events, inbox) = mpsc::channel();
    let doubtful = Doubtful { tasks: 0.into() };
    let serve = telling(true, serving(doubtful, answers, events.clone()));
    for id in 1..=4 {
        events.send(request(id)).expect("it listens");
    }
    events.send(Event::EndOfInput).expect("it listens");
    assert!(matches!(serve.run(&inbox), ExitCode::Success));
    let lines: Vec<String> =
        BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
    let place = |parts: [&str; 2]| {
        lines.iter().position(|line| parts.iter().all(|part| line.contains(part)))
    };
    for (wrong, id) in [(1, 2), (2, 4)] {
        let report = place(["\"standing\":\"suspect\"", &format!("\"wrong\":{wrong}")]);
        let answer = place(["\"output\":1", &format!("\"id\":{id}")]);
        assert!(report.expect("told") < answer.expect("an answer"), "{lines:?}");
    }
}

#[test]
fn what_is_thought_of_a_device_is_told_at_the_start_and_when_it_changes() {
    for events_wanted in [true, false] {
        let executor = Doubtful { tasks: 0.into() };
        let (reader, answers) = answers();
        let (events, inbox) = mpsc::channel();
        let serve = telling(events_wanted, serving(executor, answers, events.clone()));
        for id in 1..=4 {
            events.send(request(id)).expect("it listens");
        }
        events.send(Event::EndOfInput).expect("it listens");
        assert!(matches!(serve.run(&inbox), ExitCode::Success));
        let reports: Vec<_> = BufReader::new(reader)
            .lines()
            .filter_map(|line| match seal_wire::Event::parse(line.expect("text").as_bytes()) {
                Ok(seal_wire::Event::Device(report)) => Some((report.standing, report.wrong)),
                _ => None,
            })
            .collect();
        let expected =
            [(DeviceStanding::Good, 0), (DeviceStanding::Suspect, 1), (DeviceStanding::Suspect, 2)];
        assert_eq!(reports, if events_wanted { &expected[..] } else { &[] });
    }
}

#[test]
fn a_task_that_does_not_stop_within_the_grace_is_answered_once_and_left() {
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (release, released) = mpsc::channel();
    let executor = Deaf { begun, released: Mutex::new(released) };
    let (reader, answers) = answers();
    let (events, inbox) = mpsc::channel();
    let serve = serving(executor, answers, events.clone());
    let unanswered = serve.unanswered.clone();
    let code = std::thread::scope(|scope| {
        let looped = scope.spawn(move || serve.run(&inbox));
        for id in [7, 8] {
            events.send(request(id)).expect("it listens");
        }
        has_begun.recv().expect("the first task begins");
        events.send(Event::Signal(15)).expect("it listens");
        looped.join().expect("no panic")
    });
    assert!(matches!(code, ExitCode::Success), "{code:?}");
    // The task ends after the loop and finds that it has been answered.
    drop(release);
    assert!(!unanswered.take(7));
    let lines: Vec<String> =
        BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
    let [waiting, running] = &lines[..] else { panic!("two answers: {lines:?}") };
    assert!(waiting.contains("\"id\":8") && waiting.contains("told to end"), "{waiting}");
    assert!(running.contains("\"id\":7"), "{running}");
    assert!(running.contains("[cancelled]") && running.contains("within 50ms"), "{running}");
}

/// Answers at once.
struct Quick;

impl Executor for Quick {
    const STAGE: Stage = Stage::Pc2;
    type Task = u64;
    type Output = u64;

    fn sector(task: &u64) -> SectorName {
        SectorName { name: task.to_string(), doubt: None }
    }

    fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
        Ok(task)
    }
}

/// The sender may use an id again as soon as it has read the answer, before the loop has heard that
/// the task's thread is done.
#[test]
fn an_id_that_was_answered_and_is_used_again_at_once_is_a_new_request() {
    const TIMES: u64 = 5000;
    for concurrent in [1, 4] {
        let (reader, answers) = answers();
        let (events, inbox) = mpsc::channel();
        let mut serve = serving(Quick, answers, events.clone());
        serve.options.concurrent = NonZeroUsize::new(concurrent);
        let looped = std::thread::spawn(move || serve.run(&inbox));
        let mut lines = BufReader::new(reader).lines();
        for time in 0..TIMES {
            let line = format!("{{\"id\":7,\"task\":{time}}}");
            events.send(Event::Line(Line::Whole(line.into()))).expect("it listens");
            let answer = lines.next().expect("an answer").expect("text");
            assert_eq!(answer, format!("{{\"id\":7,\"err_msg\":null,\"output\":{time}}}"));
        }
        events.send(Event::EndOfInput).expect("it listens");
        assert_eq!(looped.join().expect("no panic"), ExitCode::Success);
    }
}

#[test]
fn a_line_that_repeats_an_unanswered_id_changes_nothing_of_its_answer() {
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (release, released) = mpsc::channel();
    let (reader, answers) = answers();
    let (events, inbox) = mpsc::channel();
    let executor = Deaf { begun, released: Mutex::new(released) };
    let serve = serving(executor, answers, events.clone());
    let looped = std::thread::spawn(move || serve.run(&inbox));
    for line in [
        // The first one runs, the second one waits.
        r#"{"id":7,"task":1}"#,
        r#"{"id":8,"task":2}"#,
        r#"{"id":7,"task":3}"#,
        r#"{"id":8,"task":4}"#,
        r#"{"task":"x","id":7}"#,
        r#"{"id":8,"task":[broken"#,
        r#"{"id":7}"#,
    ] {
        events.send(Event::Line(Line::Whole(line.into()))).expect("it listens");
    }
    let head = Vec::new();
    let long = Line::TooLong { head, length: 1 << 30, id: Some(7) };
    events.send(Event::Line(long)).expect("it listens");
    events.send(Event::Line(Line::Whole(br#"{"id":99}"#.into()))).expect("it listens");
    events.send(Event::EndOfInput).expect("it listens");
    has_begun.recv().expect("the first task begins");
    let mut lines = BufReader::new(reader).lines().map(|line| line.expect("text"));
    let last = lines.next().expect("an answer to the last line");
    assert!(last.starts_with("{\"id\":99,\"err_msg\":\"[bad-request] "), "{last}");
    drop(release);
    has_begun.recv().expect("the second task begins");
    assert_eq!(looped.join().expect("no panic"), ExitCode::Success);
    let expected = [(7, 1), (8, 2)]
        .map(|(id, output)| format!("{{\"id\":{id},\"err_msg\":null,\"output\":{output}}}"));
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

/// Whatever is wrong with a line: who sent it is told, once.
#[test]
fn every_line_with_an_id_has_one_answer() {
    // By a seed, so that a failure can be had again.
    let mut seed = 14_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % below
    };
    let pieces: [&[u8]; 18] = [
        b"\"id\"",
        b"\"task\"",
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"\\",
        b"null",
        b"1e400",
        b"-",
        b"\xff",
        b"\0",
        b" ",
        b"\"task\":1,",
        b"\"x\":{\"id\":1}",
    ];
    let mut expected: Vec<u64> = Vec::new();
    let (reader, answers) = answers();
    let (events, inbox) = mpsc::channel();
    let mut serve = serving(Quick, answers, events.clone());
    serve.options.concurrent = NonZeroUsize::new(4);
    let looped = std::thread::spawn(move || serve.run(&inbox));
    let reading = std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines
            .map(|line| {
                let answer = seal_wire::RawResponse::parse(line.expect("text").as_bytes());
                answer.expect("an answer").id
            })
            .collect::<Vec<_>>()
    });
    for id in 1000..4000_u64 {
        let mut line = match random(3) {
            0 => format!("{{\"id\":{id},\"task\":5}}"),
            1 => format!("{{\"task\":{{\"a\":[1,2]}},\"id\":{id}}}"),
            _ => format!("{{\"more\":\"x\",\"id\": {id} ,\"task\":5}}"),
        }
        .into_bytes();
        for _ in 0..random(4) {
            let at = random(line.len() + 1);
            let until = (at + random(3)).min(line.len());
            line.splice(at..until, pieces[random(pieces.len())].iter().copied());
        }
        // What is a request is one; of the rest the id counts.
        let id = RawRequest::parse(&line).map_or_else(|bad| bad.id, |it| Some(it.id));
        if let Some(id) = id.filter(|id| !expected.contains(id)) {
            expected.push(id);
            events.send(Event::Line(Line::Whole(line))).expect("it listens");
        }
    }
    assert!(expected.len() > 1000, "{} of 3000 lines have an id", expected.len());
    events.send(Event::EndOfInput).expect("it listens");
    assert_eq!(looped.join().expect("no panic"), ExitCode::Success);
    let mut told = reading.join().expect("no panic");
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}
