//! Tests with name servers on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, PTR};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// A name server over UDP and TCP that counts its queries.
struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
    /// If set, the server counts queries but does not answer.
    is_silent: Arc<AtomicBool>,
}

enum Reply {
    Silence,
    Code(ResponseCode),
    Records(Vec<RData>),
    /// Truncated over UDP, complete over TCP.
    Truncated(Vec<RData>),
}

impl Server {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        Self::start_as(address, true).await
    }

    /// Starts a server that accepts TCP connections but never answers on them.
    async fn start_with_silent_tcp() -> Self {
        Self::start_as("127.0.0.1:0".parse().unwrap(), false).await
    }

    async fn start_as(address: SocketAddr, answers_tcp: bool) -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind(address).await.unwrap();
            // Another process may use the port for TCP.
            match TcpListener::bind(socket.local_addr().unwrap()).await {
                Ok(listener) => break (socket, listener),
                Err(error) => assert_eq!(address.port(), 0, "{error}"),
            }
        };
        let (address, queries) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let is_silent = Arc::new(AtomicBool::new(false));
        let (counter, silent) = (Arc::clone(&queries), Arc::clone(&is_silent));
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                if silent.load(Ordering::Relaxed) {
                    continue;
                }
                if let Some(answer) = answer(&buffer[..length], true) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let counter = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if !answers_tcp {
                    held.push(stream);
                    continue;
                }
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let answer = answer(&query, false).unwrap();
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { address, queries, is_silent }
    }

    fn config(&self) -> Resolver {
        Resolver { nameservers: vec![BackendAddress::Ip(self.address)], ..block() }
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

fn answer(query: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries.first()?;
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.add_query(question.clone());
    let name = question.name().to_ascii().to_ascii_lowercase();
    let records = match reply(name.trim_end_matches('.'), question.query_type()) {
        Reply::Silence => return None,
        Reply::Code(code) => {
            answer.metadata.response_code = code;
            Vec::new()
        }
        Reply::Truncated(_) if datagram => {
            answer.metadata.truncation = true;
            Vec::new()
        }
        Reply::Records(records) | Reply::Truncated(records) => records,
    };
    for data in records {
        answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
    }
    Some(answer.to_vec().unwrap())
}

fn reply(name: &str, of: RecordType) -> Reply {
    Reply::Records(match (name, of) {
        ("imap.test", RecordType::A) => vec![a([192, 0, 2, 1]), a([192, 0, 2, 2])],
        ("imap.test", RecordType::AAAA) => vec![RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))],
        ("client.test", RecordType::A) => vec![a([127, 0, 0, 1]), a([192, 0, 2, 30])],
        ("client.test", RecordType::AAAA) => return Reply::Code(ResponseCode::ServFail),
        ("forged.test", RecordType::A) => vec![a([192, 0, 2, 9])],
        ("big.test", RecordType::A) => return Reply::Truncated(vec![a([192, 0, 2, 8])]),
        ("silent.test", _) => return Reply::Silence,
        ("broken.test", _) => return Reply::Code(ResponseCode::ServFail),
        ("empty.test", _) => Vec::new(),
        (name, RecordType::PTR) => match name.strip_suffix(".2.0.192.in-addr.arpa") {
            Some("1") => vec![pointer("IMAP.test.")],
            Some("3") => vec![pointer("forged.test.")],
            Some("4") => vec![pointer("a_b.test.")],
            Some("6") => return Reply::Code(ResponseCode::ServFail),
            Some("7") => Vec::new(),
            Some("8") => vec![RData::CNAME(CNAME(fully("8.0-15.2.0.192.in-addr.arpa.")))],
            Some("9") => vec![pointer("none.test.")],
            Some("10") => vec![pointer("broken.test.")],
            Some("11") => vec![pointer("empty.test.")],
            Some("12") => vec![pointer("192.0.2.12.")],
            Some("13") => vec![pointer(".")],
            Some("14") => vec![pointer("hosted.test.")],
            Some("30" | "31") => vec![pointer("client.test.")],
            _ if name == "1.0.0.127.in-addr.arpa" => vec![pointer("client.test.")],
            _ if name.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa") => vec![pointer("imap.test.")],
            _ => return Reply::Code(ResponseCode::NXDomain),
        },
        _ => return Reply::Code(ResponseCode::NXDomain),
    })
}

fn a(octets: [u8; 4]) -> RData {
    RData::A(A(Ipv4Addr::from(octets)))
}

fn pointer(name: &str) -> RData {
    RData::PTR(PTR(fully(name)))
}

fn fully(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

/// The default block: the host's resolv.conf and IPv4.
fn block() -> Resolver {
    Resolver { ipv6: false, timeout: Duration::from_secs(10), ..Resolver::default() }
}

/// A host with its own files, and the resolver on it.
struct Fixture {
    files: TempDir,
    registry: Registry,
    dns: Dns,
}

impl Fixture {
    fn new() -> Self {
        Self::with_servers_at(53)
    }

    fn with_servers_at(port: u16) -> Self {
        let (files, registry) = (tempfile::tempdir().unwrap(), Registry::new());
        let host =
            Host { resolv_conf: files.path().join("resolv.conf"), hosts: files.path().join("hosts"), port };
        let dns = Dns::new(host, &registry).unwrap();
        let fixture = Self { files, registry, dns };
        fixture.write("hosts", "192.0.2.77 hosted.test\n");
        fixture
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.files.path().join(file), text).unwrap();
    }

    async fn resolve(&self, block: &Resolver, host: &str) -> Result<Vec<String>, DnsError> {
        let mut found = self.dns.resolve(block, &Reach::Anywhere, &name(host)).await?;
        found.sort_by_key(Target::to_string);
        Ok(found.iter().map(Target::to_string).collect())
    }

    fn counted(&self, metric: &str, label: &str) -> Option<u64> {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let start = format!("mailgress_resolver_{metric}_total{{{label},zone=\"edge\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
    }
}

fn name(host: &str) -> BackendAddress {
    BackendAddress::Name { host: host.to_owned(), port: 143 }
}

/// Advances the clock without waiting. The clock runs again afterwards, as sockets need it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_name_becomes_all_its_addresses_and_is_cached() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    for _ in 0..3 {
        let found = fixture.resolve(&server.config(), "imap.test").await.unwrap();
        assert_eq!(found, ["192.0.2.1:143", "192.0.2.2:143"]);
    }
    assert_eq!(server.queries(), 1);
}

#[tokio::test]
async fn addresses_and_sockets_pass_through() {
    let (dns, config) = (Fixture::new().dns, Server::start().await.config());
    let address: SocketAddr = "[2001:db8::1]:993".parse().unwrap();
    let resolved = dns.resolve(&config, &Reach::Anywhere, &BackendAddress::Ip(address)).await.unwrap();
    assert_eq!(resolved, [Target::Tcp(address)]);
    let resolved =
        dns.resolve(&config, &Reach::Anywhere, &BackendAddress::Unix("/run/s".into())).await.unwrap();
    assert_eq!(resolved, [Target::Unix("/run/s".into())]);
}

#[tokio::test]
async fn the_hosts_file_is_honoured() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let found = fixture.resolve(&server.config(), "hosted.test").await.unwrap();
    assert_eq!((found.as_slice(), server.queries()), (&["192.0.2.77:143".to_owned()][..], 0));
}

#[tokio::test]
async fn errors_name_the_host_and_the_cause() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let error = fixture.resolve(&server.config(), "none.test").await.unwrap_err();
    assert!(matches!(&error, DnsError::NotFound(host) if host == "none.test"), "{error}");
    let hasty = Resolver { timeout: Duration::from_millis(50), ..server.config() };
    let error = fixture.resolve(&hasty, "silent.test").await.unwrap_err();
    assert!(error.to_string().contains("silent.test"), "{error}");
    let familyless = Resolver { ipv4: false, ..server.config() };
    let error = fixture.resolve(&familyless, "imap.test").await.unwrap_err();
    assert!(error.to_string().contains("resolver.ipv4"), "{error}");
    let error = fixture.resolve(&block(), "imap.test").await.unwrap_err();
    assert!(matches!(error, DnsError::Configuration(_)), "there is no resolv.conf: {error}");
}

#[tokio::test]
async fn a_name_server_whose_tcp_never_answers_is_still_asked_over_udp() {
    let (server, fixture) = (Server::start_with_silent_tcp().await, Fixture::new());
    let block = Resolver { timeout: Duration::from_secs(2), ..server.config() };
    // One answer is truncated, and one is lost.
    for (host, then) in [("big.test", "imap.test"), ("silent.test", "client.test")] {
        let error = fixture.resolve(&block, host).await.unwrap_err();
        assert!(matches!(error, DnsError::Timeout { .. }), "{error}");
        fixture.resolve(&block, then).await.unwrap_or_else(|error| panic!("{then} after {host}: {error}"));
    }
}

#[tokio::test]
async fn a_name_that_failed_is_not_asked_for_again_at_once() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let error = fixture.resolve(&server.config(), "broken.test").await.unwrap_err().to_string();
    let client = "192.0.2.6".parse().unwrap();
    assert_eq!(fixture.dns.client_host(&server.config(), client).await, TEMPORARILY_UNAVAILABLE);
    let asked = server.queries();
    let again = fixture.resolve(&server.config(), "broken.test").await.unwrap_err().to_string();
    assert_eq!(fixture.dns.client_host(&server.config(), client).await, TEMPORARILY_UNAVAILABLE);
    assert_eq!((again, server.queries()), (error, asked));
}

// --- names of clients ---

#[tokio::test]
async fn a_client_host_must_lead_back_to_the_client() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    for (client, expected) in [
        ("192.0.2.1", "imap.test"),
        ("127.0.0.1", "client.test"),
        // The PTR lookup: no such name, SERVFAIL, no record, no PTR record, no host name.
        ("192.0.2.5", UNAVAILABLE),
        ("192.0.2.6", TEMPORARILY_UNAVAILABLE),
        ("192.0.2.7", UNAVAILABLE),
        ("192.0.2.8", TEMPORARILY_UNAVAILABLE),
        ("192.0.2.4", TEMPORARILY_UNAVAILABLE),
        ("192.0.2.13", TEMPORARILY_UNAVAILABLE),
        // The name: other addresses, no such name, SERVFAIL, no address, an address instead of a name.
        ("192.0.2.3", UNAVAILABLE),
        ("192.0.2.9", UNAVAILABLE),
        ("192.0.2.10", TEMPORARILY_UNAVAILABLE),
        ("192.0.2.11", UNAVAILABLE),
        ("192.0.2.12", UNAVAILABLE),
        // The hosts file is not used for clients.
        ("192.0.2.14", UNAVAILABLE),
    ] {
        let found = fixture.dns.client_host(&server.config(), client.parse().unwrap()).await;
        assert_eq!(found, expected, "{client}");
    }
}

#[tokio::test]
async fn a_family_that_is_off_confirms_no_client() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let both = Resolver { ipv6: true, ..server.config() };
    let only = |ipv6: bool| Resolver { ipv4: !ipv6, ipv6, ..server.config() };
    let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    for (block, client, expected) in [
        (&both, v4, "imap.test"),
        (&both, v6, "imap.test"),
        (&only(false), v4, "imap.test"),
        (&only(false), v6, UNAVAILABLE),
        (&only(true), v4, UNAVAILABLE),
        (&only(true), v6, "imap.test"),
    ] {
        assert_eq!(fixture.dns.client_host(block, client).await, expected, "{client}");
    }
}

#[tokio::test]
async fn half_an_answer_confirms_a_client_and_refutes_none() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let both = Resolver { ipv6: true, ..server.config() };
    for (client, expected) in [("192.0.2.30", "client.test"), ("192.0.2.31", TEMPORARILY_UNAVAILABLE)] {
        let found = fixture.dns.client_host(&both, client.parse().unwrap()).await;
        assert_eq!(found, expected, "{client}, the name's AAAA records cannot be had");
    }
}

#[tokio::test]
async fn the_names_of_clients_are_cached() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.1"] {
        fixture.dns.client_host(&server.config(), client.parse().unwrap()).await;
    }
    assert_eq!(server.queries(), 2, "one for the PTR record, one for the A records");
}

#[tokio::test]
async fn clients_do_not_wait_for_name_servers_that_are_silent_until_they_answer_again() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver {
        statistics_zone: Some("edge".into()),
        timeout: Duration::from_millis(600),
        ..server.config()
    };
    server.is_silent.store(true, Ordering::Relaxed);
    for last in 100..200 {
        let client = IpAddr::from([192, 0, 2, last]);
        assert_eq!(fixture.dns.client_host(&edge, client).await, TEMPORARILY_UNAVAILABLE);
    }
    let lookups = fixture.counted("queries", r#"kind="addr""#).unwrap();
    assert!(lookups < 50, "{lookups} of 100 clients waited");
    server.is_silent.store(false, Ordering::Relaxed);
    // A lookup for a backend notices that they answer.
    fixture.resolve(&edge, "imap.test").await.unwrap();
    assert_eq!(fixture.dns.client_host(&edge, "192.0.2.1".parse().unwrap()).await, "imap.test");
}

#[tokio::test]
async fn a_silent_resolver_is_told_once_costs_no_session_its_time_and_is_over_by_itself() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver { timeout: Duration::from_millis(600), ..server.config() };
    let mut silent = fixture.dns.silent();
    let text = || prometheus::TextEncoder::new().encode_to_string(&fixture.registry.gather()).unwrap();
    let line = format!("mailgress_resolver_silent{{nameservers=\"{}\"}} 1\n", server.address);
    server.is_silent.store(true, Ordering::Relaxed);
    fixture.dns.client_host(&edge, "192.0.2.100".parse().unwrap()).await;
    let told = silent.wait_for(|blocks| !blocks.is_empty()).await.unwrap().clone();
    assert_eq!(told.as_slice(), std::slice::from_ref(&edge));
    assert!(text().contains(&line), "{}", text());
    // An earlier version let one session per second wait.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let started = Instant::now();
    for last in 101..110 {
        let client = IpAddr::from([192, 0, 2, last]);
        assert_eq!(fixture.dns.client_host(&edge, client).await, TEMPORARILY_UNAVAILABLE);
    }
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    server.is_silent.store(false, Ordering::Relaxed);
    silent.wait_for(|blocks| blocks.is_empty()).await.unwrap();
    assert!(!text().contains("mailgress_resolver_silent"), "{}", text());
    assert_eq!(fixture.dns.client_host(&edge, "192.0.2.1".parse().unwrap()).await, "imap.test");
}

#[tokio::test]
async fn a_name_that_nobody_answers_for_makes_no_name_server_silent() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver { timeout: Duration::from_millis(600), ..server.config() };
    let silent = fixture.dns.silent();
    fixture.resolve(&edge, "silent.test").await.unwrap_err();
    let asked = server.queries();
    while server.queries() == asked {
        tokio::task::yield_now().await;
    }
    let client = || fixture.dns.client_host(&edge, "192.0.2.1".parse().unwrap());
    while client().await != "imap.test" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!silent.has_changed().unwrap());
}

// --- counters ---

#[tokio::test]
async fn a_zone_counts_lookups_and_what_they_cost() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver { statistics_zone: Some("edge".into()), ..server.config() };
    for _ in 0..3 {
        fixture.resolve(&edge, "imap.test").await.unwrap();
    }
    fixture.resolve(&edge, "hosted.test").await.unwrap();
    fixture.resolve(&edge, "none.test").await.unwrap_err();
    fixture.resolve(&edge, "broken.test").await.unwrap_err();
    fixture.dns.client_host(&edge, "192.0.2.1".parse().unwrap()).await;
    for (metric, label, expected) in [
        ("queries", r#"kind="name""#, 6),
        ("queries", r#"kind="addr""#, 1),
        ("queries", r#"kind="srv""#, 0),
        // A server that fails is asked twice more.
        ("requests", r#"type="a""#, 5),
        ("requests", r#"type="aaaa""#, 0),
        ("requests", r#"type="ptr""#, 1),
        ("responses", r#"outcome="success""#, 2),
        ("responses", r#"outcome="not_found""#, 1),
        ("responses", r#"outcome="server_failure""#, 3),
        ("responses", r#"outcome="timedout""#, 0),
    ] {
        assert_eq!(fixture.counted(metric, label), Some(expected), "{metric} {label}");
    }
    assert_eq!(server.queries(), 6);
}

#[tokio::test]
async fn a_zone_counts_what_is_sent_again_and_the_lookup_that_timed_out() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let timeout = Duration::from_millis(800);
    let edge = Resolver { statistics_zone: Some("edge".into()), timeout, ..server.config() };
    fixture.resolve(&edge, "silent.test").await.unwrap_err();
    let sent = fixture.counted("requests", r#"type="a""#).unwrap();
    assert!(sent > 1, "hickory-resolver sends a request again while it waits");
    let arriving = async {
        while u64::try_from(server.queries()).unwrap() < sent {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), arriving).await.expect("what is counted was sent");
    assert_eq!(u64::try_from(server.queries()).unwrap(), sent);
    assert_eq!(fixture.counted("responses", r#"outcome="timedout""#), Some(1));
}

#[tokio::test]
async fn a_zone_counts_the_request_that_is_repeated_over_tcp() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver { statistics_zone: Some("edge".into()), ..server.config() };
    assert_eq!(fixture.resolve(&edge, "big.test").await.unwrap(), ["192.0.2.8:143"]);
    assert_eq!(fixture.counted("requests", r#"type="a""#), Some(2));
    assert_eq!(fixture.counted("responses", r#"outcome="success""#), Some(2));
    assert_eq!(server.queries(), 2);
}

#[tokio::test]
async fn a_zone_is_counted_until_it_is_not_named_any_more_and_from_zero_when_it_is_named_again() {
    let (server, fixture) = (Server::start().await, Fixture::new());
    let edge = Resolver { statistics_zone: Some("edge".into()), ..server.config() };
    let queries = || fixture.counted("queries", r#"kind="name""#);
    fixture.resolve(&server.config(), "imap.test").await.unwrap();
    assert_eq!(queries(), None, "nothing names the zone");
    for _ in 0..2 {
        fixture.dns.add_zone("edge");
        assert_eq!(queries(), Some(0));
        fixture.resolve(&edge, "imap.test").await.unwrap();
        assert_eq!(queries(), Some(1));
        fixture.dns.forget_zone("edge");
        assert_eq!(queries(), None);
    }
}

// --- origin of name servers ---

#[tokio::test]
async fn resolv_conf_is_followed_and_a_useless_one_is_not() {
    let first = Server::start().await;
    let port = first.address.port();
    let second = Server::start_at(SocketAddr::new([127, 0, 0, 2].into(), port)).await;
    let fixture = Fixture::with_servers_at(port);
    // Nothing is cached, so that every lookup sends a query.
    let block = Resolver { valid: Some(Duration::ZERO), ..block() };
    let asks = async |expected: (usize, usize)| {
        fixture.resolve(&block, "imap.test").await.unwrap();
        assert_eq!((first.queries(), second.queries()), expected);
    };
    fixture.write("resolv.conf", "nameserver 127.0.0.1\n");
    asks((1, 0)).await;
    fixture.write("resolv.conf", "nameserver 127.0.0.2\n");
    asks((2, 0)).await;
    for (useless, expected) in
        [("nameserver 127.0.0.2\n", (2, 1)), ("", (2, 2)), ("# nothing\n", (2, 3)), ("\n", (2, 4))]
    {
        fixture.write("resolv.conf", useless);
        pass(Duration::from_secs(6)).await;
        asks(expected).await;
    }
    std::fs::remove_file(fixture.files.path().join("resolv.conf")).unwrap();
    pass(Duration::from_secs(6)).await;
    asks((2, 5)).await;
    fixture.write("resolv.conf", "nameserver 127.0.0.1\n");
    pass(Duration::from_secs(6)).await;
    asks((3, 5)).await;
}

#[tokio::test]
async fn a_lookup_under_way_ends_with_the_servers_it_began_with() {
    let first = Server::start().await;
    let port = first.address.port();
    let second = Server::start_at(SocketAddr::new([127, 0, 0, 2].into(), port)).await;
    let fixture = Fixture::with_servers_at(port);
    fixture.write("resolv.conf", "nameserver 127.0.0.1\n");
    let source = fixture.dns.source(&block());
    let before = source.client().await.unwrap();
    fixture.write("resolv.conf", "nameserver 127.0.0.2\n");
    pass(Duration::from_secs(6)).await;
    let after = source.client().await.unwrap();
    before.addresses("imap.test").await.unwrap();
    assert_eq!((first.queries(), second.queries()), (1, 0));
    after.addresses("imap.test").await.unwrap();
    assert_eq!((first.queries(), second.queries()), (1, 1));
}

#[tokio::test]
async fn name_servers_by_name_are_looked_up_again_and_keep_their_addresses_when_that_fails() {
    let first = Server::start().await;
    let port = first.address.port();
    let second = Server::start_at(SocketAddr::new([127, 0, 0, 2].into(), port)).await;
    let fixture = Fixture::with_servers_at(port);
    fixture.write("resolv.conf", "nameserver 127.0.0.1\n");
    fixture.write("hosts", "127.0.0.1 dns.test\n");
    let nameservers = vec![BackendAddress::Name { host: "dns.test".to_owned(), port }];
    let block = Resolver { nameservers, valid: Some(Duration::ZERO), ..block() };
    fixture.resolve(&block, "imap.test").await.unwrap();
    assert_eq!((first.queries(), second.queries()), (1, 0));

    fixture.write("hosts", "127.0.0.2 dns.test\n");
    pass(Duration::from_secs(301)).await;
    let mut lookups = 0;
    while second.queries() == 0 {
        lookups += 1;
        assert!(lookups < 1000, "the other address is never used");
        fixture.resolve(&block, "imap.test").await.unwrap();
    }

    // The name no longer resolves.
    fixture.write("hosts", "");
    pass(Duration::from_secs(301)).await;
    let source = fixture.dns.source(&block);
    let before = source.client().await.unwrap();
    let asked = first.queries();
    let waiting = async {
        while first.queries() == asked {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("resolv.conf's server is asked for the name");
    for _ in 0..10 {
        fixture.resolve(&block, "imap.test").await.unwrap();
    }
    assert!(Arc::ptr_eq(&before, &source.client().await.unwrap()));
}

#[tokio::test]
async fn all_addresses_of_a_name_server_are_used() {
    let first = Server::start().await;
    let port = first.address.port();
    let mut servers = vec![first];
    for last in 2..5 {
        servers.push(Server::start_at(SocketAddr::new([127, 0, 0, last].into(), port)).await);
    }
    let fixture = Fixture::with_servers_at(port);
    fixture.write("resolv.conf", "nameserver 127.0.0.1\n");
    let lines: String = servers.iter().map(|server| format!("{} dns.test\n", server.address.ip())).collect();
    fixture.write("hosts", &lines);
    let nameservers = vec![BackendAddress::Name { host: "dns.test".to_owned(), port }];
    let block = Resolver { nameservers, valid: Some(Duration::ZERO), ..block() };
    for _ in 0..8 {
        fixture.resolve(&block, "imap.test").await.unwrap();
    }
    assert!(servers.iter().all(|server| server.queries() > 0));
}

#[test]
fn the_least_recently_used_resolver_goes_first() {
    let dns = Fixture::new().dns;
    let config = |seconds| Resolver { timeout: Duration::from_secs(seconds), ..block() };
    let kept = dns.source(&config(0));
    for seconds in 1..1000 {
        dns.source(&config(seconds));
        assert!(Arc::ptr_eq(&kept, &dns.source(&config(0))));
    }
    assert_eq!(dns.sources.lock().len(), MAX_RESOLVERS);
}
