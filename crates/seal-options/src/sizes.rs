//! Sizes in bytes as people write them.

/// The number of bytes of a text such as `96GiB`, `512 MiB` or `1024`; `None` if it is not one, or
/// more than fits.
pub fn parse_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let text = text.trim();
    let (number, shift) = UNITS
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let number: u64 = number.trim_end().parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_a_unit_or_are_bytes() {
        for (text, bytes) in [
            ("96GiB", Some(96 << 30)),
            ("2 MiB", Some(2 << 20)),
            (" 1024 ", Some(1024)),
            ("1TiB", Some(1 << 40)),
            ("", None),
            ("GiB", None),
            ("1.5GiB", None),
            ("-1", None),
            ("12 gib", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }
}
