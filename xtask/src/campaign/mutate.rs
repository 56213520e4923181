//! What becomes of a line or a file, drawn from the case's numbers.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Changes of bytes, by what they are called.
pub(super) fn bytes(from: &[u8], rng: &mut ChaCha8Rng) -> (&'static str, Vec<u8>) {
    let mut to = from.to_vec();
    if to.is_empty() {
        return ("bytes for none", vec![rng.r#gen()]);
    }
    let at = rng.gen_range(0..to.len());
    let end = rng.gen_range(at..=to.len().min(at + 64));
    let name = match rng.gen_range(0..8) {
        0 => {
            to[at] ^= 1 << rng.gen_range(0..8);
            "a bit"
        }
        1 => {
            to.truncate(at);
            "cut"
        }
        2 => {
            to.drain(at..end);
            "bytes removed"
        }
        3 => {
            let more: Vec<u8> = (0..rng.gen_range(1..40)).map(|_| rng.r#gen()).collect();
            to.splice(at..at, more);
            "bytes inserted"
        }
        4 => {
            let copy = to[at..end].to_vec();
            to.splice(at..at, copy);
            "bytes repeated"
        }
        5 => {
            to[at..end].reverse();
            "bytes turned round"
        }
        6 => {
            to[at..end].fill(0);
            "zeros"
        }
        _ => {
            to.extend_from_within(at..);
            "its end again"
        }
    };
    (name, to)
}

/// Changes of a text by its lines and words.
pub(super) fn text(from: &str, rng: &mut ChaCha8Rng) -> (&'static str, String) {
    let mut lines: Vec<String> = from.lines().map(str::to_owned).collect();
    let at = rng.gen_range(0..lines.len().max(1));
    let Some(line) = lines.get(at).cloned() else { return ("nothing", String::new()) };
    let name = match rng.gen_range(0..8) {
        0 => {
            lines.remove(at);
            "a line removed"
        }
        1 => {
            lines.insert(at, line);
            "a line twice"
        }
        2 => {
            let other = rng.gen_range(0..lines.len());
            lines.swap(at, other);
            "lines exchanged"
        }
        3 => {
            const VALUES: [&str; 16] = [
                "0",
                "-1",
                "99999999999999999999",
                "1e308",
                "nan",
                "inf",
                "true",
                "\"\"",
                "\"0-\"",
                "\"9-1\"",
                "[]",
                "{}",
                "\"0-4294967295\"",
                "\"soon\"",
                "''",
                "1979-05-27",
            ];
            let key = line.split('=').next().unwrap_or_default().to_owned();
            lines[at] = format!("{key}= {}", VALUES[rng.gen_range(0..VALUES.len())]);
            "another value"
        }
        4 => {
            lines[at] = line.replacen(|c: char| c.is_ascii_lowercase(), "x", 1);
            "a letter"
        }
        5 => {
            lines[at] = line.chars().filter(|c| !"[]{}\"=".contains(*c)).collect();
            "without its signs"
        }
        6 => {
            lines[at] = line.replace(|c: char| c.is_ascii_digit(), "9999999");
            "huge numbers"
        }
        _ => {
            lines[at] = format!("{line}\u{0}\u{feff}\u{202e}é");
            "odd letters"
        }
    };
    (name, lines.join("\n"))
}

/// What was done to a request, and what its error has to name.
pub(super) struct Request {
    pub(super) name: &'static str,
    pub(super) line: Vec<u8>,
    /// A field that the error names, where it is one that is wrong.
    pub(super) field: Option<String>,
    /// Whether its id can be read beyond doubt.
    pub(super) has_id: bool,
}

/// Changes of a request. `paths` may stand in place of its own.
pub(super) fn request(id: u64, task: &Value, paths: &[String], rng: &mut ChaCha8Rng) -> Request {
    let mut task = task.clone();
    let names: Vec<String> =
        task.as_object().map(|task| task.keys().cloned().collect()).unwrap_or_default();
    let key = names[rng.gen_range(0..names.len())].clone();
    let whole = |task: &Value| format!("{{\"id\":{id},\"task\":{task}}}").into_bytes();
    let mut request = Request { name: "", line: Vec::new(), field: None, has_id: true };
    match rng.gen_range(0..10) {
        0 => {
            request.name = "a field removed";
            if let Some(task) = task.as_object_mut() {
                task.remove(&key);
            }
            request.field = Some(key);
        }
        1 => {
            request.name = "another type";
            let types = [
                json!(null),
                json!(true),
                json!(-1),
                json!(1.5),
                json!("x"),
                json!([]),
                json!({}),
                json!([[[]]]),
                json!(u64::MAX),
                json!([1, 2, 3]),
            ];
            task[&key] = types[rng.gen_range(0..types.len())].clone();
        }
        2 => {
            request.name = "an unknown field";
            task["no_such_field"] = json!(1);
            request.field = Some("no_such_field".to_owned());
        }
        3 | 4 => {
            request.name = "another path";
            if let Some(key) = names.iter().find(|key| task[*key].is_string() && rng.gen_bool(0.5))
            {
                task[key] = json!(paths[rng.gen_range(0..paths.len())]);
            }
        }
        5 => {
            request.name = "a list of another length";
            for name in &names {
                if let Some(list) = task[name].as_array_mut()
                    && rng.gen_bool(0.7)
                {
                    match rng.gen_range(0..4) {
                        0 => drop(list.pop()),
                        1 => list.push(json!(0)),
                        2 => list.clear(),
                        _ => list.push(json!(256)),
                    }
                }
            }
        }
        6 => {
            request.name = "a number";
            let numbers = [json!(0), json!(1), json!(u64::MAX), json!(1_u64 << 40)];
            for name in &names {
                if task[name].is_number() {
                    task[name] = numbers[rng.gen_range(0..numbers.len())].clone();
                }
            }
        }
        7 => {
            request.name = "the envelope";
            const ENVELOPES: [&str; 8] = [
                "{\"id\":ID}",
                "{\"id\":ID,\"task\":null}",
                "{\"id\":ID,\"task\":{},\"task\":{}}",
                "{\"task\":{},\"id\":ID}",
                "{\"x\":[1,{\"id\":3}],\"task\":{},\"id\":ID}",
                "{\"id\":ID,\"task\":[]}",
                "{\"id\":ID,\"task\":\"x\"}",
                "{\"id\":ID,\"task\":{},\"more\":{}}",
            ];
            let envelope = ENVELOPES[rng.gen_range(0..ENVELOPES.len())];
            request.line = envelope.replace("ID", &id.to_string()).into_bytes();
        }
        8 => {
            request.name = "deep and long";
            let depth = rng.gen_range(100..60_000);
            let value = match rng.gen_range(0..2) {
                0 => "[".repeat(depth) + &"]".repeat(depth),
                _ => format!("\"{}\"", "x".repeat(depth)),
            };
            request.line = format!("{{\"id\":{id},\"task\":{value}}}").into_bytes();
        }
        _ => {
            let line = whole(&task);
            // The id stays as it is; what comes after it is anything.
            let start = format!("{{\"id\":{id},").len();
            let (name, rest) = bytes(&line[start..], rng);
            request.name = name;
            let rest = rest.into_iter().map(|byte| if byte == b'\n' { b' ' } else { byte });
            request.line = line[..start].iter().copied().chain(rest).collect();
            // Another id may have come into the rest.
            let doubled = String::from_utf8_lossy(&request.line).matches("\"id\"").count() > 1;
            request.has_id = !doubled;
        }
    }
    if request.line.is_empty() {
        request.line = whole(&task);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn requests_stay_one_line_with_their_id() {
        let task = json!({ "cache_path": "/x", "ticket": [1, 2], "sector_id": 7 });
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..400 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let request = request(7, &task, &["y".to_owned()], &mut rng);
            assert!(!request.line.contains(&b'\n'), "{}", request.name);
            assert!(request.line.windows(6).any(|part| part == b"\"id\":7"), "{}", request.name);
            names.insert(request.name);
        }
        assert!(names.len() > 12, "{names:?}");
    }

    #[test]
    fn texts_and_bytes_are_changed_in_many_ways() {
        let (mut of_text, mut of_bytes) = (Vec::new(), Vec::new());
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            of_text.push(text("[a]\nkey = 1\nother = \"x2\"\n", &mut rng).0);
            of_bytes.push(bytes(b"0123456789", &mut rng).0);
            bytes(b"", &mut rng);
            text("", &mut rng);
        }
        for names in [&mut of_text, &mut of_bytes] {
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), 8, "{names:?}");
        }
    }
}
