//! Writes the results of a full run into docs/performance.md and draws them in docs/images/performance.svg.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::table::Row;

/// The page; the results replace what is between the marks.
const PAGE: &str = "docs/performance.md";
const CHART: &str = "docs/images/performance.svg";
const START: &str = "<!-- results of make bench -->\n";
const END: &str = "<!-- end of the results -->\n";

/// Writes both files. `versions` are lines about what ran.
pub(crate) fn write(rows: &[Row], versions: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let (before, rest) = page.split_once(START).context("the page has no mark for the results")?;
    let (_, after) = rest.split_once(END).context("the page has no mark for the end of the results")?;
    fs::write(root.join(PAGE), format!("{before}{START}\n{}\n{END}{after}", results(rows, versions)))?;
    fs::write(root.join(CHART), chart(rows))?;
    println!("wrote {PAGE} and {CHART}");
    Ok(())
}

fn results(rows: &[Row], versions: &[String]) -> String {
    let mut text = String::new();
    for version in versions {
        let _ = writeln!(text, "- {version}");
    }
    text.push_str(
        "\n| what | unit | nginx | bare proxy | Mailgress | to nginx | to the bare proxy |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let [nginx, floor, mailgress] = row.medians().map(|figure| row.unit.show(figure));
        let _ = writeln!(
            text,
            "| {} | {} | {nginx} | {floor} | {mailgress} | {:.2} | {:.2} |",
            row.name,
            row.unit.name(),
            row.ratio(),
            row.ratio_to_floor()
        );
    }
    text
}

/// Bars of the ratios, with a line at 1.
fn chart(rows: &[Row]) -> String {
    let height = TOP + ROW * rows.len() + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"title desc\">\n\
         <title id=\"title\">Mailgress compared with nginx</title>\
         <desc id=\"desc\">The ratio of Mailgress to nginx for each workload. Shorter than the line at 1 is better.</desc>\n\
         {STYLE}\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"s\" x=\"{LEFT}\" y=\"22\">Mailgress / nginx, lower is better</text>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        let (y, ratio) = (TOP + ROW * index, row.ratio());
        let class = if ratio <= 1.0 { "good" } else { "bad" };
        let length = (ratio.clamp(0.0, MAX_RATIO) * UNIT).round();
        let (label, bar, value) = (y + 16, y + 4, (LEFT as f64 + length + 8.0).round());
        let _ = writeln!(
            svg,
            "<text class=\"f\" x=\"{}\" y=\"{label}\" text-anchor=\"end\">{} ({})</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{bar}\" width=\"{length}\" height=\"16\" rx=\"2\"/>\
             <text class=\"s\" x=\"{value}\" y=\"{label}\">{ratio:.2}</text>",
            LEFT - 10,
            row.name,
            row.unit.name()
        );
    }
    let (line, end) = (LEFT as f64 + UNIT, TOP + ROW * rows.len() + 4);
    let _ = write!(
        svg,
        "<line class=\"l\" x1=\"{line}\" y1=\"{TOP}\" x2=\"{line}\" y2=\"{end}\"/>\
         <text class=\"s\" x=\"{line}\" y=\"{}\" text-anchor=\"middle\">1 = nginx</text>\n</svg>\n",
        end + 16
    );
    svg
}

const WIDTH: usize = 900;
const TOP: usize = 34;
const ROW: usize = 24;
const BOTTOM: usize = 34;
/// Where the bars start.
const LEFT: usize = 390;
/// The length of a ratio of 1.
const UNIT: f64 = 220.0;
/// Longer bars are cut.
const MAX_RATIO: f64 = 2.0;

const STYLE: &str = "<style>\n\
.f{font:14px system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;fill:#1f2937}\n\
.s{font:12px system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;fill:#4b5563}\n\
.bg{fill:#ffffff}.good{fill:#2b8a4b}.bad{fill:#b4690e}.l{stroke:#475569;stroke-width:1.6;stroke-dasharray:6 4}\n\
@media(prefers-color-scheme:dark){.bg{fill:#161b24}.f{fill:#e5e9f0}.s{fill:#aab4c4}.good{fill:#58c47e}.bad{fill:#e0a458}.l{stroke:#9fb0c8}}\n\
</style>";
