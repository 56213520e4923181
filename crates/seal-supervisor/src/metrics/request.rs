//! What a client asks for.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A request that is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    method: &'a str,
    /// Without the query.
    pub(super) path: &'a str,
}

/// One that is not answered with a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRequest {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
}

impl<'a> Request<'a> {
    /// Reads the lines before the empty one. A loopback listener is asked by the names of the
    /// loopback address only: a page of the web whose name was made to lead here has another one.
    pub(super) fn parse(head: &'a [u8], is_loopback: bool) -> Result<Self, BadRequest> {
        let bad = |reason| BadRequest { status: "400 Bad Request", reason };
        let head = std::str::from_utf8(head).map_err(|_| bad("the request is not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("the first line is not METHOD PATH VERSION"));
        };
        if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            let status = "505 HTTP Version Not Supported";
            return Err(BadRequest { status, reason: "it is HTTP/1.0 or HTTP/1.1" });
        }
        let mut hosts = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(bad("a header has no colon"))?;
            if name.eq_ignore_ascii_case("host") {
                hosts.push(value.trim());
            }
        }
        // What is asked of a proxy names the host itself.
        let target = match target.strip_prefix("http://") {
            Some(rest) => {
                let slash = rest.find('/').unwrap_or(rest.len());
                hosts = vec![&rest[..slash]];
                if slash == rest.len() { "/" } else { &rest[slash..] }
            }
            None => target,
        };
        match hosts[..] {
            [] if version == "HTTP/1.1" => return Err(bad("HTTP/1.1 has a Host")),
            [_, _, ..] => return Err(bad("there is more than one Host")),
            [host] if is_loopback && !is_loopback_name(host) => {
                return Err(BadRequest {
                    status: "421 Misdirected Request",
                    reason: "the Host is none of the loopback address's: ask for localhost or \
                             127.0.0.1, or let metrics be served at another address",
                });
            }
            _ => {}
        }
        let path = target.split('?').next().unwrap_or_default();
        Ok(Self { method, path })
    }

    pub(super) fn is_get(&self) -> bool {
        self.method == "GET"
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// Whether `host`, which may have a port, is a name of the loopback address.
fn is_loopback_name(host: &str) -> bool {
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let loopback = address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
        return loopback && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    loopback && is_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_address_are_its_own() {
        for own in [
            "localhost",
            "LocalHost:9184",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:9184",
            "127.8.8.8:80",
            "[::1]",
            "[::1]:9184",
        ] {
            assert!(is_loopback_name(own), "{own}");
        }
        for other in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org:9184",
            "10.0.0.5:9184",
            "localhost:x",
            "localhost:99999",
            "[::2]:80",
            "[::1",
            "[::1]x",
            "::1",
            "0.0.0.0",
        ] {
            assert!(!is_loopback_name(other), "{other}");
        }
    }

    #[test]
    fn a_request_is_understood_or_refused_with_its_status() {
        fn status(head: &str, is_loopback: bool) -> Result<Request<'_>, String> {
            Request::parse(head.as_bytes(), is_loopback).map_err(|bad| bad.status[..3].to_owned())
        }
        let refused = |status: &str| Err(status.to_owned());
        let get = |path| Ok(Request { method: "GET", path });
        for (head, found) in [
            ("GET /metrics HTTP/1.1\r\nhost:  localhost ", get("/metrics")),
            ("GET /metrics?a=/b HTTP/1.1\r\nHost: [::1]:1\r\nX: a:b", get("/metrics")),
            ("GET /metrics HTTP/1.0", get("/metrics")),
            ("GET http://127.0.0.1:1/metrics HTTP/1.1\r\nHost: x", get("/metrics")),
            ("GET http://localhost HTTP/1.1\r\nHost: x", get("/")),
            ("GET http://x/metrics HTTP/1.1\r\nHost: localhost", refused("421")),
            ("GET /metrics HTTP/1.1\r\nHost: x", refused("421")),
            ("GET /metrics HTTP/1.0\r\nHost: x", refused("421")),
            ("GET /metrics HTTP/1.1", refused("400")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost", refused("400")),
            ("GET /metrics HTTP/1.1\r\nHost", refused("400")),
            ("GET /metrics", refused("400")),
            ("GET  /metrics HTTP/1.1", refused("400")),
            ("", refused("400")),
            ("GET /metrics HTTP/2", refused("505")),
            ("GET /metrics http/1.1", refused("505")),
        ] {
            assert_eq!(status(head, true), found, "{head:?}");
        }
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x", false), get("/metrics"));
        assert!(Request::parse(b"GET /\xff HTTP/1.1", false).is_err());
    }
}
