//! `deploy/` for kustomize: its parts are generated from the chart, and its result is that of the chart.

use std::path::Path;

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::support::generated::is_current;
use crate::tools::{Tools, documents, root, succeeded, tell};

/// The generated parts of kustomizations: for each file, the values and the templates.
const FILES: [(&str, &[&str], &[&str]); 5] = [
    ("deploy/base/crds.yaml", &[], &["crds.yaml"]),
    (
        "deploy/base/mailgress.yaml",
        &[],
        &[
            "serviceaccount.yaml",
            "services.yaml",
            "lease.yaml",
            "session-tickets.yaml",
            "workload.yaml",
            "pdb.yaml",
            "networkpolicy.yaml",
            "rbac.yaml",
        ],
    ),
    ("deploy/overlays/cluster/rbac.yaml", &[], &["rbac.yaml"]),
    ("deploy/overlays/namespace/rbac.yaml", &["--set", "namespaces={mail}"], &["rbac.yaml"]),
    ("deploy/overlays/hostnetwork/daemonset.yaml", HOST_NETWORK, &["workload.yaml"]),
];
const HOST_NETWORK: &[&str] = &["--set", "kind=DaemonSet,hostNetwork=true,service.enabled=false"];
/// Each overlay with the equivalent values.
const OVERLAYS: [(&str, &[&str]); 3] =
    [("cluster", &[]), ("namespace", &["--set", "namespaces={mail}"]), ("hostnetwork", HOST_NETWORK)];

#[test]
fn generated_files_of_kustomizations_are_the_charts() {
    let Some(tools) = Tools::new("generated_files_of_kustomizations_are_the_charts") else { return };
    for (file, values, templates) in FILES {
        let show: Vec<String> =
            templates.iter().map(|name| format!("--show-only=templates/{name}")).collect();
        let arguments = values.iter().copied().chain(show.iter().map(String::as_str)).collect::<Vec<_>>();
        let objects = tools.objects(&arguments).into_iter().filter(|object| belongs(file, object)).map(plain);
        let text = objects.map(|object| format!("---\n{}", serde_yaml::to_string(&object).unwrap()));
        let head = "# Generated from charts/mailgress by `make generate`; do not edit.\n";
        is_current(file, &(head.to_owned() + &text.collect::<String>()));
    }
}

#[test]
fn kustomizations_and_chart_render_the_same() {
    let Some(tools) = Tools::new("kustomizations_and_chart_render_the_same") else { return };
    let plane = match ControlPlane::start() {
        Ok(plane) => plane,
        Err(why) => return tell(&format!("SKIPPED the comparison of kustomizations with the chart: {why}")),
    };
    // The namespace overlay expects an existing namespace.
    succeeded(plane.kubectl().args(["create", "namespace", "mail"]).output().unwrap());
    for (overlay, values) in OVERLAYS {
        let folder = root().join("deploy/overlays").join(overlay);
        let build = plane.kubectl().arg("kustomize").arg(&folder).output().unwrap();
        let mut built = documents(&succeeded(build));
        let apply = plane.kubectl().args(["apply", "--server-side", "-k"]).arg(&folder).output().unwrap();
        succeeded(apply);
        // Helm creates it with --create-namespace.
        built.retain(|object| object["kind"] != "Namespace");
        let mut rendered: Vec<Value> =
            tools.objects(&[values, &["--no-hooks"]].concat()).into_iter().map(plain).collect();
        for objects in [&mut built, &mut rendered] {
            objects.sort_by_key(name);
        }
        let names = |objects: &[Value]| objects.iter().map(name).collect::<Vec<_>>();
        assert_eq!(names(&built), names(&rendered), "{overlay}");
        for (built, rendered) in built.iter_mut().zip(&mut rendered) {
            sort_environment(built);
            sort_environment(rendered);
            assert_eq!(built, rendered, "{overlay}: {}", name(rendered));
        }
    }
}

/// Tells whether an object belongs to a file: the base has what is in its own namespace, the overlays have the rest and
/// what differs.
fn belongs(file: &str, object: &Value) -> bool {
    if !file.ends_with("rbac.yaml") && !file.starts_with("deploy/base") {
        return true;
    }
    let kind = object["kind"].as_str().unwrap();
    let is_permission = kind.contains("Role");
    let is_own = object["metadata"]["name"] == "mailgress-own";
    if Path::new(file).ends_with("rbac.yaml") { is_permission && !is_own } else { !is_permission || is_own }
}

/// Removes labels that Helm adds.
fn plain(mut object: Value) -> Value {
    let labels = object["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove("helm.sh/chart");
    labels.remove("app.kubernetes.io/managed-by");
    if let Some(metadata) = object["metadata"].as_object_mut()
        && metadata.get("annotations").is_some_and(|all| all.get("helm.sh/resource-policy").is_some())
    {
        metadata.remove("annotations");
    }
    object
}

/// Sorts variables, because a patch puts its own first.
fn sort_environment(object: &mut Value) {
    if let Some(environment) =
        object.pointer_mut("/spec/template/spec/containers/0/env").and_then(Value::as_array_mut)
    {
        environment.sort_by_key(|variable| variable["name"].to_string());
    }
}

fn name(object: &Value) -> String {
    let part = |part: &Value| part.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", part(&object["kind"]), part(&metadata["namespace"]), part(&metadata["name"]))
}
