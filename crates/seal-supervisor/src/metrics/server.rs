//! The server: one path, one connection at a time, short deadlines.
//!
//! A web framework would bring a hundred crates into a process that must never fail, to answer
//! one fixed request of a scraper on the loopback address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::render::render;
use crate::status::{Looker, collect};

/// The longest request that is read.
const LONGEST: usize = 8 << 10;

/// How long a client may take for its request, and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often an address is tried that another supervisor serves.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Serves the metrics of all supervisors of `runtime_dir` at `address` from a thread of its own,
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
        let mut looker = Looker::default();
        loop {
            match listener.accept() {
                // What goes wrong with one client is that client's trouble.
                Ok((client, _)) => drop(answer(client, || {
                    collect(&runtime_dir, &mut looker).map(|machine| render(&machine))
                })),
                // No descriptors are left, for example: not at full speed.
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(run)?;
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

/// Answers one request and closes the connection.
fn answer<E: std::error::Error>(
    mut client: TcpStream,
    text: impl FnOnce() -> Result<String, E>,
) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    client.set_write_timeout(Some(PATIENCE))?;
    let request = match read_head(&mut client, deadline) {
        Ok(request) => request,
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return respond(&mut client, "431 Request Header Fields Too Large", "too long\n");
        }
        Err(error) => return Err(error),
    };
    let mut words = request.split(|byte| byte.is_ascii_whitespace());
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => match text() {
            Ok(text) => respond(&mut client, "200 OK", &text),
            Err(error) => respond(&mut client, "500 Internal Server Error", &format!("{error}\n")),
        },
        (b"GET", _) => respond(&mut client, "404 Not Found", "look at /metrics\n"),
        _ => respond(&mut client, "405 Method Not Allowed", "only GET\n"),
    }
}

/// Reads up to the empty line that ends a request without a body.
fn read_head(client: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let (mut head, mut block) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
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
    Ok(head)
}

fn respond(client: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    client.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says to a client that writes this and then waits.
    fn asked(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let _ = answer(client, || Ok::<_, io::Error>("seal_up 1\n".to_owned()));
        });
        let mut client = TcpStream::connect(address).expect("the server listens");
        client.write_all(request).expect("the server reads");
        let mut text = String::new();
        // A server that closes with unread input may reset the connection after its answer.
        let _ = client.read_to_string(&mut text);
        server.join().expect("no panic");
        text
    }

    #[test]
    fn metrics_are_served_at_their_path_alone() {
        let text = asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("Content-Length: 10\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nseal_up 1\n"), "{text}");
        let text = asked(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"\r\n\r\n", "405"),
            (b"\xff\xfe\x00 \r\n\r\n", "405"),
        ] {
            let text = asked(request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        }
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let text = asked(&[b'x'; LONGEST + 2000]);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    }

    #[test]
    fn an_address_that_is_taken_is_no_error() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        serve(address, PathBuf::from("/no/such")).expect("it waits");
        assert!(serve("192.0.2.1:9".parse().expect("an address"), PathBuf::new()).is_err());
    }
}
