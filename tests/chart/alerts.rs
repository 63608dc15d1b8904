//! Alerts, dashboard and queries in the pages: Prometheus accepts them, each alert fires when it should and only then,
//! and all metrics in them exist.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use mailgress::model::metric::{ALL, Kind};
use serde_json::{Value, json};

use crate::tools::{CHART, root, succeeded, tell};

#[test]
fn each_alert_fires_and_does_not() {
    let Some(folder) = prometheus("each_alert_fires_and_does_not") else { return };
    let rules = read("files/alerts.yaml");
    std::fs::write(folder.path().join("rules.yaml"), &rules).unwrap();
    let units = std::fs::read_to_string(root().join("tests/chart/alerts/alerts.yaml")).unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), &units).unwrap();
    promtool(&folder, &["check", "rules", "--lint-fatal", "rules.yaml"]);
    promtool(&folder, &["test", "rules", "alerts.yaml"]);
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            units.contains(&format!("alertname: {name}, eval_time")),
            "nothing shows that {name} does not fire"
        );
        assert!(units.contains(&format!(r#"ALERTS{{alertname="{name}""#)), "nothing shows that {name} fires");
    }
}

#[test]
fn alerts_dashboard_and_pages_ask_for_what_is_counted() {
    let counted: BTreeMap<&str, _> = ALL.iter().map(|family| (family.name, family)).collect();
    let mut asked = BTreeSet::new();
    for query in queries() {
        for (name, matched) in selectors(&query) {
            let base =
                name.strip_suffix("_bucket").filter(|base| counted.contains_key(base)).unwrap_or(&name);
            let family = counted.get(base).unwrap_or_else(|| panic!("nobody counts {name}: {query}"));
            assert_eq!(matches!(family.kind, Kind::Histogram(_)), base != name, "{name}: {query}");
            let known = |label: &String| {
                TARGET.contains(&label.as_str()) || family.labels.iter().any(|known| known.name == label)
            };
            let unknown: Vec<_> = matched.into_iter().filter(|label| !known(label)).collect();
            assert!(unknown.is_empty(), "{name} has no label {unknown:?}: {query}");
            asked.insert(base.to_owned());
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
}

#[test]
fn prometheus_can_answer_every_query_of_dashboard_and_pages() {
    let Some(folder) = prometheus("prometheus_can_answer_every_query_of_dashboard_and_pages") else { return };
    let plain = |query: &String| query.replace("$__rate_interval", "5m").replace('$', "");
    for (name, queries, at_least) in [("dashboard", dashboard(), 20), ("pages", pages(), 10)] {
        assert!(queries.len() > at_least, "{name}: {queries:?}");
        let rule = |(index, query): (usize, &String)| json!({ "record": format!("query:{index}"), "expr": plain(query) });
        let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
        let rules = json!({ "groups": [{ "name": name, "rules": rules }] });
        let file = format!("{name}.yaml");
        std::fs::write(folder.path().join(&file), rules.to_string()).unwrap();
        promtool(&folder, &["check", "rules", &file]);
    }
}

/// Returns the names of metrics in a query, with their label matchers.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = query.match_indices("mailgress_").chain(query.match_indices("process_"));
    let starts = starts.filter(|(at, _)| !query[..*at].ends_with(is_name));
    let selector = |at: usize| {
        let rest = &query[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let matchers =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let labels = matchers.split(',').filter_map(|matcher| matcher.split_once(['=', '!']));
        (name.to_owned(), labels.map(|(label, _)| label.trim().to_owned()).collect())
    };
    starts.map(|(at, _)| selector(at)).collect()
}

fn queries() -> Vec<String> {
    let alerts = alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).collect();
    [alerts, dashboard(), pages()].concat()
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read("files/alerts.yaml")).unwrap();
    rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("files/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Returns the expressions in tables of the pages, and in PromQL blocks.
fn pages() -> Vec<String> {
    let mut found = Vec::new();
    for page in crate::pages::all() {
        let mut is_table = false;
        for line in page.text.lines() {
            let cell = line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")).map(|(_, cell)| cell);
            is_table = cell.is_some_and(|cell| is_table || cell == "expression");
            let code = cell.and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`'));
            // A bar in a cell is escaped.
            found.extend(code.filter(|_| is_table).map(|code| code.replace("\\|", "|")));
        }
        let blocks = page.blocks().into_iter().filter(|block| block.language == "promql");
        found.extend(blocks.map(|block| block.text));
    }
    found
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(CHART).join(file)).unwrap()
}

/// Returns a folder for promtool. Prints a message and returns `None` if it is not installed.
fn prometheus(test: &str) -> Option<tempfile::TempDir> {
    if Command::new("promtool").arg("--version").output().is_err() {
        tell(&format!(
            "SKIPPED the chart test `{test}`: there is no promtool (Debian has it in the package prometheus)"
        ));
        return None;
    }
    Some(tempfile::Builder::new().prefix("mailgress-alerts-").tempdir().unwrap())
}

fn promtool(folder: &tempfile::TempDir, arguments: &[&str]) {
    succeeded(Command::new("promtool").current_dir(folder.path()).args(arguments).output().unwrap());
}

/// Labels that the Prometheus operator adds to every target.
const TARGET: [&str; 2] = ["namespace", "pod"];
