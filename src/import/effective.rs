//! Combines `server {}` with `mail {}`: a server's own directives, else the inherited ones.

use crate::net::ListenAddress;

use super::Source;
use super::listen::{self, Socket};
use super::problem::Findings;
use super::protocol::Protocol;
use super::tree::Directive;

/// A server with its inherited directives.
pub(super) struct Server<'a> {
    /// The `server {}` block.
    pub(super) own: &'a Directive,
    mail: &'a Directive,
    /// The protocol, from `protocol` or the port.
    pub(super) protocol: Protocol,
    /// The sockets of its `listen` directives.
    pub(super) sockets: Vec<Socket>,
}

/// Returns all servers without a problem, checked as nginx does after reading the whole configuration.
pub(super) fn servers<'a>(mail: &'a Directive, source: &dyn Source, found: &mut Findings) -> Vec<Server<'a>> {
    let mut taken = Vec::new();
    let mut servers = Vec::new();
    let all = || mail.block.iter().flatten().filter(|directive| directive.name() == "server");
    for own in all() {
        let Some(sockets) = sockets(own, source, &mut taken, found) else { continue };
        let named = directives(own, "protocol").last().map(|directive| directive.argument(0));
        let mut ports = sockets.iter().filter_map(|socket| socket.address.port());
        match named.and_then(protocol).or_else(|| ports.find_map(protocol_of)) {
            Some(protocol) => servers.push(Server { own, mail, protocol, sockets }),
            // The protocol's name has already been refused.
            None if named.is_some() => {}
            None => found.problems.push(own.problem("unknown mail protocol for server")),
        }
    }
    if all().next().is_none() && found.problems.is_empty() {
        found.problems.push(mail.problem("there is no server {} in this mail {}"));
    }
    servers
}

/// Returns the sockets of a server; `None` if it has none, which is a problem.
fn sockets(
    own: &Directive,
    source: &dyn Source,
    taken: &mut Vec<ListenAddress>,
    found: &mut Findings,
) -> Option<Vec<Socket>> {
    let mut sockets: Vec<Socket> = Vec::new();
    for directive in directives(own, "listen") {
        for socket in found.keep(listen::sockets(directive, source)).into_iter().flatten() {
            if taken.contains(&socket.address) {
                let message = format!("duplicate \"{}\" address and port pair", socket.written());
                found.problems.push(directive.problem(message));
                continue;
            }
            taken.push(socket.address.clone());
            sockets.push(socket);
        }
    }
    if directives(own, "listen").next().is_none() {
        found.problems.push(own.problem("no \"listen\" is defined for server"));
    }
    (!sockets.is_empty()).then_some(sockets)
}

/// Returns the protocol of a port, as in nginx and in manifests.
pub(super) fn protocol_of(port: u16) -> Option<Protocol> {
    match port {
        25 | 465 | 587 => Some(Protocol::Smtp),
        110 | 995 => Some(Protocol::Pop3),
        143 | 993 => Some(Protocol::Imap),
        _ => None,
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "imap" => Some(Protocol::Imap),
        "pop3" => Some(Protocol::Pop3),
        "smtp" => Some(Protocol::Smtp),
        _ => None,
    }
}

fn directives<'a>(level: &'a Directive, name: &'a str) -> impl Iterator<Item = &'a Directive> + use<'a> {
    level.block.iter().flatten().filter(move |directive| directive.name() == name)
}

impl<'a> Server<'a> {
    /// Returns all directives with this name: the server's own, else those of `mail {}`.
    pub(super) fn all(&self, name: &'a str) -> Vec<&'a Directive> {
        let own: Vec<_> = directives(self.own, name).collect();
        if own.is_empty() { directives(self.mail, name).collect() } else { own }
    }

    /// Returns the directive with this name; the last one if there are several.
    pub(super) fn get(&self, name: &'a str) -> Option<&'a Directive> {
        self.all(name).last().copied()
    }

    /// Returns the first argument of a directive.
    pub(super) fn text(&self, name: &'a str) -> Option<&'a str> {
        self.get(name).map(|directive| directive.argument(0))
    }

    /// Returns the first argument of a directive in lower case.
    pub(super) fn word(&self, name: &'a str) -> Option<String> {
        self.text(name).map(str::to_ascii_lowercase)
    }

    /// Returns the arguments of all directives with this name.
    pub(super) fn list(&self, name: &'a str) -> Option<Vec<String>> {
        let all = self.all(name);
        let words = || all.iter().flat_map(|directive| directive.arguments()).cloned().collect();
        (!all.is_empty()).then(words)
    }

    /// Returns the value of an `on` / `off` directive.
    pub(super) fn flag(&self, name: &'a str) -> Option<bool> {
        self.text(name).map(|text| text.eq_ignore_ascii_case("on"))
    }
}
