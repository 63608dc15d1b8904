//! Checks the dashboard with the types that Grafana publishes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::support::go::Module;
use crate::tools::{CHART, module_source, root, succeeded, tell};

#[test]
fn grafana_knows_all_that_the_dashboard_says() {
    let Some(grafana) = Grafana::new("grafana_knows_all_that_the_dashboard_says") else { return };
    succeeded(grafana.read(&dashboard()));
}

#[test]
fn what_grafana_does_not_know_is_found_wherever_it_is() {
    let Some(grafana) = Grafana::new("what_grafana_does_not_know_is_found_wherever_it_is") else { return };
    for (right, wrong, named) in [
        (r#""graphTooltip":"#, r#""graphTooltips":"#, "unexpected field 'graphTooltips'"),
        (r#""includeAll":"#, r#""includesAll":"#, "unexpected field 'includesAll'"),
        (r#""transformations":"#, r#""transformation":"#, "unexpected field 'transformation'"),
        (r#""unit":"#, r#""units":"#, "unexpected field 'units'"),
        (r#""showPoints":"#, r#""showPoint":"#, "unexpected field 'showPoint'"),
        (r#""colorMode":"#, r#""colourMode":"#, "unexpected field 'colourMode'"),
        (r#""legendFormat":"#, r#""legendFormt":"#, "unexpected field 'legendFormt'"),
        (r#""expr":"#, r#""exprs":"#, "expr: required field is missing"),
        (r#""showLegend":"#, r#""showLegends":"#, "showLegend: required field is missing"),
        (r#""schemaVersion": "#, r#""schemaVersion": -"#, "schemaVersion: json: cannot unmarshal"),
        (r#""placement": "bottom""#, r#""placement": "below""#, r#""below" is none of the words"#),
        (r#""format": "table""#, r#""format": "tables""#, r#""tables" is none of the words"#),
        (r#""type": "stat""#, r#""type": "stats""#, r#"there is no panel "stats""#),
        (r#""type": "prometheus""#, r#""type": "prometeus""#, "datasource: of an unknown type"),
    ] {
        let text = dashboard();
        assert!(text.contains(right), "{right}");
        let output = grafana.read(&text.replace(right, wrong));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{wrong}: {said}");
    }
}

fn dashboard() -> String {
    std::fs::read_to_string(root().join(CHART).join("files/dashboard.json")).unwrap()
}

/// A program with Grafana's types of dashboards, panels and queries.
struct Grafana {
    program: PathBuf,
    types: PathBuf,
}

static FOLDER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let program = Module {
        source: SOURCE,
        target: "dashboard",
        files: &["go.mod", "go.sum", "main.go", "words.go"],
        package: ".",
        link: &[],
        notice: "building Grafana's types of dashboards; this takes a minute, once",
    };
    program.build()
});

impl Grafana {
    /// Builds the program for the test `name`. Prints a message and returns `None` if this is not possible.
    fn new(name: &str) -> Option<Self> {
        match &*FOLDER {
            Ok(folder) => Some(Self {
                program: folder.join("dashboard"),
                types: module_source(&Path::new("tests").join(SOURCE).display().to_string(), TYPES),
            }),
            Err(why) => {
                tell(&format!("SKIPPED the chart test `{name}`: {why}"));
                None
            }
        }
    }

    fn read(&self, dashboard: &str) -> Output {
        let file =
            tempfile::Builder::new().prefix("mailgress-dashboard-").suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), dashboard).unwrap();
        Command::new(&self.program).arg(&self.types).arg(file.path()).output().unwrap()
    }
}

/// The folder below `tests/`.
const SOURCE: &str = "chart/dashboard";
/// The module in its go.mod.
const TYPES: &str = "github.com/grafana/grafana-foundation-sdk/go";
