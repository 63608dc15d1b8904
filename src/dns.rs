//! Resolves the names of backends, auth services and clients.
//!
//! Each distinct `resolver` block has its own resolver, so that caches and name servers do not mix. There are few of
//! them; if there are too many, the least recently used one is dropped.
//!
//! `source` finds the name servers, and `client` asks them over connections that `counting` counts in `metrics`.
//! `failures` remembers recent failures, and `silence` reports name servers that do not answer.

mod client;
mod counting;
mod failures;
mod metrics;
mod own;
mod recovery;
mod silence;
mod source;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::Name;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::model::reach::NotAllowed;
use crate::model::{Reach, Resolver};
use crate::net::{BackendAddress, Socket, connect_tcp, is_ours};

use client::{Client, Pointer};
use failures::{Answers, Question};
use metrics::Metrics;
use own::OwnSockets;
use silence::Silences;
pub use source::Host;
use source::Source;

/// Resolves names with the `resolver` block of a listener. The process has one.
pub struct Dns {
    host: Host,
    metrics: Metrics,
    silences: Arc<Silences>,
    /// Most recently used first; at most [`MAX_RESOLVERS`].
    sources: Mutex<Vec<Arc<Source>>>,
    own: OwnSockets,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl Target {
    /// Connects, with Nagle's algorithm: call [`Socket::set_nodelay`] unless an answer follows every write.
    ///
    /// # Errors
    /// The socket's error.
    pub async fn connect(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(address) => Socket::Tcp(connect_tcp(*address).await?),
            Self::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        })
    }

    /// Returns the address; `None` for a UNIX socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// Formats the target as in logs: `192.0.2.1:143`, `unix:/run/imap.sock`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a name has no usable address.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DnsError {
    /// The name servers answer that the name or its addresses do not exist.
    #[error("the name {0:?} does not exist, or has no address of an enabled family (resolver.ipv4, ipv6)")]
    NotFound(String),
    /// The name servers do not answer in time.
    #[error("the name {host:?} was not resolved within {timeout:?}; check resolver.nameservers")]
    Timeout {
        /// The name or address in question.
        host: String,
        /// `resolver.timeout`.
        timeout: Duration,
    },
    /// The name servers answer with an error.
    #[error("the name {host:?} cannot be resolved: {cause}")]
    Failed {
        /// The name or address in question.
        host: String,
        /// The library's error.
        cause: String,
    },
    /// The listener may not connect to the address.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// This process itself listens on the address.
    #[error(
        "this Mailgress listens on {0} itself, so it would connect to itself; set the address of the backend"
    )]
    OwnListener(String),
    /// The `resolver` block or this host's resolv.conf cannot be used.
    #[error("names cannot be resolved: {0}")]
    Configuration(String),
}

impl DnsError {
    /// Tells whether there are addresses, and all of them are refused: the author of the manifests has to act.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::OwnListener(_))
    }
}

/// Maximum number of distinct `resolver` blocks that are kept.
const MAX_RESOLVERS: usize = 64;

/// The host name of a client whose name does not exist or does not resolve to its address (XCLIENT's word, as in
/// nginx).
pub const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// The host name of a client whose name cannot be resolved at present.
pub const TEMPORARILY_UNAVAILABLE: &str = "[TEMPUNAVAIL]";

impl Dns {
    /// Creates no resolver yet; each is created when it is first used. `host` has the name servers for blocks that have
    /// none, and resolves name servers that a block has by name.
    ///
    /// # Errors
    /// `registry` already has metrics with these names.
    pub fn new(host: Host, registry: &Registry) -> prometheus::Result<Self> {
        let (metrics, silences) = (Metrics::register(registry)?, Arc::new(Silences::register(registry)?));
        Ok(Self { host, metrics, silences, sources: Mutex::default(), own: OwnSockets::default() })
    }

    /// Returns the resolvers whose name servers do not answer.
    #[must_use]
    pub fn silent(&self) -> watch::Receiver<Arc<Vec<Resolver>>> {
        self.silences.subscribe()
    }

    /// Sets the sockets that this process listens on. No address of them is a target.
    pub fn refuse(&self, own: BTreeSet<Target>) {
        self.own.set(own);
    }

    /// Creates the counters of a zone, at zero, unless they exist.
    pub fn add_zone(&self, zone: &str) {
        self.metrics.zone(zone);
    }

    /// Removes the counters of a zone.
    pub fn forget_zone(&self, zone: &str) {
        self.metrics.forget(zone);
        self.sources.lock().retain(|source| source.block().statistics_zone.as_deref() != Some(zone));
    }

    /// Returns the targets of `address` that `reach` permits; at least one. An address that is not a name is its own
    /// target.
    ///
    /// # Errors
    /// The name has no address, only addresses that `reach` does not permit, or only those of this process.
    pub async fn resolve(
        &self,
        resolver: &Resolver,
        reach: &Reach,
        address: &BackendAddress,
    ) -> Result<Vec<Target>, DnsError> {
        let host = match address {
            BackendAddress::Name { host, .. } => Some(host.as_str()),
            BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
        };
        let all = self.targets(resolver, address).await?;
        let (mut permitted, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(|target| match target {
            Target::Tcp(target) => reach.permits(host, *target, is_ours),
            Target::Unix(_) => *reach == Reach::Anywhere,
        });
        let mut own = None;
        permitted.retain(|target| {
            let is_own = self.own.have(target);
            own = own.take().or_else(|| is_own.then(|| target.clone()));
            !is_own
        });
        let named = |target: &Target| {
            let name = host.map(|host| format!(" (the address of {host})")).unwrap_or_default();
            format!("{target}{name}")
        };
        match (&own, refused.first()) {
            _ if !permitted.is_empty() => Ok(permitted),
            (Some(target), _) => Err(DnsError::OwnListener(named(target))),
            (None, Some(target)) => Err(reach.refusal(&named(target)).into()),
            (None, None) => Ok(permitted),
        }
    }

    async fn targets(&self, resolver: &Resolver, address: &BackendAddress) -> Result<Vec<Target>, DnsError> {
        match address {
            BackendAddress::Ip(address) => Ok(vec![Target::Tcp(*address)]),
            BackendAddress::Unix(path) => Ok(vec![Target::Unix(path.clone())]),
            BackendAddress::Name { host, port } => {
                let ask = |client: Arc<Client>| async move { client.addresses(host).await };
                // In memory of its own, because most addresses are no names.
                let asking = Box::pin(self.ask(resolver, Question::Addresses(host.clone()), ask));
                let found = asking.await?.addresses;
                if found.is_empty() {
                    return Err(DnsError::NotFound(host.to_owned()));
                }
                Ok(found.into_iter().map(|ip| Target::Tcp(SocketAddr::new(ip, *port))).collect())
            }
        }
    }

    /// SMTP: returns the client's host name if it resolves to the client's address, else one of the two markers (NGINX
    /// section 3.4).
    pub async fn client_host(&self, resolver: &Resolver, client: IpAddr) -> String {
        match self.confirmed_name(resolver, client).await {
            Ok(Some(name)) => name,
            Ok(None) => UNAVAILABLE.to_owned(),
            Err(_) => TEMPORARILY_UNAVAILABLE.to_owned(),
        }
    }

    async fn confirmed_name(&self, block: &Resolver, client: IpAddr) -> Result<Option<String>, DnsError> {
        let ask = |asked: Arc<Client>| async move { asked.pointer(client).await };
        let (name, host) = match self.ask(block, Question::Pointer(client), ask).await? {
            Pointer::Name(name) => host_name(&name).map(|host| (name, host)),
            Pointer::NotFound => return Ok(None),
            Pointer::Nonsense => None,
        }
        .ok_or_else(|| DnsError::Failed {
            host: client.to_string(),
            cause: "the PTR record holds no host name".to_owned(),
        })?;
        let ask = |asked: Arc<Client>| async move { asked.leads_back(&name, client).await };
        Ok(self.ask(block, Question::LeadsBack(host.clone()), ask).await?.then_some(host))
    }

    /// Does one lookup within `resolver.timeout`, unless the same one has just failed.
    async fn ask<T, F: Future<Output = Result<T, NetError>>>(
        &self,
        block: &Resolver,
        question: Question,
        ask: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, DnsError> {
        let (source, deadline) = (self.source(block), tokio::time::Instant::now() + block.timeout);
        let late = || DnsError::Timeout { host: question.subject(), timeout: block.timeout };
        let client = match timeout_at(deadline, source.client()).await {
            Ok(client) => client?,
            Err(_) => {
                source.zone().inspect(|zone| zone.timed_out());
                return Err(late());
            }
        };
        let before = client.answers();
        if let Some(error) = client.failures().known(&question, before, Instant::now()) {
            return Err(error);
        }
        let error = match timeout_at(deadline, ask(Arc::clone(&client))).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(NetError::Timeout)) | Err(_) => {
                source.zone().inspect(|zone| zone.timed_out());
                late()
            }
            Ok(Err(error)) => failure(&question.subject(), &error),
        };
        // A name that does not exist is an answer, and the cache keeps it for its TTL.
        if !matches!(error, DnsError::NotFound(_)) {
            let answers = Answers { before, now: client.answers() };
            if client.failures().add(question, &error, answers, Instant::now()) {
                let (asked, silences) = (Arc::downgrade(&client), Arc::clone(&self.silences));
                tokio::spawn(recovery::watch_over(asked, answers.now, block.clone(), silences));
            }
        }
        Err(error)
    }

    fn source(&self, block: &Resolver) -> Arc<Source> {
        let mut sources = self.sources.lock();
        match sources.iter().position(|source| source.block() == block) {
            Some(position) => sources.get_mut(..=position).unwrap_or_default().rotate_right(1),
            None => sources.insert(0, Arc::new(self.new_source(block))),
        }
        sources.truncate(MAX_RESOLVERS);
        match sources.first() {
            Some(source) => Arc::clone(source),
            None => Arc::new(self.new_source(block)),
        }
    }

    fn new_source(&self, block: &Resolver) -> Source {
        let zone = block.statistics_zone.as_deref().map(|zone| self.metrics.zone(zone));
        Source::new(block.clone(), self.host.clone(), zone)
    }
}

/// Checks a name for use in commands, as nginx does since CVE-2026-28753, and converts it to lower case.
fn host_name(name: &Name) -> Option<String> {
    let name = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(harmless)).then_some(name)
}

fn failure(host: &str, error: &NetError) -> DnsError {
    if error.is_no_records_found() {
        return DnsError::NotFound(host.to_owned());
    }
    DnsError::Failed { host: host.to_owned(), cause: error.to_string() }
}
