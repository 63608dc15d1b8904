//! Reads the ports and the external name of a Service.

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::api::common::PortRef;

/// Returns the external name of an `ExternalName` Service.
pub(crate) fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("ExternalName") {
        return None;
    }
    Some(spec.external_name.as_deref().unwrap_or_default())
}

/// Returns all ports of a Service.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// Returns the TCP port with a number or name.
pub(crate) fn port_of<'a>(service: &'a Service, wanted: &PortRef) -> Option<&'a ServicePort> {
    tcp_ports(service).find(|port| match wanted {
        PortRef::Number(number) => port.port == i32::from(*number),
        PortRef::Name(name) => port.name.as_ref() == Some(name),
    })
}

fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    ports(service).iter().filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
}

/// Lists a Service's ports for a message.
pub(crate) fn ports_of(service: &Service) -> String {
    let all = tcp_ports(service).map(|port| match &port.name {
        Some(name) => format!("{} ({name})", port.port),
        None => port.port.to_string(),
    });
    let all: Vec<String> = all.collect();
    if all.is_empty() { ", and lists none".to_owned() } else { format!(", only {}", all.join(", ")) }
}
