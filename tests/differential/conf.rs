//! The configuration that nginx and Mailgress serve: one `server {}` for each distinct setting.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::scenario::{Scenario, Server};
use super::support::pki::AUTHORITY;
use super::support::ports;

/// A configuration with the ports of its servers.
pub struct Conf {
    /// The `mail {}` block.
    pub text: String,
    ports: BTreeMap<Server, u16>,
}

impl Conf {
    /// Creates it with separate ports. `auth` is the auth service's port.
    pub fn new(scenarios: &[Scenario], auth: u16) -> Self {
        let mut ports = BTreeMap::new();
        for scenario in scenarios {
            ports.entry(scenario.server.clone()).or_insert_with(ports::free);
        }
        let mut text = format!(
            "mail {{\n    server_name mail.test;\n    auth_http 127.0.0.1:{auth}/auth;\n    \
             auth_http_header X-Auth-Key k;\n    ssl_certificate mail.pem;\n    ssl_certificate_key mail.pem;\n    \
             ssl_protocols TLSv1.2 TLSv1.3;\n"
        );
        for (server, port) in &ports {
            let Server { protocol, body, listen } = server;
            let _ = writeln!(
                text,
                "    server {{ listen 127.0.0.1:{port} {listen}; protocol {protocol}; {body} }}"
            );
        }
        text.push_str("}\n");
        Self { text, ports }
    }

    /// Returns the port of a scenario's server.
    pub fn port(&self, server: &Server) -> u16 {
        self.ports[server]
    }

    /// Writes the configuration and its certificate. `preamble` comes first.
    pub fn write(&self, folder: &Path, preamble: &str) {
        let identity = AUTHORITY.issue_for_loopback();
        std::fs::write(folder.join("mail.pem"), identity.certificate + &identity.key).unwrap();
        std::fs::write(folder.join("nginx.conf"), format!("{preamble}{}", self.text)).unwrap();
    }
}
