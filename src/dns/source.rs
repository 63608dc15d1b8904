//! Determines the name servers of a resolver, and follows their changes.
//!
//! Changes of this host's resolv.conf are used, unless the file has become unusable. Name servers given by name are
//! resolved again as long as the resolver is used. A lookup in progress ends with the servers that it started with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::DnsError;
use super::client::{Client, Found, Servers};
use super::metrics::Zone;
use crate::model::Resolver;
use crate::net::BackendAddress;

/// The files of this host for name resolution.
#[derive(Clone, Debug)]
pub struct Host {
    /// The file with the host's name servers and search list.
    pub resolv_conf: PathBuf,
    /// The file with names and their addresses.
    pub hosts: PathBuf,
    /// The port for the name servers of resolv.conf, which has no ports.
    pub port: u16,
}

impl Default for Host {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53 }
    }
}

/// The name servers of one `resolver` block.
pub(super) struct Source {
    block: Resolver,
    host: Host,
    zone: Option<Arc<Zone>>,
    /// Absent until the first lookup.
    state: Mutex<Option<SourceState>>,
}

struct SourceState {
    client: Arc<Client>,
    basis: Basis,
    /// When to look for changes; `None` if nothing can change.
    look_again: Option<Instant>,
}

enum Basis {
    /// All servers are given by address.
    Block,
    /// The last content of resolv.conf, usable or not.
    File(Vec<u8>),
    /// Some or all servers are given by name.
    Names(Names),
}

/// The sorted addresses of the name servers that are given by name.
type Names = BTreeMap<String, Vec<IpAddr>>;

/// The result of resolving these names.
struct Resolved {
    names: Names,
    look_again: Instant,
    /// The last failure, if any.
    problem: Option<DnsError>,
}

impl Source {
    /// Creates a source; it reads nothing yet.
    pub(super) fn new(block: Resolver, host: Host, zone: Option<Arc<Zone>>) -> Self {
        Self { block, host, zone, state: Mutex::default() }
    }

    pub(super) fn block(&self) -> &Resolver {
        &self.block
    }

    /// Returns the zone to count for.
    pub(super) fn zone(&self) -> Option<&Zone> {
        self.zone.as_deref()
    }

    /// Returns the client for the current name servers. Starts to look for changes if it is time.
    ///
    /// # Errors
    /// No name servers have been found yet.
    pub(super) async fn client(self: &Arc<Self>) -> Result<Arc<Client>, DnsError> {
        let mut state = self.state.lock().await;
        let state = match &mut *state {
            Some(state) => state,
            none => none.insert(self.first().await?),
        };
        if state.look_again.is_some_and(|at| at <= Instant::now()) {
            self.look_again(state);
        }
        Ok(Arc::clone(&state.client))
    }

    async fn first(&self) -> Result<SourceState, DnsError> {
        if !self.block.ipv4 && !self.block.ipv6 {
            let problem = "IPv4 and IPv6 are both disabled; enable resolver.ipv4 or resolver.ipv6";
            return Err(DnsError::Configuration(problem.to_owned()));
        }
        if self.block.nameservers.is_empty() {
            let content = self.read_resolv_conf().map_err(unusable)?;
            let client = self.client_of_file(&content).map_err(unusable)?;
            let look_again = Some(Instant::now() + FILE_INTERVAL);
            return Ok(SourceState { client, basis: Basis::File(content), look_again });
        }
        let resolved = self.resolve(&Names::new()).await?;
        let addresses = self.addresses(&resolved.names);
        match resolved.problem {
            Some(problem) if addresses.is_empty() => return Err(problem),
            Some(problem) => warn!(%problem, "ignoring a name server for now"),
            None => {}
        }
        let client = self.client_of_block(&addresses).map_err(unusable)?;
        if resolved.names.is_empty() && self.server_names().next().is_none() {
            return Ok(SourceState { client, basis: Basis::Block, look_again: None });
        }
        let look_again = Some(resolved.look_again);
        Ok(SourceState { client, basis: Basis::Names(resolved.names), look_again })
    }

    fn look_again(self: &Arc<Self>, state: &mut SourceState) {
        match &mut state.basis {
            Basis::Block => state.look_again = None,
            Basis::File(seen) => {
                state.look_again = Some(Instant::now() + FILE_INTERVAL);
                let content = self.read_resolv_conf();
                if content.as_ref().map_or(&[][..], Vec::as_slice) == seen {
                    return;
                }
                let client = content.map_err(NetError::from).and_then(|content| {
                    seen.clone_from(&content);
                    self.client_of_file(&content)
                });
                let file = self.host.resolv_conf.display();
                match client {
                    Ok(client) => {
                        info!("{file} has changed; using its name servers");
                        state.client = client;
                    }
                    Err(problem) => {
                        warn!(%problem, "{file} cannot be used; keeping the previous name servers")
                    }
                }
            }
            Basis::Names(known) => {
                // Prevents a second task before this one has ended.
                state.look_again = Some(Instant::now() + NAMES_MOST);
                let (source, known) = (Arc::clone(self), known.clone());
                tokio::spawn(async move { source.follow(known).await });
            }
        }
    }

    /// Resolves the names of name servers again, while lookups continue with the known addresses.
    async fn follow(&self, known: Names) {
        let resolved = match self.resolve(&known).await {
            Ok(resolved) => resolved,
            Err(problem) => Resolved { names: known.clone(), look_again: soon(), problem: Some(problem) },
        };
        if let Some(problem) = resolved.problem {
            warn!(%problem, "keeping the previous addresses of a name server");
        }
        let mut state = self.state.lock().await;
        let Some(state) = &mut *state else { return };
        state.look_again = Some(resolved.look_again);
        if resolved.names == known {
            return;
        }
        match self.client_of_block(&self.addresses(&resolved.names)) {
            Ok(client) => {
                info!(servers = ?resolved.names, "addresses of name servers have changed");
                state.client = client;
                state.basis = Basis::Names(resolved.names);
            }
            Err(problem) => warn!(%problem, "keeping the previous addresses of the name servers"),
        }
    }

    /// Resolves the names of name servers with resolv.conf and the hosts file. If this fails for a name, its known
    /// addresses are kept.
    async fn resolve(&self, known: &Names) -> Result<Resolved, DnsError> {
        let mut resolved =
            Resolved { names: Names::new(), look_again: Instant::now() + NAMES_MOST, problem: None };
        let count = u32::try_from(self.server_names().count()).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(resolved);
        }
        let limit = self.block.timeout.checked_div(count).unwrap_or_default().min(NAME_TIMEOUT);
        let system = self.system_client(limit)?;
        for host in self.server_names() {
            let found = match timeout(limit, system.addresses(host)).await {
                Ok(found) => found.map_err(|error| super::failure(host, &error)),
                Err(_) => Err(DnsError::Timeout { host: host.to_owned(), timeout: limit }),
            };
            match found {
                Ok(Found { mut addresses, valid }) => {
                    addresses.sort_unstable();
                    addresses.dedup();
                    addresses.truncate(MAX_ADDRESSES);
                    let valid = self.block.valid.unwrap_or(valid).clamp(NAMES_LEAST, NAMES_MOST);
                    resolved.look_again = resolved.look_again.min(Instant::now() + valid);
                    resolved.names.insert(host.to_owned(), addresses);
                }
                Err(problem) => {
                    if let Some(addresses) = known.get(host) {
                        resolved.names.insert(host.to_owned(), addresses.clone());
                    }
                    resolved.look_again = resolved.look_again.min(soon());
                    resolved.problem = Some(problem);
                }
            }
        }
        Ok(resolved)
    }

    fn server_names(&self) -> impl Iterator<Item = &str> {
        self.block.nameservers.iter().filter_map(|server| match server {
            BackendAddress::Name { host, .. } => Some(host.as_str()),
            BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
        })
    }

    fn addresses(&self, names: &Names) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for server in &self.block.nameservers {
            match server {
                BackendAddress::Ip(address) => addresses.push(*address),
                BackendAddress::Name { host, port } => {
                    let found = names.get(host).into_iter().flatten();
                    addresses.extend(found.map(|ip| SocketAddr::new(*ip, *port)));
                }
                BackendAddress::Unix(_) => {}
            }
        }
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        addresses
    }

    fn client_of_block(&self, addresses: &[SocketAddr]) -> Result<Arc<Client>, NetError> {
        if addresses.is_empty() {
            return Err(NetError::from("there is no name server; check resolver.nameservers"));
        }
        let servers = addresses.iter().map(|address| name_server(address.ip(), address.port())).collect();
        let mut options = ResolverOpts::default();
        options.server_ordering_strategy = ServerOrderingStrategy::RoundRobin;
        let servers = Servers { config: ResolverConfig::from_name_servers(servers), options };
        Client::new(&self.block, servers, &self.host.hosts, self.zone.clone()).map(Arc::new)
    }

    fn client_of_file(&self, content: &[u8]) -> Result<Arc<Client>, NetError> {
        let servers = self.servers_of_file(content)?;
        Client::new(&self.block, servers, &self.host.hosts, self.zone.clone()).map(Arc::new)
    }

    fn servers_of_file(&self, content: &[u8]) -> Result<Servers, NetError> {
        let (config, options) = parse_resolv_conf(content)?;
        let servers = config.name_servers().iter().map(|server| name_server(server.ip, self.host.port));
        let config =
            ResolverConfig::from_parts(config.domain().cloned(), config.search().to_vec(), servers.collect());
        Ok(Servers { config, options })
    }

    /// Creates a client for the names of name servers. It does not count for the zone, because it uses the host's name
    /// servers.
    fn system_client(&self, limit: Duration) -> Result<Client, DnsError> {
        let block = Resolver { timeout: limit, ..Resolver::default() };
        let content = self.read_resolv_conf().map_err(unusable)?;
        let servers = self.servers_of_file(&content).map_err(unusable)?;
        Client::new(&block, servers, &self.host.hosts, None).map_err(unusable)
    }

    /// Reads the file on this thread, because it is small and local.
    fn read_resolv_conf(&self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(&self.host.resolv_conf)?.take(MAX_RESOLV_CONF).read_to_end(&mut content)?;
        Ok(content)
    }
}

fn unusable(error: impl Into<NetError>) -> DnsError {
    DnsError::Configuration(error.into().to_string())
}

fn soon() -> Instant {
    Instant::now() + NAMES_RETRY
}

fn name_server(ip: IpAddr, port: u16) -> NameServerConfig {
    // If the answer is truncated, `counting` asks again over TCP.
    let mut connection = ConnectionConfig::new(ProtocolConfig::Udp);
    connection.port = port;
    NameServerConfig::new(ip, true, vec![connection])
}

/// Minimum time between two reads of resolv.conf, which only happen with a lookup.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of resolv.conf that are read.
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// Bounds for the time until the names of name servers are resolved again, whatever their TTL.
const NAMES_LEAST: Duration = Duration::from_secs(5);
const NAMES_MOST: Duration = Duration::from_secs(300);

/// The time after a failure.
const NAMES_RETRY: Duration = Duration::from_secs(30);

/// Time limit for one of these names.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one such name that are used.
const MAX_ADDRESSES: usize = 16;
