//! Names of backends, auth services and clients.
//!
//! One resolver of its own for each distinct `resolver` block, so that caches and name servers never
//! mix; they are few, and the least recently used goes when there are too many.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
    ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::sync::OnceCell;

use crate::model::Resolver;
use crate::net::BackendAddress;

/// Resolves names with whatever `resolver` block a listener has. One for the process.
#[derive(Default)]
pub struct Dns {
    /// Most recently used first; at most [`MAX_RESOLVERS`].
    slots: Mutex<Vec<Slot>>,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

/// As in logs: `192.0.2.1:143`, `unix:/run/imap.sock`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A name that gave no address.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DnsError {
    /// The name servers say that there is none.
    #[error("the name {0:?} does not exist, or has no address of an enabled family (resolver.ipv4, ipv6)")]
    NotFound(String),
    /// The name servers do not answer.
    #[error("the name {host:?} was not resolved within {timeout:?}; check resolver.nameservers")]
    Timeout {
        /// What was asked for.
        host: String,
        /// `resolver.timeout`.
        timeout: Duration,
    },
    /// The name servers answer badly.
    #[error("the name {host:?} cannot be resolved: {cause}")]
    Failed {
        /// What was asked for.
        host: String,
        /// What the library says.
        cause: String,
    },
    /// The `resolver` block, or this host's resolv.conf.
    #[error("names cannot be resolved: {0}")]
    Configuration(String),
}

struct Slot {
    config: Resolver,
    resolver: Arc<OnceCell<TokioResolver>>,
}

/// Distinct `resolver` blocks kept.
const MAX_RESOLVERS: usize = 64;

/// Answers kept by each.
const CACHE_SIZE: u64 = 1024;

/// Until the next name server is tried.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failure is remembered at most.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// A client whose name does not exist or does not lead back to it (XCLIENT's word, as nginx uses it).
pub const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// A client whose name cannot be found out just now.
pub const TEMPORARILY_UNAVAILABLE: &str = "[TEMPUNAVAIL]";

impl Dns {
    /// Without any resolver yet: each is made when it is first used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The targets behind `address`: itself, unless it is a name. Never empty.
    ///
    /// # Errors
    /// When the name leads nowhere.
    pub async fn resolve(
        &self,
        resolver: &Resolver,
        address: &BackendAddress,
    ) -> Result<Vec<Target>, DnsError> {
        match address {
            BackendAddress::Ip(address) => Ok(vec![Target::Tcp(*address)]),
            BackendAddress::Unix(path) => Ok(vec![Target::Unix(path.clone())]),
            BackendAddress::Name { host, port } => {
                let found = self.addresses(resolver, host).await?;
                Ok(found.into_iter().map(|ip| Target::Tcp(SocketAddr::new(ip, *port))).collect())
            }
        }
    }

    /// SMTP: the client's name, if it leads back to the client; else one of the two markers.
    pub async fn client_host(&self, resolver: &Resolver, client: IpAddr) -> String {
        let found = match self.pointer(resolver, client).await {
            Ok(name) => self.addresses(resolver, &name).await.map(|addresses| (name, addresses)),
            Err(error) => Err(error),
        };
        match found {
            Ok((name, addresses)) if addresses.contains(&client) => name,
            Ok(_) | Err(DnsError::NotFound(_)) => UNAVAILABLE.to_owned(),
            Err(_) => TEMPORARILY_UNAVAILABLE.to_owned(),
        }
    }

    async fn addresses(&self, config: &Resolver, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let lookup = async {
            let resolver = self.resolver(config).await?;
            resolver.lookup_ip(host).await.map_err(|error| failure(host, &error))
        };
        let found: Vec<_> = within(config, host, lookup).await?.iter().collect();
        if found.is_empty() { Err(DnsError::NotFound(host.to_owned())) } else { Ok(found) }
    }

    /// The first PTR name, checked as nginx does since CVE-2026-28753: it ends up in commands.
    async fn pointer(&self, config: &Resolver, client: IpAddr) -> Result<String, DnsError> {
        let host = client.to_string();
        let lookup = async {
            let resolver = self.resolver(config).await?;
            resolver.reverse_lookup(client).await.map_err(|error| failure(&host, &error))
        };
        let found = within(config, &host, lookup).await?;
        let name = found.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some(name.to_ascii().trim_end_matches('.').to_owned()),
            _ => None,
        });
        let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        name.filter(|name| !name.is_empty() && name.chars().all(harmless))
            .ok_or_else(|| DnsError::Failed { host, cause: "the PTR record holds no host name".to_owned() })
    }

    async fn resolver(&self, config: &Resolver) -> Result<TokioResolver, DnsError> {
        let cell = self.cell(config);
        cell.get_or_try_init(|| build(config)).await.cloned()
    }

    fn cell(&self, config: &Resolver) -> Arc<OnceCell<TokioResolver>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.iter().position(|slot| slot.config == *config) {
            Some(position) => slots.get_mut(..=position).unwrap_or_default().rotate_right(1),
            None => slots.insert(0, Slot { config: config.clone(), resolver: Arc::default() }),
        }
        slots.truncate(MAX_RESOLVERS);
        slots.first().map(|slot| Arc::clone(&slot.resolver)).unwrap_or_default()
    }
}

async fn within<T>(
    config: &Resolver,
    host: &str,
    lookup: impl Future<Output = Result<T, DnsError>>,
) -> Result<T, DnsError> {
    let late = |_| DnsError::Timeout { host: host.to_owned(), timeout: config.timeout };
    tokio::time::timeout(config.timeout, lookup).await.map_err(late)?
}

fn failure(host: &str, error: &NetError) -> DnsError {
    if error.is_nx_domain() || error.is_no_records_found() {
        return DnsError::NotFound(host.to_owned());
    }
    DnsError::Failed { host: host.to_owned(), cause: error.to_string() }
}

async fn build(config: &Resolver) -> Result<TokioResolver, DnsError> {
    let unusable = |error: NetError| DnsError::Configuration(error.to_string());
    let mut builder = if config.nameservers.is_empty() {
        TokioResolver::builder_tokio().map_err(unusable)?
    } else {
        let servers = name_servers(config).await?;
        let mut builder = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(servers),
            TokioRuntimeProvider::default(),
        );
        builder.options_mut().server_ordering_strategy = ServerOrderingStrategy::RoundRobin;
        builder
    };
    apply(config, builder.options_mut())?;
    builder.build().map_err(unusable)
}

fn apply(config: &Resolver, options: &mut ResolverOpts) -> Result<(), DnsError> {
    options.ip_strategy = match (config.ipv4, config.ipv6) {
        (true, true) => LookupIpStrategy::Ipv4AndIpv6,
        (true, false) => LookupIpStrategy::Ipv4Only,
        (false, true) => LookupIpStrategy::Ipv6Only,
        (false, false) => {
            return Err(DnsError::Configuration(
                "both families are off; set resolver.ipv4 or resolver.ipv6".to_owned(),
            ));
        }
    };
    options.timeout = config.timeout.min(ATTEMPT_TIMEOUT);
    options.cache_size = CACHE_SIZE;
    options.use_hosts_file = ResolveHosts::Always;
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    if let Some(valid) = config.valid {
        options.positive_min_ttl = Some(valid);
        options.positive_max_ttl = Some(valid);
    }
    Ok(())
}

/// Name servers may themselves be named; those names are resolved with the host's own resolv.conf, once.
async fn name_servers(config: &Resolver) -> Result<Vec<NameServerConfig>, DnsError> {
    let mut servers = Vec::with_capacity(config.nameservers.len());
    for server in &config.nameservers {
        match server {
            BackendAddress::Ip(address) => servers.push(name_server(*address)),
            BackendAddress::Name { host, port } => {
                let system =
                    TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
                let system = system.map_err(|error| DnsError::Configuration(error.to_string()))?;
                let found = system.lookup_ip(host.as_str()).await.map_err(|error| failure(host, &error))?;
                servers.extend(found.iter().map(|ip| name_server(SocketAddr::new(ip, *port))));
            }
            BackendAddress::Unix(_) => {
                return Err(DnsError::Configuration(format!("{server} cannot be a name server")));
            }
        }
    }
    Ok(servers)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    NameServerConfig::new(address.ip(), true, connections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, PTR};
    use hickory_resolver::proto::rr::{Name, Record, RecordType};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::UdpSocket;

    /// A name server with three names; counts the queries it answers and never answers for `silent.test`.
    struct Server {
        address: SocketAddr,
        queries: Arc<AtomicUsize>,
    }

    impl Server {
        async fn start() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (address, queries) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
            let counter = Arc::clone(&queries);
            tokio::spawn(async move {
                let mut buffer = [0; 1500];
                while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                    let query = Message::from_vec(&buffer[..length]).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                    if let Some(answer) = answer(&query) {
                        socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
                    }
                }
            });
            Self { address, queries }
        }

        fn config(&self) -> Resolver {
            Resolver {
                nameservers: vec![BackendAddress::Ip(self.address)],
                valid: None,
                ipv4: true,
                ipv6: false,
                timeout: Duration::from_secs(10),
                statistics_zone: None,
                looks_up_clients: false,
            }
        }
    }

    fn answer(query: &Message) -> Option<Message> {
        let question = query.queries.first()?;
        let name = question.name().to_ascii();
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        answer.add_query(question.clone());
        let data: Vec<RData> = match (name.trim_end_matches('.'), question.query_type()) {
            ("imap.test", RecordType::A) => {
                vec![RData::A(A::new(192, 0, 2, 1)), RData::A(A::new(192, 0, 2, 2))]
            }
            ("forged.test", RecordType::A) => vec![RData::A(A::new(192, 0, 2, 9))],
            ("1.2.0.192.in-addr.arpa", RecordType::PTR) => vec![pointer("imap.test.")],
            ("3.2.0.192.in-addr.arpa", RecordType::PTR) => vec![pointer("forged.test.")],
            ("4.2.0.192.in-addr.arpa", RecordType::PTR) => vec![pointer("a_b.test.")],
            ("silent.test", _) => return None,
            _ => Vec::new(),
        };
        if data.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        for data in data {
            answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        }
        Some(answer)
    }

    fn pointer(name: &str) -> RData {
        RData::PTR(PTR(Name::from_ascii(name).unwrap()))
    }

    fn name(host: &str) -> BackendAddress {
        BackendAddress::Name { host: host.to_owned(), port: 143 }
    }

    #[tokio::test]
    async fn a_name_becomes_all_its_addresses_and_is_cached() {
        let server = Server::start().await;
        let (dns, config) = (Dns::new(), server.config());
        for _ in 0..3 {
            let mut found = dns.resolve(&config, &name("imap.test")).await.unwrap();
            found.sort_by_key(Target::to_string);
            let expected = ["192.0.2.1:143", "192.0.2.2:143"].map(|text| Target::Tcp(text.parse().unwrap()));
            assert_eq!(found, expected);
        }
        assert_eq!(server.queries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn addresses_and_sockets_pass_through() {
        let (dns, config) = (Dns::new(), Server::start().await.config());
        let address: SocketAddr = "[2001:db8::1]:993".parse().unwrap();
        let resolved = dns.resolve(&config, &BackendAddress::Ip(address)).await.unwrap();
        assert_eq!(resolved, [Target::Tcp(address)]);
        let resolved = dns.resolve(&config, &BackendAddress::Unix("/run/s".into())).await.unwrap();
        assert_eq!(resolved, [Target::Unix("/run/s".into())]);
    }

    #[tokio::test]
    async fn the_hosts_file_is_honoured() {
        let (dns, config) = (Dns::new(), Server::start().await.config());
        let resolved = dns.resolve(&config, &name("localhost")).await.unwrap();
        assert_eq!(resolved, [Target::Tcp("127.0.0.1:143".parse().unwrap())]);
    }

    #[tokio::test]
    async fn errors_name_the_host_and_the_cause() {
        let server = Server::start().await;
        let dns = Dns::new();
        let error = dns.resolve(&server.config(), &name("none.test")).await.unwrap_err();
        assert!(matches!(&error, DnsError::NotFound(host) if host == "none.test"), "{error}");
        let hasty = Resolver { timeout: Duration::from_millis(50), ..server.config() };
        let error = dns.resolve(&hasty, &name("silent.test")).await.unwrap_err();
        assert!(error.to_string().contains("silent.test"), "{error}");
        let familyless = Resolver { ipv4: false, ..server.config() };
        let error = dns.resolve(&familyless, &name("imap.test")).await.unwrap_err();
        assert!(error.to_string().contains("resolver.ipv4"), "{error}");
    }

    #[tokio::test]
    async fn a_client_host_must_lead_back_to_the_client() {
        let (dns, config) = (Dns::new(), Server::start().await.config());
        for (client, expected) in [
            ([192, 0, 2, 1], "imap.test"),
            ([192, 0, 2, 3], UNAVAILABLE),
            ([192, 0, 2, 4], TEMPORARILY_UNAVAILABLE),
            ([192, 0, 2, 5], UNAVAILABLE),
        ] {
            assert_eq!(dns.client_host(&config, client.into()).await, expected, "{client:?}");
        }
    }

    #[test]
    fn the_least_recently_used_resolver_goes_first() {
        let dns = Dns::new();
        let config = |seconds| Resolver {
            nameservers: Vec::new(),
            valid: None,
            ipv4: true,
            ipv6: true,
            timeout: Duration::from_secs(seconds),
            statistics_zone: None,
            looks_up_clients: false,
        };
        let kept = dns.cell(&config(0));
        for seconds in 1..1000 {
            dns.cell(&config(seconds));
            assert!(Arc::ptr_eq(&kept, &dns.cell(&config(0))));
        }
        assert_eq!(dns.slots.lock().unwrap().len(), MAX_RESOLVERS);
    }
}
