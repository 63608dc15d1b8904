//! Prints the results.

/// What is compared. [`crate::floor`] is the bare proxy.
pub(crate) const PEERS: [&str; 3] = ["nginx", "bare proxy", "Mailgress"];

/// The results of one workload.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// The rounds of each of [`PEERS`].
    pub(crate) rounds: [Vec<f64>; PEERS.len()],
    /// The largest acceptable ratio to nginx.
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
    SystemCallsPerSession,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MicrosecondsPerSession => "µs CPU/session",
            Self::Microseconds => "µs",
            Self::MillisecondsPerGibibyte => "ms CPU/GiB",
            Self::BytesPerSession => "bytes PSS/session",
            Self::InstructionsPerSession => "instr./session",
            Self::SystemCallsPerSession => "syscalls/session",
        }
    }

    /// Formats a figure: with one digit after the point where a difference of one is large.
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::SystemCallsPerSession => format!("{figure:.1}"),
            _ => format!("{figure:.0}"),
        }
    }
}

impl Row {
    /// The medians of [`PEERS`].
    pub(crate) fn medians(&self) -> [f64; PEERS.len()] {
        self.figures().map(|figure| figure.median)
    }

    /// Mailgress / nginx.
    pub(crate) fn ratio(&self) -> f64 {
        let [nginx, _, mailgress] = self.medians();
        mailgress / nginx
    }

    /// Mailgress / bare proxy.
    pub(crate) fn ratio_to_floor(&self) -> f64 {
        let [_, floor, mailgress] = self.medians();
        mailgress / floor
    }

    fn figures(&self) -> [Figure; PEERS.len()] {
        self.rounds.each_ref().map(|rounds| Figure::of(rounds))
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

    fn text(&self, unit: Unit) -> String {
        let [median, lowest, highest] =
            [self.median, self.lowest, self.highest].map(|figure| unit.show(figure));
        format!("{median} ({lowest}-{highest})")
    }
}

/// Prints rows as they are measured.
pub(crate) fn print(rows: &[Row]) {
    for row in rows {
        let figures = row.figures().map(|figure| figure.text(row.unit));
        let each: Vec<_> =
            PEERS.iter().zip(&figures).map(|(peer, figure)| format!("{peer} {figure}")).collect();
        println!("{}: {} {}", row.name, each.join(", "), row.unit.name());
    }
}

/// Prints all rows with their ratios.
pub(crate) fn print_all(rows: &[Row]) {
    println!(
        "median (lowest-highest round); ratio: Mailgress / nginx and Mailgress / bare proxy, lower is better"
    );
    let [nginx, floor, mailgress] = PEERS;
    println!(
        "{:<34} {:<18} {nginx:>22} {floor:>22} {mailgress:>22} {:>6} {:>6}  bar",
        "workload", "unit", "nginx", "bare"
    );
    for row in rows {
        let [nginx, floor, mailgress] = row.figures().map(|figure| figure.text(row.unit));
        let (ratio, to_floor) = (row.ratio(), row.ratio_to_floor());
        let verdict = if ratio <= row.bar { "met" } else { "MISSED" };
        println!(
            "{:<34} {:<18} {nginx:>22} {floor:>22} {mailgress:>22} {ratio:>6.2} {to_floor:>6.2}  <= {:.1} {verdict}",
            row.name,
            row.unit.name(),
            row.bar
        );
    }
}
