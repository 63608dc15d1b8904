//! Tests of the Service's ports.

use super::*;

/// Returns a Service with port 25 of others, and our ports 993 and 587.
fn service(spec: &Value, status: &Value) -> OwnService {
    let ours = json!({ "f:spec": { "f:ports": {
        r#"k:{"port":993,"protocol":"TCP"}"#: { "f:name": {} },
        r#"k:{"port":587,"protocol":"TCP"}"#: { "f:name": {} },
    } } });
    let mut all = json!({
        "metadata": {
            "namespace": "mail",
            "name": "edge",
            "managedFields": [{ "manager": "us", "operation": "Apply", "fieldsV1": ours }],
        },
        "spec": { "ports": [
            { "name": "smtp", "port": 25, "nodePort": 30025 },
            { "name": "mail-993", "port": 993, "nodePort": 30993 },
            { "name": "mail-587", "port": 587 },
            { "name": "dns", "port": 53, "protocol": "UDP" },
        ] },
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        all["spec"][field] = value.clone();
    }
    OwnService::read(&serde_json::from_value(all).unwrap(), "us")
}

/// Adds ready endpoints with these ports.
fn with(service: OwnService, ports: &[(&str, u16)]) -> OwnService {
    let port =
        |(name, number): &(&str, u16)| EndpointPort { name: (*name).to_owned(), number: Some(*number) };
    service.with(Some(ports.iter().map(port).collect()), BTreeMap::new())
}

/// Returns why clients cannot connect to port 993 through this Service.
fn unusable(service: OwnService) -> String {
    match Front::Known(Box::new(service)).reach(993) {
        Reach::Unusable(why) => why,
        other => panic!("{other:?}"),
    }
}

fn ports(ports: &[u16]) -> BTreeSet<u16> {
    ports.iter().copied().collect()
}

#[test]
fn only_our_own_ports_are_changed() {
    let service = service(&json!({}), &json!({}));
    assert_eq!(service.plan(&ports(&[587, 993])), PortPlan::Keep);
    assert_eq!(service.plan(&ports(&[25, 587, 993])), PortPlan::Keep, "25 is there, and is not ours");
    assert_eq!(service.plan(&ports(&[993, 995])), PortPlan::Apply(ports(&[993, 995])));
    assert_eq!(service.plan(&ports(&[])), PortPlan::Apply(ports(&[])));
}

#[test]
fn accepts_ports_that_others_have_changed() {
    let changed = json!([
        { "name": "mail-993", "port": 993, "targetPort": 10993 },
        { "name": "mail-995", "port": 80, "targetPort": 80 },
        { "name": "mail-995-1", "port": 995, "targetPort": 995, "protocol": "UDP" },
    ]);
    let patch = service(&json!({ "ports": changed }), &json!({})).patch(&ports(&[993, 995, 587]));
    assert_eq!(
        patch["spec"]["ports"],
        json!([
            { "name": "mail-587", "port": 587, "targetPort": 587, "protocol": "TCP" },
            { "name": "mail-993", "port": 993, "targetPort": 10993, "protocol": "TCP" },
            { "name": "mail-995-2", "port": 995, "targetPort": 995, "protocol": "TCP" },
        ])
    );
}

#[test]
fn the_last_port_of_a_service_stays() {
    let ours = json!({ "ports": [{ "name": "mail-993", "port": 993 }] });
    let service = service(&ours, &json!({}));
    assert_eq!(service.plan(&ports(&[])), PortPlan::KeepLast);
}

#[test]
fn clients_find_a_port_where_the_service_is_reached() {
    let nodes = BTreeSet::from(["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
    let balanced =
        json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.5" }, { "hostname": "lb.example" }] } });
    let balancer = service(&json!({ "type": "LoadBalancer" }), &balanced);
    assert_eq!(balancer.addresses(993, &nodes), ["203.0.113.5:993", "lb.example:993"]);
    assert!(balancer.addresses(995, &nodes).is_empty());
    let node_port = service(&json!({ "type": "NodePort" }), &json!({}));
    assert_eq!(node_port.addresses(993, &nodes), ["192.0.2.7:30993", "[2001:db8::7]:30993"]);
    assert!(node_port.addresses(587, &nodes).is_empty());
    let inside = service(&json!({ "clusterIPs": ["10.96.0.9", "fd00::9"] }), &json!({}));
    assert_eq!(inside.addresses(25, &nodes), ["10.96.0.9:25", "[fd00::9]:25"]);
    let headless = service(&json!({ "clusterIPs": ["None"] }), &json!({}));
    assert!(headless.addresses(25, &nodes).is_empty());
}

#[test]
fn a_port_is_reached_when_the_service_and_its_ready_endpoints_have_it() {
    let own = || service(&json!({}), &json!({}));
    let front = |service: OwnService| Front::Known(Box::new(service));
    let pending = |front: &Front, port| matches!(front.reach(port), Reach::Pending(_));
    assert_eq!(front(own()).reach(993), Reach::Reached, "endpoints cannot be read");
    assert!(pending(&front(own()), 995));
    assert_eq!(front(with(own(), &[("smtp", 25), ("mail-993", 993)])).reach(993), Reach::Reached);
    assert!(pending(&front(with(own(), &[("smtp", 25)])), 993));
    let refused = front(own().with(None, BTreeMap::from([(995, "forbidden".to_owned())])));
    assert!(
        matches!(refused.reach(995), Reach::Refused(why) if why.starts_with("cannot add port 995 to the Service "))
    );
    assert_eq!(refused.reach(993), Reach::Reached);
    assert!(pending(&refused, 143), "another port is not refused");
    assert_eq!(Front::None.reach(1), Reach::Reached);
    let key = Key::new("mail", "edge");
    assert!(pending(&Front::Awaited(key.clone()), 993));
    assert!(matches!(Front::NotFound(key).reach(993), Reach::NotFound(_)));
}

#[test]
fn a_port_that_leads_to_another_port_of_the_pods_is_not_reached() {
    let elsewhere = json!({ "ports": [{ "name": "mail-993", "port": 993, "targetPort": 10993 }] });
    let by_name = json!({ "ports": [{ "name": "mail-993", "port": 993, "targetPort": "imaps" }] });
    let own = |spec: &Value| service(spec, &json!({}));
    for service in [own(&elsewhere), with(own(&by_name), &[("mail-993", 10993)])] {
        let why = unusable(service);
        for part in ["Service mail/edge", "port 993 to port 10993", "set targetPort", "spec.ports to 993"] {
            assert!(why.contains(part), "{why}");
        }
    }
    let reach = |service: OwnService| Front::Known(Box::new(service)).reach(993);
    assert_eq!(reach(own(&by_name)), Reach::Reached, "nobody knows what the name stands for");
    assert_eq!(reach(with(own(&by_name), &[("mail-993", 993)])), Reach::Reached);
    let rolling = [("mail-993", 993), ("mail-993", 10993)];
    assert_eq!(reach(with(own(&by_name), &rolling)), Reach::Reached, "some pods have it");
    let mut headless = elsewhere;
    headless["clusterIP"] = json!("None");
    assert_eq!(reach(own(&headless)), Reach::Reached, "clients connect to the pods themselves");
}

#[test]
fn a_service_that_selects_other_pods_is_reported() {
    let strangers = with(service(&json!({}), &json!({})), &[("mail-993", 993)]).with_other_pods(true);
    let why = unusable(strangers);
    assert!(why.contains("Service mail/edge") && why.contains("correct its spec.selector"), "{why}");
}

#[test]
fn a_deleted_or_external_service_is_unusable() {
    let read = |service: Value| OwnService::read(&serde_json::from_value(service).unwrap(), "us");
    let metadata = json!({ "namespace": "mail", "name": "edge" });
    let ports = json!([{ "name": "mail-993", "port": 993 }]);
    let mut going = metadata.clone();
    going["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let spec = json!({ "ports": ports, "clusterIPs": ["10.96.0.9"] });
    let going = read(json!({ "metadata": going, "spec": spec }));
    assert!(going.addresses(993, &BTreeSet::new()).is_empty());
    let why = unusable(going);
    assert!(why.contains("is being deleted (metadata.deletionTimestamp is set); create it again"), "{why}");
    let spec = json!({ "type": "ExternalName", "externalName": "mx.example", "ports": ports });
    let why = unusable(read(json!({ "metadata": metadata, "spec": spec })));
    assert!(why.contains("type ExternalName and leads to mx.example") && why.contains("spec.type"), "{why}");
}

#[test]
fn a_load_balancer_without_an_address_is_reported_and_usable() {
    let balancer = |status: &Value| service(&json!({ "type": "LoadBalancer" }), status);
    let waiting = balancer(&json!({}));
    let text = waiting.pending_address(993).unwrap();
    assert!(text.contains("Service mail/edge") && text.contains("status.loadBalancer"), "{text}");
    assert_eq!(waiting.pending_address(995), None, "not a port of that Service");
    assert_eq!(Front::Known(Box::new(waiting)).reach(993), Reach::Reached);
    let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.5" }] } });
    assert_eq!(balancer(&balanced).pending_address(993), None);
    assert_eq!(service(&json!({}), &json!({})).pending_address(993), None);
}

#[test]
fn only_local_traffic_keeps_the_clients_address() {
    let hides = |spec: Value| service(&spec, &json!({})).hides_clients;
    assert!(hides(json!({ "type": "LoadBalancer" })));
    assert!(hides(json!({ "type": "NodePort", "externalTrafficPolicy": "Cluster" })));
    assert!(!hides(json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" })));
    assert!(!hides(json!({ "type": "ClusterIP" })));
}
