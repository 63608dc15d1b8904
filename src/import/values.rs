//! Parses nginx's times, sizes and numbers, and formats them for manifests.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::api::common::{Duration, Size};

/// The finest unit that a directive accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finest {
    Milliseconds,
    Seconds,
}

/// Parses a time in milliseconds: `90`, `1h30m`, `1h 30m`, `500ms`. Units must be in descending order. As in nginx,
/// times with milliseconds have no months and years.
pub(super) fn time(text: &str, finest: Finest) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    let mut last: Option<usize> = None;
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = UNITS.iter().position(|(name, _)| {
            // `ms` must not be read as a minute.
            tail.starts_with(name) && !(*name == "m" && tail.starts_with("ms"))
        });
        let (unit, tail) = match unit {
            Some(unit) => (unit, tail.get(UNITS.get(unit)?.0.len()..)?),
            None if tail.is_empty() || tail.starts_with(' ') => (SECONDS, tail),
            None => return None,
        };
        let is_foreign = if finest == Finest::Seconds { unit > SECONDS } else { unit <= MONTHS };
        if last.is_some_and(|last| last >= unit) || is_foreign {
            return None;
        }
        last = Some(unit);
        let milliseconds = number.parse::<u64>().ok()?.checked_mul(UNITS.get(unit)?.1)?;
        total = total.checked_add(milliseconds)?;
        rest = tail.trim_start_matches(' ');
    }
    // nginx stores times in signed integers.
    i64::try_from(total).ok().map(|_| total)
}

/// Parses a size in bytes: `4096`, `8k`, `1m`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        _ => (text, 1),
    };
    self::number(number)?.checked_mul(factor)
}

/// Parses a number that consists of digits only.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Tells whether a text can be a host: an IPv4 address, an IPv6 address in brackets, or a name (RFC 1123 section 2.1, and
/// underscores). A mistyped IPv4 address is none.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = name.len() < 254 && name.split('.').all(is_label) && !is_number;
    is_name || text.parse::<Ipv4Addr>().is_ok()
}

/// Tells whether a manifest can have this path of a UNIX socket, which is absolute.
pub(super) fn is_socket(path: &str) -> bool {
    path.len() > 1 && !path.chars().any(|letter| letter == ' ' || letter.is_control())
}

/// What is wrong if [`is_socket`] is false.
pub(super) const NOT_A_SOCKET: &str =
    "the path of the UNIX socket has blanks or control characters, or no name";

/// Formats a duration for manifests: `60s`, `5m`, `1h30m`, `500ms`.
pub(super) fn duration(milliseconds: u64) -> Duration {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let parts = if seconds < 120 {
        [(0, "h"), (0, "m"), (seconds, "s"), (rest, "ms")]
    } else {
        [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (rest, "ms")]
    };
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    Duration(if text.is_empty() { "0s".to_owned() } else { text })
}

/// Formats a quantity for manifests: `4Ki`, `1Mi`, or bytes.
pub(super) fn quantity(bytes: u64) -> Size {
    match bytes {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => Size::Text(format!("{}Mi", bytes >> 20)),
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => Size::Text(format!("{}Ki", bytes >> 10)),
        bytes => Size::Bytes(i64::try_from(bytes).unwrap_or(i64::MAX)),
    }
}

/// In descending order, in milliseconds.
const UNITS: [(&str, u64); 8] = [
    ("y", 365 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const MONTHS: usize = 1;
const SECONDS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nginxs() {
        let read = |text| time(text, Finest::Milliseconds);
        assert_eq!(
            (read("60"), read("1h30m"), read("1h 2m")),
            (Some(60_000), Some(5_400_000), Some(3_720_000))
        );
        assert_eq!(
            (read("500ms"), read("1w"), read("1d 5")),
            (Some(500), Some(604_800_000), Some(86_405_000))
        );
        assert_eq!((read("1M"), read("1y"), time("1M", Finest::Seconds)), (None, None, Some(2_592_000_000)));
        assert_eq!(
            (read(""), read("x"), read("5x"), read("1m1h"), read("s")),
            (None, None, None, None, None)
        );
        assert_eq!(time("500ms", Finest::Seconds), None);
    }

    #[test]
    fn sizes_and_numbers_are_nginxs() {
        assert_eq!((size("8k"), size("1M"), size("100")), (Some(8192), Some(1 << 20), Some(100)));
        assert_eq!(
            (size("1x"), size("k"), size(""), number("-1"), number("+1")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn hosts_are_addresses_and_names() {
        for good in ["192.0.2.1", "[2001:DB8::1]", "localhost", "auth_1.test.", "a-b.c", "1-2"] {
            assert!(is_host(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in
            ["127.0..1", "192.0.2", "192.0.2.256", "[a", "2001:db8::1", "a b", "-a", "a..", "", long.as_str()]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn paths_of_sockets_have_a_name_without_blanks() {
        assert!(is_socket("/run/\u{e4}.sock"));
        for bad in ["/", "/run/a b", "/run/\x07", "/run/\u{85}", "/a\n"] {
            assert!(!is_socket(bad), "{bad:?}");
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_people_do() {
        let written = |ms| duration(ms).0;
        assert_eq!((written(60_000), written(300_000)), ("60s".to_owned(), "5m".to_owned()));
        assert_eq!((written(0), written(5_400_500)), ("0s".to_owned(), "1h30m500ms".to_owned()));
        assert_eq!(quantity(4096), Size::Text("4Ki".to_owned()));
        assert_eq!(quantity(128), Size::Bytes(128));
    }
}
