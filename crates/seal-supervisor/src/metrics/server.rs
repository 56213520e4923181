//! The server: three fixed pages, few connections at a time, each with its own deadline.
//!
//! A web framework would bring a hundred crates into a process that must never fail, to answer
//! a scraper on the loopback address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::render::render;
use super::request::{BadRequest, Request};
use crate::status::{Looker, collect};

/// The longest request that is read.
const LONGEST: usize = 8 << 10;

/// How long a client may take for its request, and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many clients may be connected. When there are more, the one that has been for longest goes:
/// a scrape takes milliseconds, so that is one which does nothing.
const CONNECTIONS: usize = 16;

/// How often an address is tried that another supervisor serves.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What begins the content type of metrics, by which scrapers know the format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Serves the metrics of all supervisors of `runtime_dir` at `address` from threads of their own,
/// as soon as nobody else does.
pub(crate) fn serve(address: SocketAddr, runtime_dir: PathBuf) -> io::Result<()> {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => {
            tracing::info!(%address, "metrics are served");
            Some(listener)
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            tracing::info!(%address, "the address of metrics is taken; tried again when it is free");
            None
        }
        Err(error) => return Err(error),
    };
    let run = move || {
        let listener = listener.unwrap_or_else(|| take_over(address));
        let looker = Mutex::new(Looker::default());
        let pages = move || {
            let mut looker = looker.lock().unwrap_or_else(PoisonError::into_inner);
            collect(&runtime_dir, &mut looker)
                .map(|machine| render(&machine))
                .map_err(io::Error::other)
        };
        Server::new(address, Box::new(pages)).run(&listener);
    };
    seal_host::start_thread("metrics", run)?;
    Ok(())
}

fn take_over(address: SocketAddr) -> TcpListener {
    loop {
        thread::sleep(TRY_AGAIN);
        if let Ok(listener) = TcpListener::bind(address) {
            tracing::info!(%address, "metrics are served");
            return listener;
        }
    }
}

type Metrics = Box<dyn Fn() -> io::Result<String> + Send + Sync>;

/// What all connections share.
struct Server {
    /// Whether only this machine can connect, and so only its own names are asked for.
    is_loopback: bool,
    metrics: Metrics,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The clients, oldest first, each with a number of its own.
    clients: Vec<(u64, TcpStream)>,
    accepted: u64,
    /// Threads that have not ended yet.
    threads: usize,
}

impl Server {
    fn new(address: SocketAddr, metrics: Metrics) -> Arc<Self> {
        let is_loopback = address.ip().is_loopback();
        Arc::new(Self { is_loopback, metrics, open: Mutex::default() })
    }

    fn run(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                // What goes wrong with one client is that client's trouble.
                Ok((client, _)) => drop(self.take(client)),
                // No descriptors are left, for example: not at full speed.
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        }
    }

    /// Answers a client on a thread of its own. Where there is none, the client must come again.
    fn take(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let number = {
            let mut open = self.open();
            if open.threads >= 2 * CONNECTIONS {
                return Ok(());
            }
            if open.clients.len() >= CONNECTIONS {
                // Its thread sees the end and goes.
                let (_, oldest) = open.clients.remove(0);
                let _ = oldest.shutdown(Shutdown::Both);
            }
            open.accepted += 1;
            let number = open.accepted;
            open.clients.push((number, client.try_clone()?));
            open.threads += 1;
            number
        };
        let server = Arc::clone(self);
        let work = move || {
            let _ = server.answer(client);
            server.left(number);
        };
        let started = seal_host::start_small_thread("metrics client", work);
        started.map(drop).inspect_err(|_| self.left(number))
    }

    fn left(&self, number: u64) {
        let mut open = self.open();
        open.clients.retain(|(other, _)| *other != number);
        open.threads -= 1;
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request and closes the connection.
    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        client.set_write_timeout(Some(PATIENCE))?;
        let head = match read_head(&mut client, deadline) {
            Ok(head) => head,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let answer =
                    Answer::text("431 Request Header Fields Too Large", "the request is too long");
                return answer.write(&mut client, false);
            }
            Err(error) => return Err(error),
        };
        match Request::parse(&head, self.is_loopback) {
            Ok(request) => {
                let answer = if request.is_get() || request.is_head() {
                    self.page(request.path)
                } else {
                    Answer {
                        more: "Allow: GET, HEAD\r\n",
                        ..Answer::text("405 Method Not Allowed", "only GET and HEAD")
                    }
                };
                answer.write(&mut client, request.is_head())
            }
            Err(BadRequest { status, reason }) => {
                Answer::text(status, reason).write(&mut client, false)
            }
        }
    }

    fn page(&self, path: &str) -> Answer {
        match path {
            "/metrics" => match (self.metrics)() {
                Ok(body) => Answer { status: "200 OK", kind: METRICS_TYPE, body, more: "" },
                Err(error) => Answer::text("500 Internal Server Error", &error.to_string()),
            },
            // That somebody answers, and that what supervisors tell of themselves can be read.
            "/healthz" => match (self.metrics)() {
                Ok(_) => Answer::text("200 OK", "ok"),
                Err(error) => Answer::text("503 Service Unavailable", &error.to_string()),
            },
            "/" => Answer {
                status: "200 OK",
                kind: "text/html; charset=utf-8",
                body: concat!(
                    "<!DOCTYPE html><title>seal-supervisor</title><h1>seal-supervisor ",
                    env!("CARGO_PKG_VERSION"),
                    "</h1><p><a href=\"/metrics\">metrics</a> of all supervisors of this machine, \
                     for Prometheus</p><p><a href=\"/healthz\">healthz</a></p>\n"
                )
                .to_owned(),
                more: "",
            },
            _ => Answer::text("404 Not Found", "there are /metrics, /healthz and /"),
        }
    }
}

/// What is answered.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// More lines of the head.
    more: &'static str,
}

impl Answer {
    fn text(status: &'static str, body: &str) -> Self {
        Self { status, kind: TEXT_TYPE, body: format!("{body}\n"), more: "" }
    }

    fn write(&self, client: &mut TcpStream, only_head: bool) -> io::Result<()> {
        let Self { status, kind, body, more } = self;
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if !only_head {
            text.push_str(body);
        }
        client.write_all(text.as_bytes())?;
        client.shutdown(Shutdown::Write)
    }
}

/// Reads up to the empty line that ends a request without a body.
fn read_head(client: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let (mut head, mut block) = (Vec::new(), [0; 1024]);
    loop {
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(head);
        }
        if head.len() > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        // One byte at a time would keep a deadline of each read from ever passing.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut block)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&block[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with this metric, and its address.
    fn serving(metrics: fn() -> io::Result<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || Server::new(address, Box::new(metrics)).run(&listener));
        address
    }

    fn one() -> io::Result<String> {
        Ok("seal_up 1\n".to_owned())
    }

    /// What a server says to a client that writes this and then waits.
    fn asked(address: SocketAddr, request: &[u8]) -> String {
        let mut client = TcpStream::connect(address).expect("the server listens");
        client.write_all(request).expect("the server reads");
        let mut text = String::new();
        // A server that closes with unread input may reset the connection after its answer.
        let _ = client.read_to_string(&mut text);
        text
    }

    #[test]
    fn each_page_has_its_status_and_content_type() {
        let address = serving(one);
        for (request, status, kind, end) in [
            ("GET /metrics HTTP/1.1", "200 OK", METRICS_TYPE, "\r\n\r\nseal_up 1\n"),
            ("GET /metrics?x=1 HTTP/1.1", "200 OK", METRICS_TYPE, "\r\n\r\nseal_up 1\n"),
            ("HEAD /metrics HTTP/1.1", "200 OK", METRICS_TYPE, "\r\n\r\n"),
            ("GET /healthz HTTP/1.1", "200 OK", TEXT_TYPE, "\r\n\r\nok\n"),
            ("GET / HTTP/1.1", "200 OK", "text/html; charset=utf-8", "</p>\n"),
            ("GET /metrics/ HTTP/1.1", "404 Not Found", TEXT_TYPE, "/healthz and /\n"),
            ("GET /metrics/../etc/passwd HTTP/1.1", "404 Not Found", TEXT_TYPE, "\n"),
            ("HEAD /x HTTP/1.1", "404 Not Found", TEXT_TYPE, "\r\n\r\n"),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed", TEXT_TYPE, "HEAD\n"),
            ("OPTIONS /x HTTP/1.1", "405 Method Not Allowed", TEXT_TYPE, "HEAD\n"),
        ] {
            let text = asked(address, format!("{request}\r\nHost: localhost\r\n\r\n").as_bytes());
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {text}");
            assert!(text.contains(&format!("\r\nContent-Type: {kind}\r\n")), "{request}: {text}");
            assert!(text.ends_with(end), "{request}: {text}");
            assert_eq!(text.contains("\r\nAllow: GET, HEAD\r\n"), status.starts_with("405"));
        }
        let text = asked(address, b"GET /metrics HTTP/1.0\r\n\r\n");
        assert!(text.contains("\r\nContent-Length: 10\r\n"), "{text}");
    }

    #[test]
    fn another_hosts_name_is_refused_by_a_loopback_listener() {
        let address = serving(one);
        let text = asked(address, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 421 ") && !text.contains("seal_up"), "{text}");
    }

    #[test]
    fn what_cannot_be_collected_is_an_error_of_the_page() {
        let address = serving(|| Err(io::Error::other("no such directory")));
        for (page, status) in [("metrics", "500"), ("healthz", "503"), ("", "200")] {
            let text = asked(address, format!("GET /{page} HTTP/1.0\r\n\r\n").as_bytes());
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert_eq!(text.contains("no such directory"), status != "200", "{text}");
        }
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let text = asked(serving(one), &[b'x'; LONGEST + 2000]);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    }

    #[test]
    fn clients_that_say_nothing_delay_nobody_and_are_few() {
        let address = serving(one);
        let idle: Vec<_> = (0..4 * CONNECTIONS)
            .map(|_| {
                let mut idle = TcpStream::connect(address).expect("the server listens");
                idle.write_all(b"GET /metr").expect("the server reads");
                idle
            })
            .collect();
        let began = Instant::now();
        // One that comes while others are just leaving may have to come again.
        let answered = (0..100).any(|_| {
            let text = asked(address, b"GET /metrics HTTP/1.0\r\n\r\n");
            text.ends_with("seal_up 1\n")
        });
        assert!(answered);
        // Not a matter of speed: whoever had to wait for the others would wait for their patience.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let closed = idle.iter().filter(|idle| {
            idle.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
            let mut idle: &TcpStream = idle;
            !matches!(&idle.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        assert!(closed.take(3 * CONNECTIONS).count() == 3 * CONNECTIONS, "too many are kept");
    }

    #[test]
    fn an_address_that_is_taken_is_no_error() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        serve(address, PathBuf::from("/no/such")).expect("it waits");
        assert!(serve("192.0.2.1:9".parse().expect("an address"), PathBuf::new()).is_err());
    }
}
