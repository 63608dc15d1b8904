//! The manifests of `deploy/`, `examples/` and the pages: checked with the schemas of all their kinds, and by a real
//! API server with the kinds of Argo CD, Flux and cert-manager.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::pages;
use crate::schemas::{Schemas, definitions, write_all};
use crate::tools::{CHART, Tools, documents, root, succeeded, tell};

#[test]
fn every_manifest_is_valid_for_whoever_reads_it() {
    let Some(tools) = Tools::new("every_manifest_is_valid_for_whoever_reads_it") else { return };
    let manifests = all();
    let kinds: BTreeSet<String> = objects(&manifests).iter().map(kind).collect();
    for kind in OTHERS {
        assert!(kinds.contains(kind), "there is no {kind}: {kinds:?}");
    }
    Schemas::write().check(&tools, &manifests);
}

#[test]
fn a_field_that_others_do_not_know_is_found() {
    let Some(tools) = Tools::new("a_field_that_others_do_not_know_is_found") else { return };
    let schemas = Schemas::write();
    for (file, right, wrong) in [
        ("argocd/application.yaml", "  ignoreDifferences:", "  ignoreDifference:"),
        ("argocd/application.yaml", "managedFieldsManagers:", "managedFieldManagers:"),
        ("argocd/application.yaml", "  finalizers:", "  finalizer:"),
        ("flux/release.yaml", "  ref:", "  reference:"),
        ("flux/release.yaml", "reconcileStrategy:", "reconcilesStrategy:"),
        ("flux/release.yaml", "mode: enabled", "mode: on"),
        ("flux/release.yaml", "  prune:", "  prunes:"),
        ("cert-manager/mail.yaml", "  renewBefore:", "  renewsBefore:"),
        ("cert-manager/mail.yaml", "rotationPolicy:", "rotatePolicy:"),
        ("cert-manager/mail.yaml", "certificateRefs:", "certificateRef:"),
    ] {
        let text = read(&Path::new("deploy/examples").join(file));
        assert!(text.contains(right), "{file}: {right}");
        let named = wrong.trim().split(':').next().unwrap();
        schemas.refuse(&tools, &text.replacen(right, wrong, 1), named);
    }
}

#[test]
fn an_api_server_with_the_kinds_of_others_takes_every_manifest() {
    let name = "an_api_server_with_the_kinds_of_others_takes_every_manifest";
    if Tools::new(name).is_none() {
        return;
    }
    let plane = match ControlPlane::start() {
        Ok(plane) => plane,
        Err(why) => return tell(&format!("SKIPPED the chart test `{name}`: {why}")),
    };
    let kubectl =
        |arguments: &[&str]| succeeded(plane.kubectl().args(arguments).current_dir(root()).output().unwrap());
    for file in definitions() {
        kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    }
    kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    let manifests = all();
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().map(str::to_owned);
    let namespaces: BTreeSet<String> = objects(&manifests).iter().filter_map(namespace).collect();
    for name in &namespaces {
        kubectl(&["create", "namespace", name]);
    }
    let files = write_all(&manifests);
    // This also checks rules between fields, which a schema does not have.
    let folder = files.path().to_str().unwrap();
    kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", folder]);
}

#[test]
fn values_for_argo_cd_and_flux_are_those_of_the_chart() {
    let Some(tools) = Tools::new("values_for_argo_cd_and_flux_are_those_of_the_chart") else { return };
    let mut seen = 0;
    for object in objects(&all()) {
        for place in ["/spec/source/helm/valuesObject", "/spec/values"] {
            let Some(values) = object.pointer(place) else { continue };
            let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
            std::fs::write(file.path(), values.to_string()).unwrap();
            succeeded(tools.template(&["-f", file.path().to_str().unwrap()]));
            seen += 1;
        }
        for chart in ["/spec/source/path", "/spec/chart/spec/chart"] {
            let is_chart = |path: &&str| path.starts_with("charts/");
            if let Some(path) = object.pointer(chart).and_then(Value::as_str).filter(is_chart) {
                assert_eq!(path, CHART);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 4, "each of both has a path and values");
}

/// Returns all published manifests: the place and the YAML.
fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["deploy", "examples"] {
        walk(Path::new(folder), &mut found);
    }
    for block in pages::all().iter().flat_map(pages::Page::blocks).filter(|block| block.language == "yaml") {
        // A block without a kind is a part of an object, or values.
        if block.text.lines().any(|line| line.starts_with("kind: ")) && !block.has("values") {
            found.push((block.place, block.text));
        }
    }
    found
}

fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if root().join(&path).is_dir() {
            // Overlays have patches, which another test applies. CrowdSec's files are not for Kubernetes.
            if !["overlays", "crowdsec"].iter().any(|other| path.ends_with(other)) {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            // kubectl reads a kustomization and refuses unknown fields in it.
            if !path.ends_with("kustomization.yaml") {
                found.push((path.display().to_string(), read(&path)));
            }
        }
    }
}

fn objects(manifests: &[(String, String)]) -> Vec<Value> {
    manifests.iter().flat_map(|(_, text)| documents(text)).collect()
}

fn kind(object: &Value) -> String {
    let part = |part: &str| object[part].as_str().unwrap().to_owned();
    format!("{} {}", part("apiVersion"), part("kind"))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Kinds of other projects among them.
const OTHERS: [&str; 5] = [
    "argoproj.io/v1alpha1 Application",
    "cert-manager.io/v1 Certificate",
    "helm.toolkit.fluxcd.io/v2 HelmRelease",
    "kustomize.toolkit.fluxcd.io/v1 Kustomization",
    "source.toolkit.fluxcd.io/v1 GitRepository",
];
