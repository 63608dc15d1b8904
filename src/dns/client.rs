//! Asks name servers and caches their answers.
//!
//! For names of backends, the hosts file comes first, then the search list if there is one, as in other programs. For
//! names of clients, only the answers of the name servers count, as in nginx. They are asked about every address,
//! including those that RFC 6761 would answer locally.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, NameServerPool, PoolContext, Resolver, ResponseCache, TlsConfig, TtlConfig};

use tokio::time::timeout;

use super::counting::Connections;
use super::failures::Failures;
use super::metrics::Zone;
use crate::model;

/// Name servers and the options for asking them.
#[derive(Clone)]
pub(super) struct Servers {
    /// The addresses and the search list.
    pub(super) config: ResolverConfig,
    /// The options of resolv.conf, or the library's defaults.
    pub(super) options: ResolverOpts,
}

/// Asks one set of name servers, with a cache for their answers.
pub(super) struct Client {
    resolver: Resolver<Connections>,
    connections: Connections,
    failures: Failures,
    pointers: RetryDnsHandle<NameServerPool<Connections>>,
    pointer_cache: ResponseCache,
    hosts: Hosts,
    zone: Option<Arc<Zone>>,
    ipv4: bool,
    ipv6: bool,
}

/// The addresses of a name.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// In the order of the answer; may be empty.
    pub(super) addresses: Vec<IpAddr>,
    /// How long the answer is valid.
    pub(super) valid: Duration,
}

/// The result of a PTR lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pointer {
    /// The first name of the answer.
    Name(Name),
    /// There is no PTR record.
    NotFound,
    /// The answer is an error or has no PTR record where it should.
    Nonsense,
}

impl Client {
    /// Creates a client; it sends no query yet.
    ///
    /// # Errors
    /// The library refuses the options.
    pub(super) fn new(
        block: &model::Resolver,
        servers: Servers,
        hosts: &Path,
        zone: Option<Arc<Zone>>,
    ) -> Result<Self, NetError> {
        let Servers { config, mut options } = servers;
        apply(block, &mut options);
        let connections = Connections::new(zone.clone());
        let context = Arc::new(PoolContext::new(options.clone(), TlsConfig::new()?));
        let pool: Vec<NameServerConfig> = config.name_servers().to_vec();
        let pool = NameServerPool::from_config(pool, context, connections.clone());
        let pointer_cache = ResponseCache::new(options.cache_size, TtlConfig::from_opts(&options));
        let pointers = RetryDnsHandle::new(pool, options.attempts);
        let resolver =
            Resolver::builder_with_config(config, connections.clone()).with_options(options).build()?;
        Ok(Self {
            resolver,
            connections,
            failures: Failures::default(),
            pointers,
            pointer_cache,
            hosts: read_hosts(hosts),
            zone,
            ipv4: block.ipv4,
            ipv6: block.ipv6,
        })
    }

    /// Recent failures of these name servers.
    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Returns the number of answers from the name servers.
    pub(super) fn answers(&self) -> u64 {
        self.connections.answers()
    }

    /// Returns the addresses of a backend, an auth service or a name server.
    ///
    /// # Errors
    /// The library's error.
    pub(super) async fn addresses(&self, host: &str) -> Result<Found, NetError> {
        let known = self.in_hosts(host);
        if !known.is_empty() {
            return Ok(Found { addresses: known, valid: Duration::MAX });
        }
        if let Some(zone) = &self.zone {
            zone.asked_for_name();
        }
        let found = self.resolver.lookup_ip(host).await?;
        let valid = found.valid_until().saturating_duration_since(Instant::now());
        Ok(Found { addresses: found.iter().collect(), valid })
    }

    /// Looks up the name of a client's address.
    ///
    /// # Errors
    /// The name servers do not answer.
    pub(super) async fn pointer(&self, client: IpAddr) -> Result<Pointer, NetError> {
        if let Some(zone) = &self.zone {
            zone.asked_for_address();
        }
        let answer = match self.ask_for_pointer(client).await {
            Err(error) if error.is_no_records_found() => return Ok(Pointer::NotFound),
            other => other?,
        };
        Ok(match answer.metadata.response_code {
            ResponseCode::NXDomain => Pointer::NotFound,
            ResponseCode::NoError => first_name(&answer).map_or(Pointer::Nonsense, Pointer::Name),
            _ => Pointer::Nonsense,
        })
    }

    /// Tells whether the client's address is among the addresses of its name.
    ///
    /// # Errors
    /// One family could not be resolved, and the other one does not have the address.
    pub(super) async fn leads_back(&self, name: &Name, client: IpAddr) -> Result<bool, NetError> {
        if let Some(zone) = &self.zone {
            zone.asked_for_name();
        }
        let has = async |asked: bool, of: RecordType| match asked {
            false => Ok(false),
            true => match self.resolver.lookup(name.clone(), of).await {
                Ok(found) => Ok(found.answers().iter().any(|record| record.data.ip_addr() == Some(client))),
                Err(error) if error.is_no_records_found() => Ok(false),
                Err(error) => Err(error),
            },
        };
        match tokio::join!(has(self.ipv4, RecordType::A), has(self.ipv6, RecordType::AAAA)) {
            (Ok(true), _) | (_, Ok(true)) => Ok(true),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(false), Ok(false)) => Ok(false),
        }
    }

    /// Sends a query that every name server answers, possibly with a refusal. Waits at most `limit`.
    pub(super) async fn probe(&self, limit: Duration) {
        let query = Query::query(Name::root(), RecordType::NS);
        let answer = self.pointers.lookup(query, DnsRequestOptions::default()).first_answer();
        // `counting` counts the answer.
        let _ = timeout(limit, answer).await;
    }

    async fn ask_for_pointer(&self, client: IpAddr) -> Result<Message, NetError> {
        let query = Query::query(Name::from(client), RecordType::PTR);
        if let Some(known) = self.pointer_cache.get(&query, Instant::now()) {
            return known;
        }
        let mut options = DnsRequestOptions::default();
        options.use_edns = self.resolver.options().edns0;
        let answer = self.pointers.lookup(query.clone(), options).first_answer().await;
        let answer = answer.map(DnsResponse::into_message);
        self.pointer_cache.insert(query, answer.clone(), Instant::now());
        answer
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else { return Vec::new() };
        let families = [(self.ipv4, RecordType::A), (self.ipv6, RecordType::AAAA)];
        let asked = families.into_iter().filter(|(asked, _)| *asked);
        let found =
            asked.filter_map(|(_, of)| self.hosts.lookup_static_host(&Query::query(name.clone(), of)));
        found
            .flat_map(|lookup| lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

fn first_name(answer: &Message) -> Option<Name> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::PTR(name) => Some(name.0.clone()),
        _ => None,
    })
}

fn apply(block: &model::Resolver, options: &mut ResolverOpts) {
    options.ip_strategy = match (block.ipv4, block.ipv6) {
        (true, false) => LookupIpStrategy::Ipv4Only,
        (false, true) => LookupIpStrategy::Ipv6Only,
        (true, true) | (false, false) => LookupIpStrategy::Ipv4AndIpv6,
    };
    // All attempts must fit into the lookup's time. If an attempt is cut off, the library learns nothing about its
    // servers.
    let attempts = u32::try_from(options.attempts).unwrap_or(u32::MAX).saturating_add(1);
    options.timeout = block.timeout.checked_div(attempts).unwrap_or_default().min(ATTEMPT_TIMEOUT);
    options.cache_size = CACHE_SIZE;
    options.use_hosts_file = ResolveHosts::Never;
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    if let Some(valid) = block.valid {
        options.positive_min_ttl = Some(valid);
        options.positive_max_ttl = Some(valid);
    }
}

/// Reads a hosts file. A file that cannot be read counts as empty.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Ok(file) = File::open(path) {
        // Keep what was read before an error.
        let _ = hosts.read_hosts_conf(file.take(MAX_HOSTS));
    }
    hosts
}

/// Cached answers for addresses, and as many for PTR records.
const CACHE_SIZE: u64 = 1024;

/// Maximum time until a query is sent again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that a negative answer is cached.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Bytes of a hosts file that are read.
const MAX_HOSTS: u64 = 1 << 20;
