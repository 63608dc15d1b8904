//! Tests of the whole data plane on real sockets with a scripted backend: bind, log in, relay, swap, drain.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::sessions::SessionFilter;
use crate::model::settings::{Limits, LoadBalancing, Timeouts, Upstream, UpstreamTls};
use crate::model::{
    Auth, Backend, BindReport, InboundProxyProtocol, Listener, ListenerId, Listeners, Reach,
    SharedTicketKeys, Snapshot, Socket, SocketState, SourceAddresses, TlsMode, UntrustedPeers,
};
use crate::net::{BackendAddress, ListenAddress, SocketOptions};
use crate::protocol::{FrontendConfig, Mechanism, Protocol};

use super::{Channels, ExclusiveUsers, Observer, Options, Proxy};

/// A data plane with its own runtime.
struct DataPlane {
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Receiver<Arc<BindReport>>,
    shutdown: CancellationToken,
    runtime: tokio::runtime::Runtime,
    done: tokio::task::JoinHandle<()>,
    registry: Registry,
    observer: Observer,
}

impl DataPlane {
    fn start(drain_timeout: Duration) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (snapshots, wanted) = watch::channel(Arc::new(Snapshot::default()));
        let (bound, reports) = watch::channel(Arc::new(BindReport::default()));
        let registry = Registry::new();
        let exclusive = ExclusiveUsers::alone("1");
        let tickets = SharedTicketKeys::default();
        let channels = Channels { snapshots: wanted, reports: bound, tickets, exclusive };
        let proxy = Proxy::start(
            Options { workers: 2, process: 1, drain_timeout, drain_spread: Duration::ZERO },
            channels,
            &registry,
        )
        .unwrap();
        let (observer, shutdown) = (proxy.observer(), CancellationToken::new());
        let done = runtime.spawn(proxy.run(shutdown.clone()));
        Self { snapshots, reports, shutdown, runtime, done, registry, observer }
    }

    /// Publishes the sockets and waits for the report.
    fn serve(&mut self, sockets: Vec<Socket>) -> BTreeMap<ListenAddress, SocketState> {
        let revision = self.snapshots.borrow().revision + 1;
        let sockets = sockets.into_iter().map(|socket| (socket.address.clone(), Arc::new(socket))).collect();
        self.snapshots.send_replace(Arc::new(Snapshot { revision, sockets }));
        let reports = &mut self.reports;
        let report = self.runtime.block_on(reports.wait_for(|report| report.revision == revision)).unwrap();
        (*report.sockets).clone()
    }

    /// Waits until the report about a listener's source addresses meets `expected`.
    fn comes_to_see(
        &mut self,
        listener: &ListenerId,
        expected: impl Fn(&SourceAddresses) -> bool,
    ) -> SourceAddresses {
        let seen = |report: &Arc<BindReport>| report.source_addresses.get(listener).is_some_and(&expected);
        let report = self.runtime.block_on(self.reports.wait_for(seen)).unwrap();
        report.source_addresses[listener].clone()
    }

    fn metric(&self, line: &str) -> bool {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap().contains(line)
    }

    fn end(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.done).unwrap();
    }
}

/// A POP3 server that accepts the password `secret` and answers `NOOP` with its name.
fn backend(name: &'static str) -> BackendAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || serve_pop3(stream, name));
        }
    });
    BackendAddress::Ip(address)
}

fn serve_pop3(mut stream: TcpStream, name: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    say("+OK backend ready");
    while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        let open = match line.trim_end() {
            "PASS secret" => say("+OK logged in"),
            command if command.starts_with("PASS") => say("-ERR [AUTH] wrong password"),
            "NOOP" => say(&format!("+OK {name}")),
            "QUIT" => {
                say("+OK bye");
                false
            }
            _ => say("+OK"),
        };
        if !open {
            return;
        }
        line.clear();
    }
}

/// An address of 127.0.0.0/8 that no other test uses, so that its port is free.
fn free_address() -> ListenAddress {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)).unwrap();
    ListenAddress::Ip(listener.local_addr().unwrap())
}

fn frontend() -> FrontendConfig {
    FrontendConfig {
        protocol: Protocol::Pop3,
        server_name: "mail.test".into(),
        capabilities: vec!["TOP".into()],
        mechanisms: vec![Mechanism::Plain],
        relay_sasl: true,
        ..FrontendConfig::default()
    }
}

pub(super) fn socket(address: &ListenAddress, backends: Vec<BackendAddress>) -> Socket {
    let listener = Listener {
        id: ListenerId { namespace: "mail".into(), object: "example".into(), listener: "pop3".into() },
        hostnames: Vec::new(),
        frontend: Arc::new(frontend()),
        tls: None,
        auth: Auth::Passthrough,
        backend: Some(Arc::new(Backend::new("test".into(), backends))),
        routes: None,
        reach: Reach::Anywhere,
        upstream: Arc::new(Upstream {
            tls: UpstreamTls::Disabled,
            proxy_protocol: None,
            xclient: None,
            client_hello: false,
            smtp_auth: true,
            imap_id: false,
            pass_error_message: false,
            load_balancing: LoadBalancing::RoundRobin,
            health_check: None,
        }),
        resolver: Arc::default(),
        timeouts: Timeouts {
            client: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            ..Timeouts::default()
        },
        limits: Limits::default(),
        greeting_delay: Duration::ZERO,
    };
    Socket {
        address: address.clone(),
        options: SocketOptions::default(),
        protocol: Protocol::Pop3,
        tls_mode: TlsMode::Disabled,
        proxy_protocol: None,
        listeners: Listeners::new(Arc::new(listener), []),
    }
}

/// A POP3 client that has read the greeting.
struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &ListenAddress) -> Self {
        let ListenAddress::Ip(address) = address else { panic!("not TCP") };
        Self::greeted(TcpStream::connect(address).unwrap())
    }

    fn greeted(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, lines };
        assert_eq!(client.line(), "+OK POP3 ready");
        client
    }

    fn logged_in(address: &ListenAddress) -> Self {
        let mut client = Self::connect(address);
        assert_eq!(client.ask("USER u"), "+OK");
        assert_eq!(client.ask("PASS secret"), "+OK logged in");
        client
    }

    fn ask(&mut self, command: &str) -> String {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        rest
    }
}

/// Connects from one of this host's own addresses.
fn dial(from: Ipv4Addr, to: &ListenAddress) -> TcpStream {
    let ListenAddress::Ip(to) = to else { panic!("not TCP") };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&(*to).into()).unwrap();
    socket.into()
}

#[test]
fn relays_the_backends_own_verdict_and_then_its_bytes() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let address = free_address();
    let states = plane.serve(vec![socket(&address, vec![backend("one")])]);
    assert!(matches!(states[&address], SocketState::Bound(_)), "{states:?}");
    let mut client = Client::connect(&address);
    client.ask("USER u");
    assert_eq!(client.ask("PASS wrong"), "-ERR [AUTH] wrong password");
    client.ask("USER u");
    assert_eq!(client.ask("PASS secret"), "+OK logged in");
    assert_eq!(client.ask("NOOP"), "+OK one");
    assert!(
        plane.metric(r#"mailgress_sessions_open{listener="mail/example/pop3",protocol="pop3",tls="off"} 1"#)
    );
    assert_eq!(client.ask("QUIT"), "+OK bye");
    assert_eq!(client.rest(), "");
    plane.end();
}

#[test]
fn tries_the_next_endpoint_when_one_cannot_be_connected() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let address = free_address();
    let ListenAddress::Ip(closed) = free_address() else { panic!("not TCP") };
    plane.serve(vec![socket(&address, vec![BackendAddress::Ip(closed), backend("two")])]);
    for _ in 0..3 {
        assert_eq!(Client::logged_in(&address).ask("NOOP"), "+OK two");
    }
    plane.serve(vec![socket(&address, vec![BackendAddress::Ip(closed)])]);
    let mut client = Client::connect(&address);
    client.ask("USER u");
    assert_eq!(client.ask("PASS secret"), "-ERR [SYS/TEMP] Temporary authentication failure.");
    plane.serve(vec![socket(&address, vec![BackendAddress::Ip(closed), backend("two")])]);
    let mut client = Client::logged_in(&address);
    assert_eq!(client.ask("NOOP"), "+OK two");
    plane.end();
}

#[test]
fn a_swap_keeps_sessions_and_a_removed_listener_refuses_new_ones() {
    let mut plane = DataPlane::start(Duration::from_secs(30));
    let address = free_address();
    plane.serve(vec![socket(&address, vec![backend("old")])]);
    let mut old = Client::logged_in(&address);
    plane.serve(vec![socket(&address, vec![backend("new")])]);
    assert_eq!(Client::logged_in(&address).ask("NOOP"), "+OK new");
    assert_eq!(old.ask("NOOP"), "+OK old");
    plane.serve(Vec::new());
    let ListenAddress::Ip(closed) = address else { panic!("not TCP") };
    assert!(TcpStream::connect(closed).is_err());
    assert_eq!(old.ask("NOOP"), "+OK old");
    let counted = "listener=\"mail/example/pop3\"";
    assert!(plane.metric(counted), "its last session is counted");
    drop(old);
    let deadline = Instant::now() + Duration::from_secs(30);
    while plane.metric(counted) {
        assert!(Instant::now() < deadline, "its metrics stay");
        std::thread::yield_now();
    }
    plane.end();
}

#[test]
fn a_listener_that_is_reported_as_removed_is_closed() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let one = backend("one");
    for _ in 0..ROUNDS {
        let address = free_address();
        let states = plane.serve(vec![socket(&address, vec![one.clone()])]);
        assert!(matches!(states[&address], SocketState::Bound(_)), "{states:?}");
        plane.serve(Vec::new());
        let ListenAddress::Ip(closed) = address else { panic!("not TCP") };
        assert!(TcpListener::bind(closed).is_ok(), "{closed} is still listened on");
    }
    plane.end();
}

/// Enough rounds to detect a socket that is closed slightly too late.
const ROUNDS: usize = 100;

#[test]
fn ends_the_sessions_that_outlive_the_drain_timeout() {
    let mut plane = DataPlane::start(Duration::from_millis(300));
    let (address, other) = (free_address(), free_address());
    let one = backend("one");
    let mut second = socket(&other, vec![one.clone()]);
    let mut listener = (*second.listeners[0]).clone();
    listener.id.listener = "other".into();
    second.listeners = Listeners::new(Arc::new(listener), []);
    plane.serve(vec![socket(&address, vec![one.clone()]), second]);
    let removed = Client::logged_in(&address);
    let waiting = Client::connect(&other);
    plane.serve(vec![socket(&other, vec![one])]);
    let goodbye = "-ERR Service is being restarted, please reconnect\r\n";
    assert_eq!(waiting.rest(), goodbye, "its listener is gone, though its address is not");
    let kept = Client::logged_in(&other);
    let mut removed = removed;
    assert_eq!(removed.ask("NOOP"), "+OK one", "its listener only moved");
    plane.end();
    // After the login, the relay does not know whether a POP3 message is being sent.
    assert_eq!(kept.rest(), "");
    assert_eq!(removed.rest(), "");
}

#[test]
fn sessions_are_listed_from_their_login_on_and_kicked_alone() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let address = free_address();
    let one = backend("one");
    plane.serve(vec![socket(&address, vec![one.clone()])]);
    let waiting = Client::connect(&address);
    let list = |filter: &SessionFilter| plane.observer.sessions(filter, Instant::now(), SystemTime::now());
    assert_eq!(list(&SessionFilter::default()), []);
    let (kicked, mut kept) = (Client::logged_in(&address), Client::logged_in(&address));
    let listed = list(&SessionFilter { backend: Some(one.to_string()), ..SessionFilter::default() });
    let shown: Vec<_> = listed.iter().map(|session| (&*session.login, &*session.listener)).collect();
    assert_eq!(shown, [("u", "mail/example/pop3"); 2]);
    let first = SessionFilter { session: Some(listed[0].id), ..SessionFilter::default() };
    assert_eq!(plane.observer.kick(&first), 1);
    assert_eq!(kicked.rest(), "");
    assert_eq!(kept.ask("NOOP"), "+OK one");
    drop((waiting, kept));
    plane.end();
}

#[test]
fn serves_all_others_when_a_port_is_taken_and_tries_it_again() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (blocked, free) = (ListenAddress::Ip(taken.local_addr().unwrap()), free_address());
    let one = backend("one");
    let states = plane.serve(vec![socket(&blocked, vec![one.clone()]), socket(&free, vec![one])]);
    assert!(matches!(&states[&blocked], SocketState::Failed(why) if why.contains("in use")), "{states:?}");
    assert_eq!(Client::logged_in(&free).ask("NOOP"), "+OK one");
    drop(taken);
    let bound = |report: &Arc<BindReport>| matches!(report.sockets[&blocked], SocketState::Bound(_));
    plane.runtime.block_on(plane.reports.wait_for(bound)).unwrap();
    assert_eq!(Client::logged_in(&blocked).ask("NOOP"), "+OK one");
    plane.end();
}

#[test]
fn a_listener_tells_whose_addresses_its_clients_come_with() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let address = free_address();
    let served = socket(&address, vec![backend("one")]);
    let id = served.listeners[0].id.clone();
    plane.serve(vec![served.clone()]);
    // A connection that does not log in is a probe, not a client.
    assert_eq!(Client::greeted(dial([127, 9, 9, 9].into(), &address)).ask("QUIT"), "+OK");
    let from = |last: u8| {
        let from = Ipv4Addr::new(127, 1, 1, last);
        let mut client = Client::greeted(dial(from, &address));
        client.ask("USER u");
        assert_eq!(client.ask("PASS wrong"), "-ERR [AUTH] wrong password");
        client.ask("USER u");
        assert_eq!(client.ask("PASS secret"), "+OK logged in");
        IpAddr::from(from)
    };
    let one = from(7);
    let seen = plane.comes_to_see(&id, |_| true);
    assert_eq!(seen, SourceAddresses { connections: 1, addresses: vec![one], ..SourceAddresses::default() });
    for _ in 0..9 {
        from(7);
    }
    let seen = plane.comes_to_see(&id, |sources| sources.connections > 1);
    assert_eq!(seen, SourceAddresses { connections: 10, addresses: vec![one], ..SourceAddresses::default() });
    let another = from(3);
    // With another configuration it is still the same listener.
    plane.serve(vec![socket(&address, vec![backend("two")])]);
    plane.comes_to_see(&id, |sources| sources.addresses == [another, one]);
    plane.serve(Vec::new());
    assert!(plane.reports.borrow().source_addresses.is_empty());
    plane.end();
}

#[test]
fn addresses_of_trusted_proxy_headers_are_counted_separately() {
    let mut plane = DataPlane::start(Duration::from_secs(5));
    let address = free_address();
    let mut served = socket(&address, vec![backend("one")]);
    served.proxy_protocol = Some(InboundProxyProtocol {
        trusted_peers: vec!["127.0.0.1/32".parse().unwrap()],
        use_as_client_address: true,
        untrusted_peers: UntrustedPeers::Report,
    });
    let id = served.listeners[0].id.clone();
    plane.serve(vec![served]);
    let log_in = |from: [u8; 4]| {
        let mut stream = dial(from.into(), &address);
        stream.write_all(b"PROXY TCP4 192.0.2.7 203.0.113.1 40000 110\r\n").unwrap();
        let mut client = Client::greeted(stream);
        client.ask("USER u");
        assert_eq!(client.ask("PASS secret"), "+OK logged in");
    };
    log_in([127, 0, 0, 1]);
    assert_eq!(
        plane.comes_to_see(&id, |_| true),
        SourceAddresses { proxied: 1, ..SourceAddresses::default() }
    );
    log_in([127, 5, 5, 5]);
    let seen = plane.comes_to_see(&id, |sources| sources.connections > 0);
    assert_eq!((seen.proxied, seen.addresses), (1, vec![IpAddr::from([127, 5, 5, 5])]));
    plane.end();
}
