//! Decides which `MailServer` objects to create, with which listeners.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::api::listener::{InboundProxyProtocol, ListenerFields};
use crate::api::server::Listener;
use crate::api::{DEFAULT_CLASS, MailServerSpec, Settings};
use crate::net::ListenAddress;

use super::dump::Dump;
use super::effective::{self, Server};
use super::listen::{self, Socket};
use super::manifest::Manifest;
use super::objects::Objects;
use super::problem::{Findings, Note, Problem, system_error};
use super::share::{self, Draft};
use super::tree::Directive;
use super::{Source, advice, auth, names, settings, tls};

/// How files and names are looked up.
pub(super) struct Context<'a> {
    pub(super) prefix: &'a Path,
    pub(super) source: &'a dyn Source,
    /// The source of included files, instead of `source`.
    pub(super) dump: Option<&'a Dump>,
}

impl Context<'_> {
    /// Returns the text of the file in a directive, or of its `data:` argument.
    pub(super) fn text(&self, directive: &Directive, what: &str) -> Result<String, Problem> {
        if let Some(text) = directive.argument(0).strip_prefix("data:") {
            return Ok(text.to_owned());
        }
        Ok(String::from_utf8_lossy(&self.bytes(directive, what)?).into_owned())
    }

    /// Returns the content of the file in a directive.
    pub(super) fn bytes(&self, directive: &Directive, what: &str) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let name = directive.argument(0);
        let read = self.source.read(&self.prefix.join(name)).map(Zeroizing::new);
        read.map_err(|error| {
            let cause = system_error(&error);
            directive.problem(format!("cannot load {what} \"{name}\": {cause}"))
        })
    }

    /// Returns the content of an included file.
    pub(super) fn included(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.dump {
            Some(dump) => {
                dump.file(path).map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("it is not in the dump"))
            }
            None => self.source.read(path),
        }
    }

    /// Returns the files of an `include`: one, or all that match a pattern, which may be none.
    pub(super) fn named(&self, name: &str) -> Vec<PathBuf> {
        let folder = self.dump.map_or(Some(self.prefix), |dump| dump.main().0.parent());
        let path = folder.unwrap_or(self.prefix).join(name);
        match self.dump {
            _ if !name.contains(['*', '?', '[']) => vec![path],
            Some(dump) => dump.glob(&path),
            None => self.source.glob(&path),
        }
    }

    /// Tells whether the file is missing here but may exist at the origin of a dump: `nginx -T` prints only
    /// configurations.
    pub(super) fn is_elsewhere(&self, directive: &Directive) -> bool {
        let name = directive.argument(0);
        self.dump.is_some()
            && !name.starts_with("data:")
            && self.source.read(&self.prefix.join(name)).is_err()
    }
}

/// Creates all objects: the `MailServer`s, then what they refer to.
pub(super) fn manifests(
    servers: &[Server<'_>],
    context: &Context<'_>,
    found: &mut Findings,
) -> Vec<Manifest> {
    let sockets = arrange(servers, &mut found.notes);
    let mut objects = Objects::default();
    let mut manifests: Vec<Manifest> = Vec::new();
    let groups = groups(servers);
    let mut taken = server_names(&groups, servers);
    for (group, name) in groups.iter().zip(taken.clone()) {
        objects.owner.clone_from(&name);
        let mut drafts: Vec<Draft> = Vec::new();
        for (server, index) in group.iter().filter_map(|index| Some((servers.get(*index)?, index))) {
            advice::of(server, &mut found.advice);
            let settings = whole(server, context, &mut objects, found);
            for (address, socket) in sockets.get(*index).into_iter().flatten() {
                drafts.extend(draft(server, address, socket, &settings, context, found));
            }
        }
        name_listeners(&mut drafts);
        let mut own = Some(name.clone());
        for part in drafts.chunks(MOST_LISTENERS) {
            let name = own.take().unwrap_or_else(|| free_name(&name, &taken));
            taken.push(name.clone());
            manifests.push(Manifest::Server { name, spec: Box::new(spec(part)) });
        }
    }
    manifests.extend(objects.into_manifests());
    manifests
}

/// Names each group. Numbers in names do not depend on the order in the file: the group with the lowest address has
/// none.
fn server_names(groups: &[Vec<usize>], servers: &[Server<'_>]) -> Vec<String> {
    let members = |group: &[usize]| group.iter().filter_map(|index| servers.get(*index)).collect::<Vec<_>>();
    let lowest = |group: &[usize]| {
        let members = members(group);
        let sockets = members.iter().flat_map(|server| &server.sockets);
        sockets.map(|socket| socket.address.clone()).min()
    };
    let mut order: Vec<(Option<ListenAddress>, usize)> =
        groups.iter().enumerate().map(|(number, group)| (lowest(group), number)).collect();
    order.sort();
    let mut taken = Vec::new();
    let mut names = vec![String::new(); groups.len()];
    for (_, number) in order {
        let (Some(group), Some(name)) = (groups.get(number), names.get_mut(number)) else { continue };
        let named: Vec<Option<&str>> =
            members(group).iter().map(|server| server.text("server_name")).collect();
        *name = free_name(&names::server(&named), &taken);
        taken.push(name.clone());
    }
    names
}

fn free_name(base: &str, taken: &[String]) -> String {
    names::unique(base, |wanted| taken.iter().any(|name| name == wanted))
}

/// Groups the servers: those with the same auth service form one `MailServer`.
fn groups(servers: &[Server<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Option<&str>, Vec<usize>)> = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let service = server.text("auth_http");
        match groups.iter_mut().find(|(known, _)| *known == service) {
            Some((_, members)) => members.push(index),
            None => groups.push((service, vec![index])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Returns the sockets of each server. Merges the IPv4 and IPv6 wildcards of a port, and drops sockets that are
/// contained in another one's wildcard.
fn arrange<'a>(servers: &'a [Server<'_>], notes: &mut Vec<Note>) -> Vec<Vec<(ListenAddress, &'a Socket)>> {
    let mut all: Vec<Vec<(ListenAddress, &Socket)>> =
        servers.iter().map(|server| merged(&server.sockets)).collect();
    let is_wildcard = |address: &ListenAddress| match address {
        ListenAddress::Any { .. } => true,
        ListenAddress::Ip(address) => address.ip().is_unspecified(),
        ListenAddress::Unix(_) => false,
    };
    let wildcards: Vec<(ListenAddress, &Socket)> =
        all.iter().flatten().filter(|(address, _)| is_wildcard(address)).cloned().collect();
    for (server, sockets) in servers.iter().zip(&mut all) {
        sockets.retain(|(address, socket)| {
            let within = wildcards.iter().find(|(wide, _)| wide != address && wide.overlaps(address));
            let Some((wide, other)) = within else { return true };
            let same = server.sockets.contains(other)
                && (other.ssl, other.proxy_protocol) == (socket.ssl, socket.proxy_protocol);
            if !same {
                let message = format!(
                    "listen {address} is already covered by {wide} of {}, and is omitted",
                    other.directive.place
                );
                let remedy = "give every listener of that port a separate address";
                notes.push(socket.directive.note(format!("{message}; {remedy}")));
            }
            false
        });
    }
    all
}

fn merged(sockets: &[Socket]) -> Vec<(ListenAddress, &Socket)> {
    let family = |socket: &Socket| match &socket.address {
        ListenAddress::Ip(address) if address.ip().is_unspecified() => {
            Some((address.is_ipv6(), address.port()))
        }
        _ => None,
    };
    let alike = |a: &Socket, b: &Socket| {
        (a.ssl, a.proxy_protocol, &a.options) == (b.ssl, b.proxy_protocol, &b.options)
    };
    let other = |socket: &Socket| {
        let (is_v6, port) = family(socket)?;
        sockets.iter().find(|other| family(other) == Some((!is_v6, port)) && alike(socket, other))
    };
    let mut kept = Vec::new();
    for socket in sockets {
        match (other(socket), family(socket)) {
            (Some(_), Some((true, _))) => {}
            (Some(_), Some((false, port))) => kept.push((ListenAddress::Any { port }, socket)),
            _ => kept.push((socket.address.clone(), socket)),
        }
    }
    kept
}

/// Returns the settings of a server, except the TLS mode.
fn whole(
    server: &Server<'_>,
    context: &Context<'_>,
    objects: &mut Objects,
    found: &mut Findings,
) -> Settings {
    let auth = auth::settings(server, objects, &mut found.notes);
    let tls = tls::settings(server, context, objects, found);
    Settings { auth: found.keep(auth), tls: found.keep(tls).flatten(), ..settings::settings(server, found) }
}

/// Creates one listener; `None` if it has a problem.
fn draft(
    server: &Server<'_>,
    address: &ListenAddress,
    socket: &Socket,
    settings: &Settings,
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<Draft> {
    let proxy_protocol = proxy_protocol(server, socket, context, &mut found.notes);
    let proxy_protocol = found.keep(proxy_protocol)?;
    let port = address.port();
    let implied = port.and_then(effective::protocol_of) == Some(server.protocol);
    let mut settings = settings.clone();
    settings.tls.get_or_insert_default().mode = Some(tls::mode(server, socket));
    let fields = ListenerFields {
        port,
        address: match address {
            ListenAddress::Any { .. } => "*".to_owned(),
            ListenAddress::Ip(address) => address.ip().to_string(),
            ListenAddress::Unix(path) => format!("unix:{}", path.display()),
        },
        protocol: (!implied).then_some(server.protocol.api()),
        hostnames: None,
        proxy_protocol,
        socket: (socket.options != crate::api::listener::SocketSettings::default())
            .then(|| socket.options.clone()),
        backend_ref: None,
        backend_address: None,
        settings: Settings::default(),
    };
    let name = names::listener(server.protocol, address);
    Some(Draft::new(Listener { name, fields }, server.protocol, address.clone(), &settings))
}

/// Without `set_real_ip_from`, the headers of all peers are read, but none changes the client's address.
fn proxy_protocol(
    server: &Server<'_>,
    socket: &Socket,
    context: &Context<'_>,
    notes: &mut Vec<Note>,
) -> Result<Option<InboundProxyProtocol>, Problem> {
    if !socket.proxy_protocol {
        return Ok(None);
    }
    let all = server.all("set_real_ip_from");
    let mut peers: Vec<String> = Vec::new();
    for directive in &all {
        for network in listen::networks(directive, context.source)? {
            let text = network.to_string();
            if !peers.contains(&text) {
                peers.push(text);
            }
        }
    }
    if let (true, Some(last)) = (peers.len() > MOST_PEERS, all.last()) {
        notes.push(last.note(format!("set_real_ip_from: the first {MOST_PEERS} networks are kept")));
        peers.truncate(MOST_PEERS);
    }
    let use_as_client_address = match socket.address {
        ListenAddress::Unix(_) => all.iter().any(|directive| directive.argument(0) == "unix:"),
        _ => !peers.is_empty(),
    };
    if peers.is_empty() {
        peers = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    }
    // nginx passes the headers of untrusted peers to the auth service, although anybody who reaches the port can write
    // them.
    Ok(Some(InboundProxyProtocol { trusted_peers: peers, use_as_client_address, untrusted_peers: None }))
}

/// Makes the names of listeners unique, by the address if possible, else by a number.
fn name_listeners(drafts: &mut [Draft]) {
    let names: Vec<String> = drafts.iter().map(|draft| draft.listener.name.clone()).collect();
    let mut taken: Vec<String> = Vec::new();
    for draft in drafts {
        let name = &mut draft.listener.name;
        let shared = names.iter().filter(|other| *other == name).count() > 1;
        if let (true, Some(suffix)) = (shared, names::address_suffix(&draft.address)) {
            *name = format!("{name}-{suffix}");
        }
        let first: String = name.chars().take(LONGEST_NAME).collect();
        *name = names::unique(&first, |wanted| taken.iter().any(|known| known == wanted));
        taken.push(name.clone());
    }
}

fn spec(drafts: &[Draft]) -> MailServerSpec {
    let (settings, listeners) = share::share(drafts);
    MailServerSpec {
        class_name: DEFAULT_CLASS.to_owned(),
        allowed_listeners: None,
        allowed_routes: None,
        routing: None,
        listeners,
        settings,
    }
}

/// The limit in the schema.
const MOST_LISTENERS: usize = 64;
/// The limit in the schema.
const MOST_PEERS: usize = 32;
/// Leaves room for a number in the 63 characters that the schema allows.
const LONGEST_NAME: usize = 58;
