//! Values that are refused, with their name and the remedy, and the effect of valid values.

use serde_json::{Value, json};

use crate::pages::Page;
use crate::tools::{CHART, Tools, find, root, succeeded};

#[test]
fn a_value_that_is_mistyped_is_refused_by_its_name() {
    let Some(tools) = Tools::new("a_value_that_is_mistyped_is_refused_by_its_name") else { return };
    for (value, named) in [
        ("servce.type=NodePort", "'servce'"),
        ("service.typ=NodePort", "'typ'"),
        ("image.tags=1", "'tags'"),
        ("metrics.podMonitor.enable=true", "'enable'"),
        ("mailServers.example.specs.x=1", "'specs'"),
        ("references[0].secret=x", "'secret'"),
        ("service.ports[0].prt=25", "'prt'"),
        ("kind=StatefulSet", "/kind"),
        ("replicas=two", "/replicas"),
        ("drain.timeout=5 minutes", "/drain/timeout"),
        ("drain.timeout=300", "/drain/timeout"),
        ("drain.spread=10", "/drain/spread"),
        ("lowPorts=Root", "/lowPorts"),
        ("image.digest=sha256:123", "/image/digest"),
        ("hostPorts[0]=70000", "/hostPorts/0"),
        ("proxyProtocol.provider=azure", "/proxyProtocol/provider"),
        ("service.externalTrafficPolicy=Global", "/service/externalTrafficPolicy"),
        ("namespaces[0]=Mail", "/namespaces/0"),
    ] {
        let refusal = tools.refusal(&["--set", value]);
        assert!(refusal.contains(named), "{value}: {refusal}");
    }
}

#[test]
fn a_mail_server_that_is_mistyped_is_refused_by_the_fields_name() {
    let Some(tools) = Tools::new("a_mail_server_that_is_mistyped_is_refused_by_the_fields_name") else {
        return;
    };
    let listener = "listeners[0].name=imaps,mailServers.example.spec.listeners[0].port=993";
    let refusal = |value: &str| tools.refusal(&["--set", &set(&[listener, value])]);
    for (value, named) in [
        ("listener.name=imaps", "'/mailServers/example/spec': additional properties 'listener'"),
        ("auth.passthru.x=1", "'/mailServers/example/spec/auth': additional properties 'passthru'"),
        (
            "auth.passthrough.user=x",
            "'/mailServers/example/spec/auth/passthrough': additional properties 'user'",
        ),
        ("tls.mode=StartTSL", "'/mailServers/example/spec/tls/mode': value must be one of"),
        ("tls.certificateRefs[0].nam=mail-tls", "additional properties 'nam' not allowed"),
        ("listeners[0].prt=993", "'/mailServers/example/spec/listeners/0': additional properties 'prt'"),
        ("listeners[0].port=imaps", "'/mailServers/example/spec/listeners/0/port': got string, want integer"),
        ("listeners[0].port=99300", "/spec/listeners/0/port': maximum"),
        ("listeners[0].name=", "/spec/listeners/0/name': minLength"),
        ("listeners[0].backendRef.nme=dovecot", "/listeners/0/backendRef': additional properties 'nme'"),
        ("listeners[0].timeouts.client=300", "/listeners/0/timeouts/client': got number, want string"),
        ("limits.clientBuffer=many", "/spec/limits/clientBuffer': 'many' does not match pattern"),
        ("limits.clientBuffer=true", "/spec/limits/clientBuffer': got boolean, want integer or string"),
    ] {
        let said = refusal(value);
        assert!(said.contains(named), "{value}: {said}");
    }
    for value in [
        "limits.clientBuffer=4096",
        "limits.clientBuffer=4Ki",
        "listeners[0].timeouts.client=5m",
        "auth.http.headers[0].name=X-Key,mailServers.example.spec.auth.http.headers[0].value=x",
        "allowedListeners.namespaces.selector.matchLabels.team=mail",
    ] {
        succeeded(tools.template(&["--set", &set(&[listener, value])]));
    }
}

fn set(values: &[&str]) -> String {
    values.iter().map(|value| format!("mailServers.example.spec.{value}")).collect::<Vec<_>>().join(",")
}

#[test]
fn values_of_the_charts_readme_are_accepted() {
    let Some(tools) = Tools::new("values_of_the_charts_readme_are_accepted") else { return };
    let name = format!("{CHART}/README.md");
    let readme = Page { text: std::fs::read_to_string(root().join(&name)).unwrap(), name };
    let blocks: Vec<_> = readme.blocks().into_iter().filter(|block| block.language == "yaml").collect();
    assert!(blocks.len() > 2, "{blocks:?}");
    for block in blocks {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), &block.text).unwrap();
        succeeded(tools.template(&["-f", file.path().to_str().unwrap()]));
    }
}

#[test]
fn values_that_do_not_go_together_are_refused_with_what_to_do() {
    let Some(tools) = Tools::new("values_that_do_not_go_together_are_refused_with_what_to_do") else {
        return;
    };
    for (values, sentence) in [
        (
            "hostNetwork=true,lowPorts=Sysctl",
            "lowPorts: Kubernetes allows no net.* sysctl with hostNetwork; use Capability",
        ),
        (
            "hostNetwork=true,hostPorts={25}",
            "hostPorts: with hostNetwork, all ports of a pod are ports of the node",
        ),
        ("hostPorts={9090}", "hostPorts: the admin port cannot be a host port"),
        ("kind=DaemonSet,autoscaling.enabled=true", "autoscaling: a DaemonSet has one pod on each node"),
        (
            "autoscaling.enabled=true,autoscaling.minReplicas=20",
            "autoscaling: minReplicas is more than maxReplicas",
        ),
        ("autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=null", "no metric to scale by"),
        ("proxyProtocol.provider=aws", "it needs proxyProtocol.trustedPeers"),
        ("service.ports=null", "service.ports: a new Service needs at least one port"),
        ("service.ports[0].port=9090", "service.ports: 9090 is the admin port"),
        ("service.ports[0].port=9091", "service.ports: 9091 is the port of the status page"),
        ("admin.status.port=9090", "admin.status.port: it is also admin.port, at another address"),
        ("podDisruptionBudget.minAvailable=1", "minAvailable and maxUnavailable exclude each other"),
        ("serviceAccount.create=false", "serviceAccount.name: say which one"),
        (
            "metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled={Nothing}",
            "there is no alert Nothing",
        ),
        ("metrics.serviceMonitor.enabled=true,admin.service.enabled=false", "it needs the admin Service"),
        ("replicaCount=3", "replicaCount: other charts have this value; here it is replicas"),
        ("strategy.type=Recreate", "here it is updateStrategy"),
        ("containerSecurityContext.runAsUser=1", "here it is securityContext"),
        ("service.sessionAffinityTimeoutSeconds=600", "it needs service.sessionAffinity: ClientIP"),
    ] {
        let refusal = tools.refusal(&["--set", values]);
        assert!(refusal.contains(sentence), "{values}: {refusal}");
    }
}

#[test]
fn the_grace_period_is_as_long_as_the_drain() {
    let Some(tools) = Tools::new("the_grace_period_is_as_long_as_the_drain") else { return };
    for (values, seconds) in [
        ("drain.delay=10s", 140),
        ("drain.delay=0s,drain.timeout=1h30m,drain.margin=10s", 5410),
        ("drain.delay=500ms,drain.timeout=1m,drain.margin=1s", 62),
        ("drain.timeout=1h,drain.spread=10m,drain.margin=0s", 3610),
    ] {
        let pod = pod(&tools, values);
        assert_eq!(pod["terminationGracePeriodSeconds"], seconds, "{values}");
    }
}

#[test]
fn ports_below_1024_need_no_root_but_with_the_nodes_network() {
    let Some(tools) = Tools::new("ports_below_1024_need_no_root_but_with_the_nodes_network") else { return };
    let sysctl = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]);
    let of = |values: &str| {
        let pod = pod(&tools, values);
        let (context, container) = (&pod["securityContext"], &pod["containers"][0]["securityContext"]);
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]), "{values}");
        assert_eq!(container["readOnlyRootFilesystem"], true, "{values}");
        assert_eq!(container["allowPrivilegeEscalation"], false, "{values}");
        let add = container["capabilities"]["add"].clone();
        (context["sysctls"].clone(), context["runAsNonRoot"].clone(), context["runAsUser"].clone(), add)
    };
    assert_eq!(of("kind=Deployment"), (sysctl, json!(true), json!(65532), Value::Null));
    let capable = (Value::Null, json!(false), json!(0), json!(["NET_BIND_SERVICE"]));
    assert_eq!(of("hostNetwork=true"), capable);
    assert_eq!(of("lowPorts=Capability"), capable);
    assert_eq!(of("lowPorts=None"), (Value::Null, json!(true), json!(65532), Value::Null));
}

#[test]
fn every_flag_of_run_can_be_given() {
    let Some(tools) = Tools::new("every_flag_of_run_can_be_given") else { return };
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_mailgress")).args(["run", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let values =
        "namespaces={mail},workers=4,zone=a,drain.spread=10s,proxyProtocol.trustedPeers={10.0.0.0/8}";
    let pod = pod(&tools, values);
    let set = pod["containers"][0]["env"].as_array().unwrap();
    let mut flags = 0;
    for part in help.split("[env: ").skip(1) {
        let variable = part.split(['=', ']']).next().unwrap();
        // These are for other environments than a pod of the served cluster.
        if !["MAILGRESS_MANIFESTS", "MAILGRESS_KUBECONFIG"].contains(&variable) {
            assert!(set.iter().any(|known| known["name"] == variable), "{variable}");
            flags += 1;
        }
    }
    assert!(flags > 10, "{help}");
}

#[test]
fn mailgress_may_read_what_the_mail_servers_of_the_values_name() {
    let Some(tools) = Tools::new("mailgress_may_read_what_the_mail_servers_of_the_values_name") else {
        return;
    };
    let file = root().join("tests/chart/values/mailservers.yaml");
    let objects = tools.objects(&["-f", file.to_str().unwrap()]);
    let role = |namespace: &str| {
        let name = "mailgress-references";
        let mut roles = objects.iter().filter(|object| object["kind"] == "Role");
        let found =
            roles.find(|role| role["metadata"]["namespace"] == namespace && role["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("{namespace}"))["rules"].clone()
    };
    let rule = |resource: &str, names: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get", "list", "watch"] });
    let secrets =
        rule("secrets", &["auth-key", "backend-client", "client-ca", "extra", "mail-tls", "more", "pop-tls"]);
    assert_eq!(role("mail"), json!([secrets, rule("configmaps", &["auth-ca", "client-crl"])]));
    assert_eq!(role("other"), json!([rule("secrets", &["theirs"])]));
    let server = find(&objects, "MailServer", "example").unwrap();
    assert_eq!(server["spec"]["className"], "mailgress");
    let listeners = server["spec"]["listeners"].as_array().unwrap();
    let trusted = |listener: &Value| listener["proxyProtocol"]["trustedPeers"].clone();
    assert_eq!(listeners.iter().map(trusted).collect::<Vec<_>>(), [json!(null), json!(["192.0.2.0/24"])]);
    let deployment = find(&objects, "Deployment", "mailgress").unwrap();
    let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let default = json!({ "name": "MAILGRESS_PROXY_PROTOCOL_TRUSTED_PEERS", "value": "10.0.0.0/8" });
    assert!(environment.contains(&default), "{environment:?}");
    let service = find(&objects, "Service", "mailgress").unwrap();
    let annotation = "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol";
    assert_eq!(service["metadata"]["annotations"][annotation], "*");
    // Without an API server, they are ordinary objects.
    assert!(server["metadata"]["annotations"]["helm.sh/hook"].is_null());
}

#[test]
fn with_namespaces_there_is_nothing_that_is_cluster_wide_but_the_crds() {
    let Some(tools) = Tools::new("with_namespaces_there_is_nothing_that_is_cluster_wide_but_the_crds") else {
        return;
    };
    let objects = tools.objects(&["--set", "namespaces={mail,shop}"]);
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.starts_with("Cluster"), "{kind}");
        assert!(kind == "CustomResourceDefinition" || object["metadata"]["namespace"].is_string(), "{kind}");
    }
    assert_eq!(objects.iter().filter(|object| object["kind"] == "Role").count(), 3);
}

/// MailServers get passwords, so `edit` allows writing them only on request.
#[test]
fn view_and_edit_have_the_kinds_by_aggregation() {
    let Some(tools) = Tools::new("view_and_edit_have_the_kinds_by_aggregation") else { return };
    let roles = |values: &str| -> Vec<(String, Vec<String>, Value)> {
        let objects = tools.objects(&["--set", values, "--show-only", "templates/rbac.yaml"]);
        let role = |object: &Value| {
            let label = |(name, value): (&String, &Value)| {
                let to = name.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")?;
                (value == "true").then(|| to.to_owned())
            };
            let labels = object["metadata"]["labels"].as_object().unwrap();
            let to: Vec<String> = labels.iter().filter_map(label).collect();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            (!to.is_empty()).then(|| (name, to, object["rules"][0]["resources"].clone()))
        };
        objects.iter().filter_map(role).collect()
    };
    let to = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let all_kinds = json!([
        "mailservers",
        "maillisteners",
        "mailroutes",
        "mailservers/status",
        "maillisteners/status",
        "mailroutes/status"
    ]);
    let view = ("mailgress-view".to_owned(), to(&["admin", "edit", "view"]), all_kinds);
    let edit = |kinds: Value| ("mailgress-edit".to_owned(), to(&["admin", "edit"]), kinds);
    assert_eq!(roles("kind=Deployment"), [edit(json!(["maillisteners", "mailroutes"])), view.clone()]);
    let all = json!(["maillisteners", "mailroutes", "mailservers"]);
    assert_eq!(roles("rbac.aggregate.editMailServers=true"), [edit(all), view]);
    assert_eq!(roles("rbac.aggregate.edit=false,rbac.aggregate.view=false"), []);
    assert_eq!(roles("namespaces={mail}"), [], "they would be cluster-wide");
}

/// Returns the spec of the pod.
fn pod(tools: &Tools, values: &str) -> Value {
    let objects = tools.objects(&["--set", values, "--show-only", "templates/workload.yaml"]);
    objects[0]["spec"]["template"]["spec"].clone()
}
