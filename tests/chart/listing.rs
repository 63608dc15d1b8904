//! What Artifact Hub shows of the chart, and the workflows of the forge.

use std::collections::BTreeSet;
use std::process::Command;

use serde_yaml::Value;

use crate::tools::{CHART, Tools, root, succeeded};

#[test]
fn annotations_for_artifact_hub_name_all_definitions_and_the_image() {
    let chart = yaml(&format!("{CHART}/Chart.yaml"));
    let annotation = |name: &str| -> Value {
        let text = chart["annotations"][format!("artifacthub.io/{name}")].as_str();
        serde_yaml::from_str(text.unwrap_or_else(|| panic!("Chart.yaml has no {name}"))).unwrap()
    };
    let named = |list: &Value| -> BTreeSet<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let each = list.as_sequence().unwrap().iter();
        each.map(|crd| (text(&crd["kind"]), text(&crd["name"]), text(&crd["version"]))).collect()
    };
    let definitions = std::fs::read_dir(root().join("crds")).unwrap().map(|file| {
        let crd: Value =
            serde_yaml::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let mut entry = serde_yaml::Mapping::new();
        entry.insert("kind".into(), crd["spec"]["names"]["kind"].clone());
        entry.insert("name".into(), crd["metadata"]["name"].clone());
        entry.insert("version".into(), crd["spec"]["versions"][0]["name"].clone());
        Value::Mapping(entry)
    });
    assert_eq!(named(&annotation("crds")), named(&Value::Sequence(definitions.collect())));

    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    let image = format!("docker.io/mailgress/mailgress:{version}");
    assert_eq!(annotation("images")[0]["image"], image.as_str());
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.contains("\nIMAGE ?= docker.io/mailgress/mailgress\n"), "make image names another");
    assert_eq!(annotation("license"), env!("CARGO_PKG_LICENSE"));
    for (list, field) in [("changes", "description"), ("links", "url")] {
        assert!(annotation(list)[0][field].is_string(), "{list}");
    }
}

#[test]
fn workflows_are_valid_and_call_targets_that_exist() {
    let Some(tools) = Tools::new("workflows_are_valid_and_call_targets_that_exist") else { return };
    let folder = std::fs::read_dir(root().join(".github/workflows")).unwrap();
    let files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    succeeded(tools.command("actionlint").arg("-color=false").args(&files).output().unwrap());
    let help = Command::new("make").current_dir(root()).arg("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let targets: BTreeSet<&str> = help.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut called = BTreeSet::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let commands = text.lines().filter_map(|line| line.split_once("run: make "));
        called.extend(commands.map(|(_, rest)| rest.split_whitespace().next().unwrap().to_owned()));
    }
    let missing: Vec<&String> = called.iter().filter(|name| !targets.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "make has no target {missing:?}");
    let wanted = ["test", "lint", "docs", "audit", "release-artifacts"];
    assert_eq!(called, wanted.map(str::to_owned).into(), "the workflows call these targets");
}

#[test]
fn a_mistake_in_a_workflow_is_found() {
    let Some(tools) = Tools::new("a_mistake_in_a_workflow_is_found") else { return };
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.yml");
    let text = "on: push\njobs:\n  test:\n    runs-on: ubuntu-24.04\n    steps:\n    - run: ${{ steps.no.outputs.x }}\n";
    std::fs::write(&wrong, text).unwrap();
    let output = tools.command("actionlint").arg("-color=false").arg(&wrong).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains(r#"property "no" is not defined"#), "{said}");
}

fn yaml(file: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap()
}
