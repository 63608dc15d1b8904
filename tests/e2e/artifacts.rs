//! Checks the files that `make release-artifacts` has written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use serde_yaml::Value as Yaml;

use crate::images::{ARCHITECTURE, root};
use crate::node::succeed;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder of `make release-artifacts`, or why there is none. Creating it takes too long for each `make test`.
static FOLDER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let folder = std::env::var_os("MAILGRESS_RELEASE_ARTIFACTS").map(|folder| root().join(folder));
    folder.ok_or_else(|| {
        "run `make release-artifacts` and set MAILGRESS_RELEASE_ARTIFACTS to its folder".to_owned()
    })
});

fn folder(test: &str) -> Option<&'static Path> {
    match &*FOLDER {
        Ok(folder) => Some(folder),
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

#[test]
fn checksums_of_a_release_name_every_file() {
    let Some(folder) = folder("checksums_of_a_release_name_every_file") else { return };
    succeed(Command::new("sha256sum").current_dir(folder).args(["--check", "--strict", "SHA256SUMS"]));
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let mut listed: Vec<&str> = sums.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let image = format!("mailgress-{VERSION}-{ARCHITECTURE}.tar");
    let chart = format!("mailgress-{VERSION}.tgz");
    let mut wanted = vec!["crds.yaml", "install.yaml", image.as_str(), &chart, "mailgress.cdx.json"];
    listed.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, wanted.len() + 1, "with SHA256SUMS");
}

#[test]
fn the_image_of_a_release_has_its_version() {
    let Some(folder) = folder("the_image_of_a_release_has_its_version") else { return };
    let archive = folder.join(format!("mailgress-{VERSION}-{ARCHITECTURE}.tar"));
    let read = |name: &str| -> Value {
        let output = succeed(Command::new("tar").arg("-xOf").arg(&archive).arg(name));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let docker = read("manifest.json");
    assert_eq!(docker[0]["RepoTags"][0], format!("docker.io/mailgress/mailgress:{VERSION}"));
    let config = read(docker[0]["Config"].as_str().unwrap());
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], VERSION);
    assert_eq!(config["architecture"], ARCHITECTURE);
}

#[test]
fn the_chart_of_a_release_is_the_one_of_this_repository() {
    let Some(folder) = folder("the_chart_of_a_release_is_the_one_of_this_repository") else { return };
    let archive = folder.join(format!("mailgress-{VERSION}.tgz"));
    for file in ["values.yaml", "values.schema.json", "templates/workload.yaml"] {
        let name = format!("mailgress/{file}");
        let packed = succeed(Command::new("tar").arg("-xzOf").arg(&archive).arg(&name)).stdout;
        let ours = std::fs::read(root().join("charts/mailgress").join(file)).unwrap();
        assert_eq!(String::from_utf8(packed), String::from_utf8(ours), "{file}");
    }
    let chart = succeed(Command::new("tar").arg("-xzOf").arg(&archive).arg("mailgress/Chart.yaml")).stdout;
    let chart: Yaml = serde_yaml::from_slice(&chart).unwrap();
    assert_eq!(chart["version"], VERSION);
}

#[test]
fn the_manifest_of_a_release_installs_its_image_and_its_definitions() {
    let Some(folder) = folder("the_manifest_of_a_release_installs_its_image_and_its_definitions") else {
        return;
    };
    let crds = std::fs::read_to_string(folder.join("crds.yaml")).unwrap();
    let committed = std::fs::read_dir(root().join("crds")).unwrap().count();
    assert_eq!(crds.matches("\nkind: CustomResourceDefinition\n").count(), committed);

    let install = std::fs::read_to_string(folder.join("install.yaml")).unwrap();
    let objects = serde_yaml::Deserializer::from_str(&install);
    let objects: Vec<Yaml> = objects.map(|one| serde::Deserialize::deserialize(one).unwrap()).collect();
    let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("CustomResourceDefinition").len(), committed);
    assert_eq!(of_kind("Namespace")[0]["metadata"]["name"], "mailgress");
    let container = &of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("mailgress/mailgress:{VERSION}"));
    for object in objects.iter().filter(|object| object["metadata"]["namespace"].is_string()) {
        assert_eq!(object["metadata"]["namespace"], "mailgress");
    }
    assert!(!install.contains("helm.sh/hook"), "hooks are for Helm only");
}

#[test]
fn the_components_of_a_release_are_those_of_the_lock_file() {
    let Some(folder) = folder("the_components_of_a_release_are_those_of_the_lock_file") else { return };
    let text = std::fs::read_to_string(folder.join("mailgress.cdx.json")).unwrap();
    let here = root().display().to_string();
    assert!(!text.contains(&here), "{here} is in the list of components");
    let bom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    assert_eq!(bom["metadata"]["component"]["version"], VERSION);
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let components = bom["components"].as_array().unwrap();
    for name in ["tokio", "rustls", "kube", "aws-lc-rs"] {
        let found = components.iter().find(|component| component["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no component {name}"));
        let locked = format!("name = \"{name}\"\nversion = {}\n", found["version"]);
        assert!(lock.contains(&locked), "{locked}");
        assert!(found["licenses"][0].is_object() && found["hashes"][0].is_object(), "{found}");
    }
    for development in ["proptest", "rcgen", "fantoccini"] {
        assert!(
            components.iter().all(|component| component["name"] != development),
            "{development} is not shipped"
        );
    }
}
