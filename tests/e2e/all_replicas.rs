//! `mailgress sessions`, `kick` and `why` with `--all-replicas`: the commands run in the pods, through a real API server and
//! a real kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::mail::list;
use crate::release::Release;
use crate::support::wire::Wire;
use crate::traffic::{Doors, imap_session};

/// Sessions on both replicas are listed, and a user's are ended on both. Others go on.
pub fn are_asked(cluster: &Cluster, release: &Release<'_>, doors: Doors) {
    let caller = Caller { kubeconfig: cluster.kubeconfig(), namespace: &release.name };
    let mut other = imap_session(doors.imaps, OTHER).unwrap();
    let ended = on_all_replicas(&caller, doors, release.pods().len());

    let (is_success, table, errors) = caller.run(&["sessions", "--user", KICKED]);
    assert!(is_success, "{errors}");
    assert!(table.starts_with("REPLICA"), "{table}");
    assert!(table.ends_with(&format!("\n{} sessions on 2 replicas\n", ended.len())), "{table}");

    let (is_success, said, errors) = caller.run(&["kick", "--user", KICKED]);
    assert!(is_success, "{errors}");
    assert_eq!(said, format!("Ended {} sessions on 2 replicas.\n", ended.len()));
    for mut session in ended {
        assert!(session.line().unwrap().starts_with("* BYE"));
    }
    let (is_success, said, errors) = caller.run(&["sessions", "--user", KICKED]);
    assert!(is_success, "{errors}");
    assert_eq!(said, "No session matches.\n");
    other.imap("n", "NOOP").unwrap();

    let (is_success, said, errors) = caller.run(&["why", OTHER, "--protocol", "IMAP"]);
    assert!(is_success, "{errors}");
    assert!(said.contains("1 open session on 2 replicas: 1 on "), "{said}");
}

/// Who lacks a permission is told which one to ask for.
pub fn are_asked_only_with_permission(cluster: &Cluster, release: &Release<'_>) {
    let namespace = &release.name;
    let nobody = Caller { kubeconfig: account(cluster, namespace, "nobody", &[]), namespace };
    let (is_success, _, errors) = nobody.run(&["sessions"]);
    assert!(!is_success);
    assert!(errors.contains(&format!("the pods in namespace {namespace} cannot be listed")), "{errors}");
    assert!(errors.contains("list") && errors.contains("pods"), "{errors}");

    let rules = [json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] })];
    let reader = Caller { kubeconfig: account(cluster, namespace, "reader", &rules), namespace };
    let (is_success, said, errors) = reader.run(&["sessions"]);
    assert!(!is_success, "{said}");
    for pod in release.pods() {
        let name = pod.trim_start_matches("pod/");
        let line = errors.lines().find(|line| line.starts_with(&format!("{name}: ")));
        assert!(line.is_some_and(|line| line.contains("get and create on pods/exec")), "{name}: {errors}");
    }

    let exec = json!({ "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"] });
    let rules = [rules[0].clone(), exec];
    let support = Caller { kubeconfig: account(cluster, namespace, "support", &rules), namespace };
    let (is_success, said, errors) = support.run(&["sessions"]);
    assert!(is_success, "{said}{errors}");
    // After the release is uninstalled, its namespace must be empty.
    let accounts = ["delete", "serviceaccount,role,rolebinding", "nobody", "reader", "support"];
    cluster.kubectl(&[&accounts[..], &["-n", namespace]].concat());
}

/// Opens sessions of one user until every replica has one.
fn on_all_replicas(caller: &Caller<'_>, doors: Doors, replicas: usize) -> Vec<Wire> {
    let mut sessions = Vec::new();
    while sessions.len() < MANY {
        sessions.push(imap_session(doors.imaps, KICKED).unwrap());
        let (is_success, text, errors) = caller.run(&["sessions", "--user", KICKED, "--output", "json"]);
        assert!(is_success, "{text}{errors}");
        let answers: Value = serde_json::from_str(&text).unwrap();
        let counts: BTreeMap<&str, usize> = answers["replicas"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["replica"].as_str().unwrap(), one["sessions"].as_array().unwrap().len()))
            .collect();
        assert_eq!((counts.len(), counts.values().sum()), (replicas, sessions.len()), "{text}");
        if counts.values().all(|count| *count > 0) {
            return sessions;
        }
    }
    panic!("{MANY} connections reach one replica only");
}

/// Who runs the commands.
struct Caller<'a> {
    kubeconfig: PathBuf,
    namespace: &'a str,
}

impl Caller<'_> {
    /// Returns whether the command succeeds, its output, and its errors.
    fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailgress"));
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        let output = command.args(["--all-replicas", "--namespace", self.namespace]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

/// Creates a ServiceAccount with these rules, and returns its kubeconfig.
fn account(cluster: &Cluster, namespace: &str, name: &str, rules: &[Value]) -> PathBuf {
    let metadata = json!({ "name": name, "namespace": namespace });
    let rbac = "rbac.authorization.k8s.io";
    cluster.apply(&list(&[
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": metadata, "rules": rules }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": { "apiGroup": rbac, "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        }),
    ]));
    let token = cluster.kubectl(&["create", "token", name, "-n", namespace]);
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_yaml::from_str(&text).unwrap();
    for user in kubeconfig["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token.trim() });
    }
    let file = cluster.files.path().join(format!("{name}.kubeconfig"));
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file
}

/// The user whose sessions are ended.
const KICKED: &str = "kicked@example.test";
const OTHER: &str = "other@example.test";
/// With this many connections, each of two replicas gets one, except in one case of half a million.
const MANY: usize = 20;
