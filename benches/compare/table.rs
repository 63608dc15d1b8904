//! Prints the results.

/// The results of one workload.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// The rounds of nginx and of Mailgress.
    pub(crate) rounds: [Vec<f64>; 2],
    /// The largest acceptable ratio.
    pub(crate) bar: f64,
}

/// The unit of a result.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    MicrosecondsPerSession,
    /// From the connect to the accepted login.
    Microseconds,
    MillisecondsPerGibibyte,
    BytesPerSession,
    /// User-space instructions.
    InstructionsPerSession,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MicrosecondsPerSession => "µs CPU/session",
            Self::Microseconds => "µs",
            Self::MillisecondsPerGibibyte => "ms CPU/GiB",
            Self::BytesPerSession => "bytes PSS/session",
            Self::InstructionsPerSession => "instr./session",
        }
    }
}

impl Row {
    /// The medians of nginx and of Mailgress.
    pub(crate) fn medians(&self) -> [f64; 2] {
        [0, 1].map(|index| Figure::of(&self.rounds[index]).median)
    }

    /// Mailgress / nginx.
    pub(crate) fn ratio(&self) -> f64 {
        let [nginx, mailgress] = self.medians();
        mailgress / nginx
    }
}

/// The median and the range of the rounds.
struct Figure {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Figure {
    fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self { median, lowest: at(0), highest: at(sorted.len().saturating_sub(1)) }
    }

    fn text(&self) -> String {
        format!("{:.0} ({:.0}-{:.0})", self.median, self.lowest, self.highest)
    }
}

/// Prints rows as they are measured.
pub(crate) fn print(rows: &[Row]) {
    for row in rows {
        let [nginx, mailgress] = [&row.rounds[0], &row.rounds[1]].map(|rounds| Figure::of(rounds));
        println!("{}: nginx {}, Mailgress {} {}", row.name, nginx.text(), mailgress.text(), row.unit.name());
    }
}

/// Prints all rows with their ratios.
pub(crate) fn print_all(rows: &[Row]) {
    println!("median (lowest-highest round); ratio: Mailgress / nginx, lower is better");
    println!("{:<34} {:<18} {:>20} {:>20} {:>6}  bar", "workload", "unit", "nginx", "Mailgress", "ratio");
    for row in rows {
        let [nginx, mailgress] = [&row.rounds[0], &row.rounds[1]].map(|rounds| Figure::of(rounds));
        let ratio = row.ratio();
        let verdict = if ratio <= row.bar { "met" } else { "MISSED" };
        println!(
            "{:<34} {:<18} {:>20} {:>20} {ratio:>6.2}  <= {:.1} {verdict}",
            row.name,
            row.unit.name(),
            nginx.text(),
            mailgress.text(),
            row.bar
        );
    }
}
