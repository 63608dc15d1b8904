//! The results, in the form of docs/scale.md.

use std::time::Duration;

/// A row for each measurement, a column for each number of MailServers.
pub struct Table {
    sizes: Vec<String>,
    lines: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// Creates an empty table.
    pub fn new(sizes: &[usize]) -> Self {
        Self { sizes: sizes.iter().map(ToString::to_string).collect(), lines: Vec::new() }
    }

    /// Adds the next value of a row. A new row is appended.
    pub fn put(&mut self, line: &'static str, value: impl ToString) {
        let value = value.to_string();
        match self.lines.iter_mut().find(|(other, _)| *other == line) {
            Some((_, values)) => values.push(value),
            None => self.lines.push((line, vec![value])),
        }
    }

    /// Adds the median of durations, with the longest.
    pub fn put_median(&mut self, line: &'static str, mut times: Vec<Duration>) {
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        self.put(line, format!("{} (at most {})", short(median), short(longest)));
    }

    /// Prints it as Markdown.
    pub fn print(&self) {
        println!("\n| MailServers | {} |", self.sizes.join(" | "));
        println!("| --- |{}", " --- |".repeat(self.sizes.len()));
        for (line, values) in &self.lines {
            println!("| {line} | {} |", values.join(" | "));
        }
    }
}

/// Formats a duration with its significant digits.
pub fn short(time: Duration) -> String {
    match time.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        millis @ ..10_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        millis => format!("{} s", millis / 1000),
    }
}

/// Formats bytes.
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
