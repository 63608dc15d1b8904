//! Checks what the chart renders for many values, with the schemas of Kubernetes, of the Prometheus operator and of our
//! own kinds.

use crate::schemas::Schemas;
use crate::tools::{CHART, KUBERNETES, Tools, root, succeeded};

#[test]
fn helm_lint_has_nothing_to_say() {
    let Some(tools) = Tools::new("helm_lint_has_nothing_to_say") else { return };
    for values in value_files() {
        let mut lint = tools.command("helm");
        lint.args(["lint", "--strict", CHART, "--kube-version", KUBERNETES, "-f", &values]);
        let said = succeeded(lint.output().unwrap());
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[test]
fn the_units_of_the_chart_pass() {
    let Some(tools) = Tools::new("the_units_of_the_chart_pass") else { return };
    succeeded(tools.command("helm-unittest").args(["--strict", CHART]).output().unwrap());
}

#[test]
fn all_that_is_rendered_is_valid_for_kubernetes() {
    let Some(tools) = Tools::new("all_that_is_rendered_is_valid_for_kubernetes") else { return };
    let schemas = Schemas::write();
    for values in value_files() {
        let text = succeeded(tools.template(&["-f", &values, "--include-crds"]));
        schemas.check(&tools, &[(values, text)]);
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_found() {
    let Some(tools) = Tools::new("a_field_that_kubernetes_does_not_know_is_found") else { return };
    let schemas = Schemas::write();
    let wrong = succeeded(tools.template(&["--show-only", "templates/workload.yaml"]));
    let wrong = wrong.replace("minReadySeconds", "minReadySecond");
    schemas.refuse(&tools, &wrong, "minReadySecond");
}

/// Each file is a type of installation. The first one is the chart's default.
fn value_files() -> Vec<String> {
    let folder = root().join("tests/chart/values");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let files = files.iter().map(|file| file.display().to_string());
    std::iter::once("/dev/null".to_owned()).chain(files).collect()
}
