//! `docs/reference/metrics.md`: the one table of metrics.

use std::collections::BTreeMap;
use std::fmt::Write;

use mailgress::model::metric::{ALL, Kind, Label};

use super::cell;

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut labels: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for family in ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let names: Vec<String> = family.labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let by = if names.is_empty() { String::new() } else { format!(", by {}", names.join(", ")) };
        let help = cell(family.help);
        writeln!(page, "| `{}` | {}. *{kind}*{by} |", family.name, help.trim_end_matches('.')).unwrap();
        for Label { name, values } in family.labels {
            labels.entry((name, values)).or_default().push(family.name);
        }
    }
    page.push_str(LABELS);
    for ((name, values), of) in labels {
        let of: Vec<String> = of.iter().map(|name| format!("`{name}`")).collect();
        writeln!(page, "| `{name}` | {} | {} |", cell(values), of.join(", ")).unwrap();
    }
    page
}

const HEAD: &str = "# Metrics

<!-- Made from the code: MAILGRESS_WRITE_DOCS=1 cargo test --test docs reference -->

`/metrics` of the admin address has all of these, in Prometheus' format; [monitoring](../howto/monitoring.md) says what to do with
them. A histogram has the series `…_bucket`, `…_sum` and `…_count`, in seconds. A series is there once there is something to be counted, and
goes with the listener, Secret or endpoint that it is about.

| metric | what it counts |
| --- | --- |
";

const LABELS: &str = "
## Labels

| label | values | of |
| --- | --- | --- |
";
