//! Tests of TLS servers.

use super::*;
use crate::model::{ClientAuth, ClientAuthMode, TicketKey, TicketKeys};
use crate::tls::testing::{self, Ca, Issued, clear, client_auth, server_tls};
use rcgen::{KeyPair, PKCS_RSA_SHA256, date_time_ymd};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client that trusts `ca`, offers no ALPN, and sends `certificate`.
fn client(
    ca: &Ca,
    certificate: Option<&Issued>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let builder = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![issued.der.clone()], key).unwrap()
        }
    }
}

fn plain_client(ca: &Ca) -> ClientConfig {
    client(ca, None, rustls::ALL_VERSIONS)
}

type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Does one handshake over loopback. The server writes a byte, so that the client reads its tickets.
async fn shake(
    acceptor: &TlsAcceptor,
    config: &Arc<ClientConfig>,
    name: &str,
) -> (Result<Accepted<TcpStream>, HandshakeError>, std::io::Result<ClientStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut accepted = acceptor.accept(clear(stream)).await?;
        accepted.stream.write_all(b"*").await.unwrap();
        accepted.stream.flush().await.unwrap();
        Ok(accepted)
    };
    tokio::join!(server, client)
}

fn acceptor(listeners: Vec<Arc<Listener>>) -> TlsAcceptor {
    made(&testing::socket(listeners), None)
}

fn made(socket: &Arc<Socket>, previous: Option<&TlsAcceptor>) -> TlsAcceptor {
    TlsAcceptor::new(socket, previous, &SharedTicketKeys::default()).unwrap()
}

fn leaf_of(stream: &ClientStream) -> &[u8] {
    stream.get_ref().1.peer_certificates().unwrap().first().unwrap()
}

#[tokio::test]
async fn selects_the_listener_by_sni_and_tells_openssl_names() {
    let ca = Ca::new("ca");
    let listeners = ["a.test", "*.b.test"]
        .map(|name| testing::listener(&[name], server_tls(vec![ca.issue(&[name]).model()])));
    let acceptor = acceptor(listeners.to_vec());
    let (accepted, _) = shake(&acceptor, &Arc::new(plain_client(&ca)), "mail.b.test").await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.listener, 1);
    assert_eq!(accepted.facts.server_name.as_deref(), Some("mail.b.test"));
    assert_eq!((accepted.facts.version.as_str(), accepted.facts.alpn), ("TLSv1.3", None));
    assert!(accepted.facts.cipher.starts_with("TLS_"), "{}", accepted.facts.cipher);
    assert_eq!(accepted.client, ClientCertificate::NotRequested);

    let old = Arc::new(client(&ca, None, &[&rustls::version::TLS12]));
    let facts = shake(&acceptor, &old, "a.test").await.0.unwrap().facts;
    assert_eq!(facts.version, "TLSv1.2");
    assert!(facts.cipher.starts_with("ECDHE-ECDSA-"), "{}", facts.cipher);
}

#[tokio::test]
async fn the_longest_chain_that_is_taken_is_understood_by_clients() {
    let ca = Ca::new("ca");
    let mut authorities = vec![ca.below("authority")];
    while authorities.len() < 99 {
        authorities.push(authorities[authorities.len() - 1].below("authority"));
    }
    let issued = authorities[98].issue(&["a.test"]);
    let above: Vec<_> = authorities.iter().rev().collect();
    let bytes = |ca: &Ca| ca.der().len() + 5;
    let fits = (0..=99)
        .rev()
        .find(|count| {
            issued.der.len() + 5 + above[..*count].iter().copied().map(bytes).sum::<usize>() <= 60_000
        })
        .unwrap();
    let chain = issued.chain + &above[..fits].iter().map(|ca| ca.pem()).collect::<String>();
    let longest = Issued { chain, key: issued.key, der: issued.der };
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![longest.model()]))]);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let (server, client) =
            shake(&acceptor, &Arc::new(client(&authorities[98], None, versions)), "a.test").await;
        assert!(server.is_ok());
        assert_eq!(client.unwrap().get_ref().1.peer_certificates().unwrap().len(), fits + 1);
    }
}

#[tokio::test]
async fn more_authorities_than_a_message_holds_are_trusted_all_the_same() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let mine = clients.issue(&["alice"]);
    let long = "x".repeat(60);
    let mut authorities: Vec<_> = (0..800).map(|n| Ca::new(&format!("{n} {long}")).der()).collect();
    authorities.push(clients.der());
    let mut tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    tls.client_auth = client_auth(ClientAuthMode::Required, authorities);
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let (server, _) = shake(&acceptor, &Arc::new(client(&ca, Some(&mine), versions)), "a.test").await;
        assert!(matches!(server.unwrap().client, ClientCertificate::Presented { verified: Ok(()), .. }));
    }
}

#[tokio::test]
async fn a_name_of_no_listener_gets_unrecognized_name() {
    let ca = Ca::new("ca");
    let tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    let acceptor = acceptor(vec![testing::listener(&["a.test"], tls)]);
    let (server, client) = shake(&acceptor, &Arc::new(plain_client(&ca)), "b.test").await;
    let error = server.unwrap_err();
    assert!(
        matches!(&error, HandshakeError::Client(HandshakeFailure::UnknownName(name)) if name == "b.test")
    );
    let client = HandshakeFailure::from(client.unwrap_err());
    assert!(matches!(client, HandshakeFailure::Alert(AlertDescription::UnrecognisedName)), "{client:?}");
}

#[tokio::test]
async fn refuses_a_foreign_alpn_protocol_and_accepts_ours_or_none() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    for (offer, agreed) in [(vec!["http/1.1"], None), (vec!["h2", "imap"], Some("imap"))] {
        let mut config = plain_client(&ca);
        config.alpn_protocols = offer.iter().map(|name| (*name).into()).collect();
        let (server, _) = shake(&acceptor, &Arc::new(config), "a.test").await;
        match agreed {
            Some(_) => assert_eq!(server.unwrap().facts.alpn.as_deref(), agreed),
            None => assert!(matches!(
                server.unwrap_err(),
                HandshakeError::Client(HandshakeFailure::ForeignProtocol)
            )),
        }
    }
    assert!(shake(&acceptor, &Arc::new(plain_client(&ca)), "a.test").await.0.is_ok());
}

#[tokio::test]
async fn chooses_the_certificate_by_name_then_ecdsa_before_rsa() {
    let ca = Ca::new("ca");
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let rsa = ca.issue_with(testing::named("rsa", &["a.test"]), rsa);
    let (ecdsa, wildcard) = (ca.issue(&["a.test"]), ca.issue(&["*.b.test"]));
    let tls = server_tls(vec![rsa.model(), ecdsa.model(), wildcard.model()]);
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    let modern = Arc::new(plain_client(&ca));
    assert_eq!(leaf_of(&shake(&acceptor, &modern, "a.test").await.1.unwrap()), &*ecdsa.der);
    assert_eq!(leaf_of(&shake(&acceptor, &modern, "x.b.test").await.1.unwrap()), &*wildcard.der);

    let mut crypto = (*crate::tls::provider()).clone();
    crypto.cipher_suites.retain(|suite| format!("{suite:?}").contains("_RSA_"));
    let mut roots = RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let rsa_only = ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (server, client) = shake(&acceptor, &Arc::new(rsa_only), "a.test").await;
    assert_eq!(leaf_of(&client.unwrap()), &*rsa.der);
    // The authority's key, which signs, is of another type.
    let shown =
        |accepted: Accepted<_>| accepted.facts.shown.map(|shown| (shown.signature, shown.key.clone()));
    assert_eq!(shown(server.unwrap()), Some(("ecdsa-with-SHA256", "RSA2048".to_owned())));
    let (server, _) = shake(&acceptor, &modern, "a.test").await;
    assert_eq!(shown(server.unwrap()), Some(("ecdsa-with-SHA256", "EC256".to_owned())));
}

#[tokio::test]
async fn a_client_certificate_is_told_by_name_where_it_is_trusted_and_as_old_where_it_is_resumed() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let mut tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    tls.client_auth = client_auth(ClientAuthMode::OptionalNoCa, vec![ca.der()]);
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    let told = |name: Option<&str>, resumed| {
        let common_name = name.map(str::to_owned);
        Some(ClientCertificateFacts { verified: common_name.is_some(), common_name, resumed })
    };
    for version in rustls::ALL_VERSIONS {
        let facts = async |config: &Arc<ClientConfig>| {
            shake(&acceptor, config, "a.test").await.0.unwrap().facts.client
        };
        let trusted = Arc::new(client(&ca, Some(&ca.issue(&[])), &[version]));
        assert_eq!(facts(&trusted).await, told(Some("leaf"), false));
        assert_eq!(facts(&trusted).await, told(Some("leaf"), true));
        let foreign = Arc::new(client(&ca, Some(&other.issue(&[])), &[version]));
        assert_eq!(facts(&foreign).await, told(None, false));
        assert_eq!(facts(&Arc::new(client(&ca, None, &[version]))).await, None);
    }
}

/// Returns the verdicts for a client with `certificate` under `policy`, with both TLS versions.
async fn policy_verdict(
    server: &Ca,
    policy: ClientAuth,
    certificate: Option<&Issued>,
) -> (ClientCertificate, Option<CertificateProblem>) {
    let mut tls = server_tls(vec![server.issue(&["a.test"]).model()]);
    tls.client_auth = policy;
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    let mut verdicts = Vec::new();
    for version in rustls::ALL_VERSIONS {
        let config = Arc::new(client(server, certificate, &[version]));
        // The second handshake resumes the session, and is judged too.
        for _ in 0..2 {
            let accepted = shake(&acceptor, &config, "a.test").await.0.unwrap();
            verdicts.push((accepted.client, accepted.refusal));
        }
    }
    let first = verdicts.remove(0);
    assert!(verdicts.iter().all(|other| *other == first), "{verdicts:?}");
    first
}

fn reason_of(client: &ClientCertificate) -> Option<&str> {
    match client {
        ClientCertificate::Presented { verified, .. } => verified.as_ref().err().map(String::as_str),
        _ => None,
    }
}

#[tokio::test]
async fn a_missing_client_certificate_ends_the_session_only_where_required() {
    let ca = Ca::new("ca");
    for (mode, refusal) in [
        (ClientAuthMode::Required, Some(CertificateProblem::Missing)),
        (ClientAuthMode::Optional, None),
        (ClientAuthMode::OptionalNoCa, None),
    ] {
        let verdict = policy_verdict(&ca, client_auth(mode, vec![ca.der()]), None).await;
        assert_eq!(verdict, (ClientCertificate::Absent, refusal));
    }
}

#[tokio::test]
async fn a_bad_client_certificate_survives_the_handshake_and_is_refused_after_it() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let (good, foreign) = (ca.issue(&[]), other.issue(&[]));
    let mut old = testing::named("old", &[]);
    old.not_before = date_time_ymd(2001, 1, 1);
    old.not_after = date_time_ymd(2002, 1, 1);
    let expired = ca.issue_with(old, KeyPair::generate().unwrap());

    let judge = async |mode, certificate| {
        let (client, refusal) =
            policy_verdict(&ca, client_auth(mode, vec![ca.der()]), Some(certificate)).await;
        (reason_of(&client).map(ToOwned::to_owned), refusal)
    };
    assert_eq!(judge(ClientAuthMode::Required, &good).await, (None, None));
    let untrusted = Some("unable to get local issuer certificate".to_owned());
    let invalid = Some(CertificateProblem::Invalid);
    assert_eq!(judge(ClientAuthMode::Optional, &foreign).await, (untrusted.clone(), invalid));
    assert_eq!(judge(ClientAuthMode::OptionalNoCa, &foreign).await, (untrusted, None));
    let stale = Some("certificate has expired".to_owned());
    assert_eq!(judge(ClientAuthMode::OptionalNoCa, &expired).await, (stale, invalid));
}

#[tokio::test]
async fn revoked_certificates_and_stale_lists_are_refused() {
    let ca = Ca::new("ca");
    let (good, revoked) = (ca.issue(&[]), ca.issue_with(testing::revocable(), KeyPair::generate().unwrap()));
    let judge = async |next_update, certificate| {
        let mut policy = client_auth(ClientAuthMode::Optional, vec![ca.der()]);
        policy.crls = crate::tls::parse::crls(ca.crl(next_update).pem().unwrap().as_bytes()).unwrap();
        let (client, refusal) = policy_verdict(&ca, policy, Some(certificate)).await;
        (reason_of(&client).map(ToOwned::to_owned), refusal)
    };
    assert_eq!(judge(2090, &good).await, (None, None));
    let invalid = Some(CertificateProblem::Invalid);
    assert_eq!(judge(2090, &revoked).await, (Some("certificate revoked".to_owned()), invalid));
    assert_eq!(judge(2025, &good).await, (Some("CRL has expired".to_owned()), invalid));
}

#[test]
fn a_chain_with_more_intermediates_than_depth_is_too_long() {
    let root = Ca::new("root");
    let first = root.below("first");
    let second = first.below("second");
    let leaf = second.issue(&[]);
    let chain = [leaf.der.clone(), second.der(), first.der()];
    let judge = |depth| {
        let policy = ClientAuth { depth, ..client_auth(ClientAuthMode::Required, vec![root.der()]) };
        ClientVerifier::new(&policy, &crate::tls::provider()).unwrap().judge(Some(&chain), UnixTime::now())
    };
    assert_eq!(judge(2).1, None);
    let (client, refusal) = judge(1);
    assert_eq!(reason_of(&client), Some("certificate chain too long"));
    assert_eq!(refusal, Some(CertificateProblem::Invalid));
}

async fn kind(acceptor: &TlsAcceptor, config: &Arc<ClientConfig>) -> HandshakeKind {
    let client = shake(acceptor, config, "a.test").await.1.unwrap();
    client.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn sessions_resume_over_a_new_certificate_and_not_over_new_trust() {
    let ca = Ca::new("ca");
    for (tickets, version) in
        [(true, &rustls::version::TLS13), (false, &rustls::version::TLS13), (false, &rustls::version::TLS12)]
    {
        let config = Arc::new(client(&ca, None, &[version]));
        let tls =
            || ServerTls { session_tickets: tickets, ..server_tls(vec![ca.issue(&["a.test"]).model()]) };
        let socket = |tls| testing::socket(vec![testing::listener(&[], tls)]);
        let first = made(&socket(tls()), None);
        assert_eq!(kind(&first, &config).await, HandshakeKind::Full);
        assert_eq!(kind(&first, &config).await, HandshakeKind::Resumed);

        let renewed = made(&socket(tls()), Some(&first));
        assert_eq!(kind(&renewed, &config).await, HandshakeKind::Resumed);

        let mut stricter = tls();
        stricter.client_auth = client_auth(ClientAuthMode::Optional, vec![ca.der()]);
        let stricter = made(&socket(stricter), Some(&renewed));
        assert_eq!(kind(&stricter, &config).await, HandshakeKind::Full);
    }
}

/// Keys that are numbered, for tests.
fn ticket_keys(numbers: [u8; 4]) -> TicketKeys {
    let [current, others @ ..] = numbers.map(|number| TicketKey::from_bytes(&[number; 48]).unwrap());
    TicketKeys { current, others: others.into() }
}

#[tokio::test]
async fn sessions_resume_at_another_replica_and_not_after_three_rotations() {
    let ca = Ca::new("ca");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = ServerTls { session_cache_size: 0, ..server_tls(vec![ca.issue(&["a.test"]).model()]) };
        let socket = testing::socket(vec![testing::listener(&[], tls)]);
        let [here, there] = [(); 2].map(|()| SharedTicketKeys::default());
        let replica = |keys| TlsAcceptor::new(&socket, None, keys).unwrap();
        let (first, second) = (replica(&here), replica(&there));
        let config = Arc::new(client(&ca, None, &[version]));
        assert_eq!(kind(&first, &config).await, HandshakeKind::Full);
        assert_eq!(kind(&second, &config).await, HandshakeKind::Full, "keys of each process");
        here.store(Some(ticket_keys([1, 2, 3, 4])));
        there.store(Some(ticket_keys([1, 2, 3, 4])));
        assert_eq!(kind(&second, &config).await, HandshakeKind::Resumed, "the same acceptor");
        assert_eq!(kind(&first, &config).await, HandshakeKind::Resumed);
        // The other replica does not know yet that 5 is the key now.
        here.store(Some(ticket_keys([2, 5, 1, 3])));
        assert_eq!(kind(&first, &config).await, HandshakeKind::Resumed);
        assert_eq!(kind(&second, &config).await, HandshakeKind::Resumed);
        here.store(Some(ticket_keys([6, 7, 5, 2])));
        assert_eq!(kind(&first, &config).await, HandshakeKind::Full, "key 1 no longer exists");
    }
}

#[tokio::test]
async fn a_session_without_a_client_certificate_is_not_resumed_where_one_is_required() {
    let ca = Ca::new("ca");
    let tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    let strict = client_auth(ClientAuthMode::Required, vec![ca.der()]);
    let keys = SharedTicketKeys::default();
    keys.store(Some(ticket_keys([1, 2, 3, 4])));
    let replica = |tls: ServerTls| {
        let socket = testing::socket(vec![testing::listener(&[], tls)]);
        TlsAcceptor::new(&socket, None, &keys).unwrap()
    };
    let (open, strict) = (replica(tls.clone()), replica(ServerTls { client_auth: strict, ..tls }));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Arc::new(client(&ca, None, &[version]));
        assert_eq!(kind(&open, &config).await, HandshakeKind::Full);
        let (accepted, _) = shake(&strict, &config, "a.test").await;
        let accepted = accepted.unwrap();
        assert_eq!(accepted.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert!(accepted.refusal.is_some());
    }
}

#[test]
fn an_unchanged_listener_keeps_its_configuration() {
    let ca = Ca::new("ca");
    let tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    let socket = |tls| testing::socket(vec![testing::listener(&[], tls)]);
    let first = made(&socket(tls.clone()), None);
    let again = made(&socket(tls), Some(&first));
    assert!(Arc::ptr_eq(&first.setups[0], &again.setups[0]));
}

#[tokio::test]
async fn an_old_client_is_refused_by_min_version_and_plain_text_by_anything() {
    let ca = Ca::new("ca");
    let mut tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    tls.min_version = MinVersion::Tls13;
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    let old = Arc::new(client(&ca, None, &[&rustls::version::TLS12]));
    let error = shake(&acceptor, &old, "a.test").await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the client offers only versions of TLS that are older than tls.minVersion"
    );

    let (mut near, far) = tokio::io::duplex(64);
    near.write_all(b"a LOGIN u p\r\n").await.unwrap();
    let error = acceptor.accept(clear(far)).await.unwrap_err();
    assert_eq!(error.to_string(), "the client did not speak TLS");
}

#[tokio::test]
async fn a_client_with_rsa_key_exchange_only_is_called_so() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    // TLS_RSA_WITH_AES_128_CBC_SHA, and ecdsa_secp256r1_sha256 as signature.
    let extensions = [0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0], &extensions].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let record = [&[22, 3, 1, 0, message.len() as u8][..], &message].concat();
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(&record).await.unwrap();
    let error = acceptor.accept(clear(far)).await.unwrap_err();
    assert_eq!(error.to_string(), "the client offers no ECDHE cipher suite or group that Mailgress supports");
}

/// Returns the text of the error if the client sends this ClientHello with the version TLS 1.2.
async fn failure_of_hello(tls: ServerTls, suite: [u8; 2], signature: [u8; 2]) -> String {
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    // supported_groups with secp256r1, and signature_algorithms.
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [&[0, 13, 0, 4, 0, 2][..], &signature].concat();
    let extensions = [&[0, 16][..], &groups, &signatures].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2], &suite, &[1, 0], &extensions].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let record = [&[22, 3, 1, 0, message.len() as u8][..], &message].concat();
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(&record).await.unwrap();
    acceptor.accept(clear(far)).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_client_that_cannot_use_the_certificate_is_told_what_to_change() {
    const ECDSA_SUITE: [u8; 2] = [0xc0, 0x2b];
    const RSA_SUITE: [u8; 2] = [0xc0, 0x2f];
    const ECDSA_SIGNATURE: [u8; 2] = [4, 3];
    const RSA_SIGNATURE: [u8; 2] = [4, 1];
    let ca = Ca::new("ca");
    let tls = || server_tls(vec![ca.issue(&["a.test"]).model()]);
    let mut limited = tls();
    limited.cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".to_owned()];
    let no_suite = "the client offers no cipher suite that fits our certificate and tls.cipherSuites; allow one of \
                    its suites there, or update the client";
    for (tls, suite) in [(limited, ECDSA_SUITE), (tls(), RSA_SUITE)] {
        assert_eq!(failure_of_hello(tls, suite, ECDSA_SIGNATURE).await, no_suite);
    }
    let signature = failure_of_hello(tls(), ECDSA_SUITE, RSA_SIGNATURE).await;
    assert!(
        signature.starts_with("the client accepts no signature of our certificate's key; "),
        "{signature}"
    );
}

#[tokio::test]
async fn a_record_that_is_longer_than_tls_allows_is_called_so() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(&[22, 3, 1, 0xff, 0xff, 1, 0, 0, 1]).await.unwrap();
    let error = acceptor.accept(clear(far)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the client sent an invalid TLS message (longer than TLS allows); "),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_that_refuses_an_expired_certificate_is_right_only_if_it_has_expired() {
    let ca = Ca::new("ca");
    let mut params = testing::named("a.test", &["a.test"]);
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    let expired = ca.issue_with(params, KeyPair::generate().unwrap()).model();
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![expired]))]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(client(&ca, None, &[version]));
        let error = shake(&acceptor, &config, "a.test").await.0.unwrap_err();
        let expected =
            "the client does not accept the certificate of Secret mail/tls, which has expired; renew it";
        assert_eq!(error.to_string(), expected);
    }
    let choice = &acceptor.setups[0].choice;
    assert_eq!(choice.expired(Some("a.test"), 0), None);
}

/// Returns a record with a ClientHello of TLS 1.0 or 1.1, which has no extensions.
fn old_hello(minor: u8) -> Vec<u8> {
    let body = [&[3, minor][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x09], &[1, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[tokio::test]
async fn a_client_of_tls_1_1_or_older_is_called_so_and_gets_the_alert_of_its_version() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    for minor in [0, 1, 2] {
        let hello = old_hello(minor);
        for parts in [vec![&hello[..]], hello.chunks(3).collect()] {
            let (mut near, far) = tokio::io::duplex(1024);
            let accepting = acceptor.accept(clear(far));
            let client = async {
                for part in parts {
                    near.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let (accepted, answer) = tokio::join!(accepting, client);
            assert_eq!(
                accepted.unwrap_err().to_string(),
                "the client offers only TLS 1.1 or older, and the oldest supported version is TLS 1.2"
            );
            assert_eq!(answer, [21, 3, minor, 0, 2, 2, 70], "protocol_version");
        }
    }
}

#[tokio::test]
async fn tls_1_2_without_signature_algorithms_is_not_called_old() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(&old_hello(3)).await.unwrap();
    let error = acceptor.accept(clear(far)).await.unwrap_err().to_string();
    assert_eq!(error, "the client offers only TLS 1.2 with SHA-1 signatures, which are not accepted here");
    let mut alert = [0; 7];
    near.read_exact(&mut alert).await.unwrap();
    assert_eq!((alert[0], alert[6]), (21, 40), "handshake_failure");
}

#[tokio::test]
async fn a_client_whose_version_has_no_configured_suite_is_told_of_cipher_suites() {
    let ca = Ca::new("ca");
    let only_1_2 = "the client offers only other versions than TLS 1.2, and tls.cipherSuites has only suites of TLS 1.2; \
                    add suites of TLS 1.3 there";
    let only_1_3 = "the client offers only TLS 1.2 or older, and tls.cipherSuites has only suites of TLS 1.3; add suites \
                    of TLS 1.2 there, or update the client";
    for (suite, version, expected) in [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", &rustls::version::TLS13, only_1_2),
        ("TLS_AES_128_GCM_SHA256", &rustls::version::TLS12, only_1_3),
    ] {
        let mut tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
        tls.cipher_suites = vec![suite.to_owned()];
        let acceptor = acceptor(vec![testing::listener(&[], tls)]);
        let error = shake(&acceptor, &Arc::new(client(&ca, None, &[version])), "a.test").await.0.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// Returns the error if a TLS 1.2 client sends its ClientHello and then these bytes.
async fn failure_after(ca: &Ca, acceptor: &TlsAcceptor, bytes: &[u8]) -> HandshakeError {
    let config = Arc::new(client(ca, None, &[&rustls::version::TLS12]));
    let mut hello = Vec::new();
    let name = ServerName::try_from("a.test").unwrap();
    rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    let (mut near, far) = tokio::io::duplex(1 << 17);
    near.write_all(&hello).await.unwrap();
    near.write_all(bytes).await.unwrap();
    acceptor.accept(clear(far)).await.unwrap_err()
}

/// Returns records with the start of a handshake message of this type, which announces 60,000 bytes.
fn endless(kind: u8, bytes: usize) -> Vec<u8> {
    let mut message = vec![kind, 0, 0xea, 0x60];
    message.resize(bytes, 0);
    let record = |part: &[u8]| [&[22, 3, 3, (part.len() >> 8) as u8, part.len() as u8], part].concat();
    message.chunks(4000).flat_map(record).collect()
}

#[tokio::test]
async fn a_handshake_that_is_too_long_is_not_read_to_its_end() {
    let ca = Ca::new("ca");
    let acceptor = acceptor(vec![testing::listener(&[], server_tls(vec![ca.issue(&["a.test"]).model()]))]);
    let (mut near, far) = tokio::io::duplex(1 << 17);
    near.write_all(&endless(1, 50_000)).await.unwrap();
    let of_hello = acceptor.accept(clear(far)).await.unwrap_err();
    // A ClientKeyExchange.
    let after_hello = failure_after(&ca, &acceptor, &endless(16, 50_000)).await;
    for error in [of_hello, after_hello] {
        assert!(matches!(error, HandshakeError::Client(HandshakeFailure::TooLong)), "{error:?}");
    }
}

#[tokio::test]
async fn a_long_hello_and_a_long_chain_are_taken() {
    let ca = Ca::new("ca");
    let tls = || server_tls(vec![ca.issue(&["a.test"]).model()]);
    let plain = acceptor(vec![testing::listener(&[], tls())]);
    let mut talkative = plain_client(&ca);
    talkative.alpn_protocols = (0..40).map(|index| vec![b'a' + index; 250]).collect();
    talkative.alpn_protocols.push(b"imap".to_vec());
    assert!(shake(&plain, &Arc::new(talkative), "a.test").await.0.is_ok());

    let mut asking = tls();
    asking.client_auth = client_auth(ClientAuthMode::OptionalNoCa, vec![ca.der()]);
    let asking = acceptor(vec![testing::listener(&[], asking)]);
    let leaf = ca.issue(&[]);
    let chain = std::iter::once(leaf.der.clone()).chain(std::iter::repeat_n(ca.der(), 50)).collect();
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    assert!(shake(&asking, &Arc::new(config), "a.test").await.0.is_ok());
}

#[test]
fn configured_cipher_suites_are_all_there_is() {
    let ca = Ca::new("ca");
    let mut tls = server_tls(vec![ca.issue(&["a.test"]).model()]);
    tls.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()];
    let acceptor = acceptor(vec![testing::listener(&[], tls)]);
    let suites = &acceptor.setups[0].config.crypto_provider().cipher_suites;
    assert_eq!(suites.len(), 1);
}
