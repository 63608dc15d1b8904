//! Mailgress's own Service: its ports, the addresses that clients connect to, and whether it keeps clients' addresses.
//! Pure.

mod endpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Value, json};

use super::index::Key;

pub use endpoints::{EndpointPort, have_no_replica, ready_addresses, ready_ports};

/// The state of the Service of `--service`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Front {
    /// There is no `--service`.
    #[default]
    None,
    /// The API server has not answered yet.
    Awaited(Key),
    /// The Service does not exist.
    NotFound(Key),
    /// The Service has never been read, for this reason.
    NotReadable(Key, String),
    /// The Service, as it was last read.
    Known(Box<OwnService>),
}

/// Whether clients can connect to a port through the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// They can, or there is no `--service`.
    Reached,
    /// Not yet.
    Pending(String),
    /// The Service cannot be read or cannot get the port, for this reason.
    Refused(String),
    /// The Service does not lead to Mailgress.
    Unusable(String),
    /// The Service does not exist.
    NotFound(String),
}

/// The Service that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Its namespace and name.
    pub key: Key,
    /// The type of the Service.
    pub kind: ServiceKind,
    /// Whether nodes may forward connections to other nodes and replace the client's address.
    pub hides_clients: bool,
    /// The addresses of the Service, without ports.
    addresses: Vec<String>,
    ports: BTreeMap<u16, Port>,
    /// The ports of ready endpoints; `None` if unknown.
    endpoints: Option<BTreeSet<EndpointPort>>,
    /// Whether it has ready endpoints, and none of them is a replica.
    selects_other_pods: bool,
    /// Why the Service cannot lead to Mailgress, whatever its ports are.
    obstacle: Option<String>,
    /// Whether `spec.clusterIP` is `None`. Clients then connect to the pods directly.
    is_headless: bool,
    /// The names of all its ports, of every protocol.
    names: BTreeSet<String>,
    /// Why ports could not be added.
    refused: BTreeMap<u16, String>,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reachable inside the cluster only.
    ClusterIp,
    /// Reachable at a port of every node.
    NodePort,
    /// Reachable at a load balancer.
    LoadBalancer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: String,
    /// A number or a name. Our ports have numbers, unless others have changed them.
    target: Value,
    node_port: Option<u16>,
    /// Whether our field manager has applied it.
    is_ours: bool,
}

/// The change that the ports need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortPlan {
    /// No change.
    Keep,
    /// Apply exactly these ports.
    Apply(BTreeSet<u16>),
    /// Keep the last ports, because a Service needs at least one.
    KeepLast,
}

impl Front {
    /// Returns the Service, if it has been read.
    #[must_use]
    pub fn known(&self) -> Option<&OwnService> {
        match self {
            Self::Known(service) => Some(service),
            _ => None,
        }
    }

    /// Tells whether clients can connect to this port through the Service.
    #[must_use]
    pub fn reach(&self, port: u16) -> Reach {
        match self {
            Self::None => Reach::Reached,
            Self::Awaited(key) => {
                Reach::Pending(format!("Service {key} (set by --service) has not been read yet"))
            }
            Self::NotFound(key) => Reach::NotFound(format!(
                "Service {key} (set by --service) not found; create it, or correct \
                 --service"
            )),
            Self::NotReadable(key, why) => {
                Reach::Refused(format!("cannot read Service {key} (set by --service): {why}"))
            }
            Self::Known(service) => service.reach(port),
        }
    }
}

impl OwnService {
    /// Reads a Service. `manager` is our field manager.
    #[must_use]
    pub fn read(service: &Service, manager: &str) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        let kind = match spec.type_.as_deref() {
            Some("LoadBalancer") => ServiceKind::LoadBalancer,
            Some("NodePort") => ServiceKind::NodePort,
            _ => ServiceKind::ClusterIp,
        };
        let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let owned = owned_ports(service, manager);
        let ports = spec.ports.iter().flatten().filter(|port| is_tcp(port)).filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            let name = port.name.clone().unwrap_or_default();
            let target = serde_json::to_value(&port.target_port).unwrap_or_default();
            Some((number, Port { name, target, node_port, is_ours: owned.contains(&number) }))
        });
        Self {
            key: Key::new(namespace.unwrap_or_default(), name.unwrap_or_default()),
            kind,
            hides_clients: kind != ServiceKind::ClusterIp && !is_local,
            addresses: match kind {
                ServiceKind::LoadBalancer => ingress(service),
                ServiceKind::NodePort => Vec::new(),
                ServiceKind::ClusterIp => cluster_ips(service),
            },
            ports: ports.collect(),
            endpoints: None,
            selects_other_pods: false,
            obstacle: obstacle(service),
            is_headless: spec.cluster_ip.as_deref() == Some("None"),
            names: spec.ports.iter().flatten().filter_map(|port| port.name.clone()).collect(),
            refused: BTreeMap::new(),
        }
    }

    /// Sets the ports of ready endpoints, and why ports could not be added.
    #[must_use]
    pub fn with(self, endpoints: Option<BTreeSet<EndpointPort>>, refused: BTreeMap<u16, String>) -> Self {
        Self { endpoints, refused, ..self }
    }

    /// Sets whether the ready endpoints are all other pods than replicas.
    #[must_use]
    pub fn with_other_pods(self, selects_other_pods: bool) -> Self {
        Self { selects_other_pods, ..self }
    }

    fn reach(&self, port: u16) -> Reach {
        let key = &self.key;
        if let Some(why) = &self.obstacle {
            return Reach::Unusable(format!("Service {key} (set by --service) {why}"));
        }
        let Some(found) = self.ports.get(&port) else {
            return match self.refused.get(&port) {
                Some(why) => Reach::Refused(format!("cannot add port {port} to the Service {key}: {why}")),
                None => Reach::Pending(format!("the Service {key} does not have the port {port} yet")),
            };
        };
        // kube-proxy takes the destinations of a port from its endpoints.
        let targets = self.targets(found);
        if targets.as_ref().is_some_and(BTreeSet::is_empty) {
            return Reach::Pending(format!(
                "no ready endpoint of the Service {key} has the port {port} yet; if this lasts, compare its \
                 spec.selector with the labels of the pods"
            ));
        }
        if self.selects_other_pods {
            return Reach::Unusable(format!(
                "no ready endpoint of Service {key} (set by --service) is a replica of Mailgress; correct its \
                 spec.selector, so that it selects the pods of Mailgress"
            ));
        }
        match targets.iter().flatten().next() {
            Some(Some(other))
                if !self.is_headless && !targets.iter().flatten().any(|to| leads_to(*to, port)) =>
            {
                Reach::Unusable(format!(
                    "Service {key} (set by --service) maps its port {port} to port {other} of the pods, where this \
                     listener does not listen; set targetPort of that port in its spec.ports to {port}"
                ))
            }
            _ => Reach::Reached,
        }
    }

    /// Returns the target ports of a port (an element `None` stands for any port); `None` if they are unknown, because
    /// only the pods have the numbers of named ports.
    fn targets(&self, port: &Port) -> Option<BTreeSet<Option<u16>>> {
        let Some(endpoints) = &self.endpoints else {
            let number = u16::try_from(port.target.as_u64()?).ok()?;
            return Some(BTreeSet::from([Some(number)]));
        };
        Some(endpoints.iter().filter(|found| found.name == port.name).map(|found| found.number).collect())
    }

    /// Returns a message if clients outside the cluster cannot connect to a port yet, because the load balancer has no
    /// address.
    #[must_use]
    pub fn pending_address(&self, port: u16) -> Option<String> {
        let is_pending =
            self.kind == ServiceKind::LoadBalancer && self.addresses.is_empty() && self.has(port);
        is_pending.then(|| {
            format!(
                "the Service {} of type LoadBalancer has no address in status.loadBalancer yet, so only clients in \
                 the cluster can connect; if this lasts, install a load balancer, or set spec.type to NodePort",
                self.key
            )
        })
    }

    /// Returns the ports that our field manager has applied.
    #[must_use]
    pub fn shown(&self) -> BTreeSet<u16> {
        self.ports.iter().filter(|(_, port)| port.is_ours).map(|(number, _)| *number).collect()
    }

    /// Whether it has this port.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Returns the change that makes `wanted` our ports. Ports of others are not changed, even if they are in `wanted`.
    #[must_use]
    pub fn plan(&self, wanted: &BTreeSet<u16>) -> PortPlan {
        let others = |port: &u16| self.ports.get(port).is_some_and(|port| !port.is_ours);
        let ours: BTreeSet<u16> = wanted.iter().copied().filter(|port| !others(port)).collect();
        if ours == self.shown() {
            PortPlan::Keep
        } else if ours.is_empty() && self.ports.values().all(|port| port.is_ours) {
            PortPlan::KeepLast
        } else {
            PortPlan::Apply(ours)
        }
    }

    /// Returns the patch for server-side apply. Fields of our ports that others have changed stay, and names of others'
    /// ports are not used.
    #[must_use]
    pub fn patch(&self, ports: &BTreeSet<u16>) -> Value {
        let free = |name: &String| !self.names.contains(name);
        let entry = |number: &u16| {
            let known = self.ports.get(number).filter(|port| port.is_ours && !port.target.is_null());
            let (name, target) = known.map_or_else(
                || {
                    let usual = format!("mail-{number}");
                    let others = (1..).map(|other| format!("{usual}-{other}"));
                    let name = std::iter::once(usual.clone()).chain(others).find(free);
                    (name.unwrap_or(usual), json!(number))
                },
                |port| (port.name.clone(), port.target.clone()),
            );
            json!({ "name": name, "port": number, "targetPort": target, "protocol": "TCP" })
        };
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.key.name, "namespace": self.key.namespace },
            "spec": { "ports": ports.iter().map(entry).collect::<Vec<_>>() },
        })
    }

    /// Returns the addresses for a port. Empty if the Service does not have the port or has no address.
    #[must_use]
    pub fn addresses(&self, port: u16, nodes: &BTreeSet<IpAddr>) -> Vec<String> {
        let Some(found) = self.ports.get(&port).filter(|_| self.obstacle.is_none()) else {
            return Vec::new();
        };
        match (self.kind, found.node_port) {
            (ServiceKind::NodePort, Some(node_port)) => {
                nodes.iter().map(|node| joined(&node.to_string(), node_port)).collect()
            }
            (ServiceKind::NodePort, None) => Vec::new(),
            _ => self.addresses.iter().map(|address| joined(address, port)).collect(),
        }
    }
}

/// Joins an address and a port, with brackets for IPv6.
#[must_use]
pub fn joined(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Returns why a Service cannot lead to Mailgress, whatever its ports are.
fn obstacle(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    if service.metadata.deletion_timestamp.is_some() {
        let text = "is being deleted (metadata.deletionTimestamp is set); create it again once it is gone, or name \
                    another one in --service";
        return Some(text.to_owned());
    }
    (spec.type_.as_deref() == Some("ExternalName")).then(|| {
        format!(
            "is of type ExternalName and leads to {}, not to the pods of Mailgress; set its spec.type to ClusterIP, \
             NodePort or LoadBalancer",
            spec.external_name.as_deref().unwrap_or("another host")
        )
    })
}

fn leads_to(target: Option<u16>, port: u16) -> bool {
    target.is_none_or(|target| target == port)
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn ingress(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    let address = |ingress: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
        ingress.ip.clone().or_else(|| ingress.hostname.clone())
    };
    ingress.into_iter().flatten().filter_map(address).collect()
}

fn cluster_ips(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let ips = spec.and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    ips.into_iter().filter(|ip| ip != "None" && !ip.is_empty()).collect()
}

/// Returns the ports that `manager` has applied, from the Service's managed fields.
fn owned_ports(service: &Service, manager: &str) -> BTreeSet<u16> {
    let managed = service.metadata.managed_fields.iter().flatten();
    let ours = managed.filter(|entry| entry.manager.as_deref() == Some(manager));
    ours.filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:spec")?.get("f:ports")?.as_object())
        .flat_map(|ports| ports.keys())
        .filter_map(|key| serde_json::from_str::<Value>(key.strip_prefix("k:")?).ok())
        .filter_map(|key| u16::try_from(key["port"].as_u64()?).ok())
        .collect()
}

#[cfg(test)]
mod tests;
