//! Formats numbers, times and states for people.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime;

use crate::model::view::State;
use crate::words::plural;

/// Returns the CSS class, the symbol and the word.
pub(super) fn state(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Good => ("good", "●", "Ready"),
        State::Bad => ("bad", "✕", "Not ready"),
        State::Alarming => ("alarming", "▲", "Alarm"),
        State::Pending => ("pending", "…", "Pending"),
    }
}

/// Replaces a listener's state while it serves sessions but accepts no new ones.
pub(super) const DRAINING: (&str, &str, &str) = ("alarming", "▲", "Draining");

/// Formats a number as `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number as `1,234`.
pub(super) fn size(number: usize) -> String {
    count(u64::try_from(number).unwrap_or(u64::MAX))
}

/// Formats a number with its noun: `1 listener`, `2 listeners`.
pub(super) fn things(number: usize, one: &str) -> String {
    format!("{} {}", size(number), plural(number, one))
}

/// Formats a rate as `0`, `0.4` or `12`.
pub(super) fn rate(per: f64) -> String {
    if per <= 0.0 {
        "0".to_owned()
    } else if per < 10.0 {
        format!("{:.1}", per.max(0.1))
    } else {
        format!("{per:.0}")
    }
}

/// Formats bytes as `1.5 MB`, with powers of ten as in networks.
pub(super) fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "kB", "MB"] {
        if number < 999.5 {
            let text =
                if unit == "B" || number >= 10.0 { format!("{number:.0}") } else { format!("{number:.1}") };
            return format!("{text} {unit}");
        }
        number /= 1000.0;
    }
    format!("{number:.1} GB")
}

/// Formats a duration with its two largest units, such as `3 d 4 h`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Formats how long ago something was, in its largest unit.
pub(super) fn ago(at: i64, now: i64) -> String {
    let seconds = now.saturating_sub(at).max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

/// Formats `expires in 29 days` or `has expired`.
pub(super) fn expiry(not_after: i64, now: i64) -> String {
    let left = not_after.saturating_sub(now);
    match left {
        ..=0 => "has expired".to_owned(),
        1..172_800 => format!("expires in {} h", left / 3600),
        _ => format!("expires in {} days", left / 86400),
    }
}

/// Formats a time by RFC 3339, for machines.
pub(super) fn instant(at: i64) -> String {
    Timestamp::from_second(at).unwrap_or_default().to_string()
}

/// Formats a date as `2026-11-21`.
pub(super) fn date(at: i64) -> String {
    strtime::format("%Y-%m-%d", Timestamp::from_second(at).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_for_people() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([rate(0.0), rate(0.01), rate(9.94), rate(250.4)], ["0", "0.1", "9.9", "250"]);
        assert_eq!([bytes(0.0), bytes(1234.0), bytes(56_000_000.0)], ["0 B", "1.2 kB", "56 MB"]);
        assert_eq!(bytes(4.2e9), "4.2 GB");
        let spans = [42, 62, 3_660, 2 * 86400 + 3 * 3600].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(spans, ["42 s", "1 min 2 s", "1 h 1 min", "2 d 3 h"]);
        assert_eq!([ago(90, 100), ago(0, 7200), ago(100, 90)], ["10 s ago", "2 h ago", "0 s ago"]);
        assert_eq!([expiry(0, 1), expiry(86400, 0)], ["has expired", "expires in 24 h"]);
        assert_eq!(
            (expiry(30 * 86400, 0), date(1_795_219_200)),
            ("expires in 30 days".into(), "2026-11-21".into())
        );
        assert_eq!([things(1, "listener"), things(2000, "listener")], ["1 listener", "2,000 listeners"]);
    }
}
