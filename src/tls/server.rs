//! TLS to clients: one acceptor for each socket, with the configurations of its listeners.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::{
    AlertDescription, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::model::snapshot::positions;
use crate::model::{ClientAuthMode, Listener, MinVersion, ServerNames, ServerTls, SharedTicketKeys, Socket};
use crate::net::{Capped, tls_names};
use crate::protocol::notices::CertificateProblem;
use crate::protocol::proxy_header::{CertificateAlgorithms, ClientCertificateFacts, ProxyVersion, TlsFacts};
use crate::protocol::{Cleartext, HandshakeProof, Protocol};

use super::provider_with;
use super::resume::Resumption;
use super::select::CertificateChoice;
use super::verify::ClientVerifier;
use super::{
    ClientCertificate, HandshakeError, HandshakeFailure, TLS_1_1_OR_OLDER, TlsError, describe, hello,
};

/// Does the handshakes of a socket. Listeners with equal [`ServerTls`] share a configuration.
#[derive(Debug)]
pub struct TlsAcceptor {
    socket: Arc<Socket>,
    names: Arc<ServerNames>,
    /// In the order of the socket's listeners.
    setups: Vec<Arc<Setup>>,
    /// Maximum size of a ClientHello, in bytes.
    longest_hello: usize,
}

/// The result of a successful handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The decrypted stream.
    pub stream: TlsStream<Capped<S>>,
    /// The position of the listener that SNI selected.
    pub listener: usize,
    /// The negotiated parameters.
    pub facts: TlsFacts,
    /// The client's certificate.
    pub client: ClientCertificate,
    /// Set if the listener's client certificate policy requires to end the session with this problem's line.
    pub refusal: Option<CertificateProblem>,
    /// For [`crate::protocol::StartTls::secured`].
    pub proof: HandshakeProof,
}

/// One [`ServerTls`], prepared for one protocol.
#[derive(Debug)]
struct Setup {
    tls: Arc<ServerTls>,
    protocol: Protocol,
    config: Arc<ServerConfig>,
    choice: Arc<CertificateChoice>,
    verifier: Arc<ClientVerifier>,
    resumption: Resumption,
}

impl TlsAcceptor {
    /// Builds an acceptor for `socket`. `previous` is the acceptor before the change: what did not change is kept, so
    /// that clients can resume their sessions. Parts with the same allocation are not compared. A change of `tickets`
    /// needs no new acceptor.
    ///
    /// # Errors
    /// A listener's TLS settings cannot be used.
    pub fn new(
        socket: &Arc<Socket>,
        previous: Option<&Self>,
        tickets: &SharedTicketKeys,
    ) -> Result<Self, TlsError> {
        let before = previous.map(|previous| &*previous.socket.listeners).unwrap_or_default();
        let mut known = KnownSetups { previous, by_settings: None };
        let mut setups: Vec<Arc<Setup>> = Vec::with_capacity(socket.listeners.len());
        for (listener, old) in socket.listeners.iter().zip(positions(before, &socket.listeners)) {
            let tls =
                listener.tls.as_ref().ok_or_else(|| TlsError::NoCertificate(listener.id.to_string()))?;
            let own = old.and_then(|old| previous?.setups.get(old));
            let same = own.filter(|setup| setup.serves(tls, socket.protocol)).cloned();
            let setup = match same.or_else(|| known.find(&setups, tls, socket.protocol)) {
                Some(setup) => setup,
                None => {
                    let resumption = match own.and_then(|own| own.resumption_with(tls)) {
                        Some(inherited) => inherited,
                        None => Resumption::new(tls, socket.protocol, tickets)?,
                    };
                    known.add(Arc::new(Setup::new(tls, socket.protocol, resumption)?))
                }
            };
            setups.push(setup);
        }
        let names = match previous {
            Some(previous) if has_same_names(before, &socket.listeners) => Arc::clone(&previous.names),
            _ => Arc::new(ServerNames::new(&socket.listeners)),
        };
        // A ticket contains the client's certificates, and the listener is known only after the ClientHello was read.
        let asks = setups.iter().any(|setup| setup.asks_for_certificates());
        let longest_hello = if asks { MAX_HELLO_WITH_CERTIFICATES } else { MAX_HELLO };
        Ok(Self { socket: Arc::clone(socket), names, setups, longest_hello })
    }

    /// Reads the ClientHello, selects the listener by SNI, and does the handshake. The number of bytes from the client
    /// is limited; the caller sets the timeout.
    ///
    /// # Errors
    /// The client is at fault. It has been sent an alert.
    pub async fn accept<S>(&self, client: Cleartext<S>) -> Result<Accepted<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Box::pin(self.handshake(client)).await
    }

    /// Boxed by [`Self::accept`]: a handshake needs several times the memory of its result, which would otherwise stay
    /// in the task of each idle session.
    async fn handshake<S>(&self, client: Cleartext<S>) -> Result<Accepted<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, proof) = client.into_parts();
        let stream = Capped::new(stream, self.longest_hello);
        let mut hello = hello::read(stream).await?;
        let Some((position, listener, setup)) = self.select(hello.client_hello().server_name()) else {
            return Err(refuse_name(hello).await);
        };
        // Only a version 2 PROXY header needs the algorithms and names of certificates.
        let tells = listener.upstream.proxy_protocol == Some(ProxyVersion::V2);
        let schemes = tells.then(|| hello.client_hello().signature_schemes().to_vec());
        hello.io.cap(if setup.asks_for_certificates() { MAX_CERTIFICATES } else { MAX_HELLO });
        let name = hello.client_hello().server_name().map(ToOwned::to_owned);
        let accepted = hello.into_stream(Arc::clone(&setup.config)).await;
        let mut stream = accepted.map_err(|error| setup.fault(error, name.as_deref()))?;
        stream.get_mut().0.lift();
        let connection = stream.get_ref().1;
        let (client, refusal) = setup.verifier.judge(connection.peer_certificates(), UnixTime::now());
        let mut facts = facts(connection);
        if let Some(schemes) = schemes {
            facts.shown = setup.shown(connection, schemes);
            facts.client = client_facts(connection, &client);
        }
        Ok(Accepted { listener: position, facts, client, refusal, stream, proof })
    }

    fn select(&self, server_name: Option<&str>) -> Option<(usize, &Listener, &Setup)> {
        let selected = self.names.select(server_name)?;
        Some((selected, self.socket.listeners.get(selected)?, self.setups.get(selected)?))
    }
}

fn has_same_names(before: &[Arc<Listener>], after: &[Arc<Listener>]) -> bool {
    let same = |(a, b): (&Arc<Listener>, &Arc<Listener>)| Arc::ptr_eq(a, b) || a.hostnames == b.hostnames;
    before.len() == after.len() && before.iter().zip(after).all(same)
}

/// Setups that a listener may share with others.
struct KnownSetups<'a> {
    previous: Option<&'a TlsAcceptor>,
    /// Built on first use: usually every listener keeps its own setup.
    by_settings: Option<HashMap<u64, Vec<Arc<Setup>>>>,
}

impl KnownSetups<'_> {
    /// Finds a setup with these settings in the previous acceptor or in `made`, the setups of this one.
    fn find(&mut self, made: &[Arc<Setup>], tls: &Arc<ServerTls>, protocol: Protocol) -> Option<Arc<Setup>> {
        let previous = self.previous;
        let known = self.by_settings.get_or_insert_with(|| {
            let mut all: HashMap<u64, Vec<Arc<Setup>>> = HashMap::new();
            for setup in previous.iter().flat_map(|previous| &previous.setups).chain(made) {
                remember(&mut all, setup);
            }
            all
        });
        known.get(&tls.fingerprint())?.iter().find(|setup| setup.serves(tls, protocol)).cloned()
    }

    fn add(&mut self, setup: Arc<Setup>) -> Arc<Setup> {
        if let Some(known) = &mut self.by_settings {
            remember(known, &setup);
        }
        setup
    }
}

fn remember(known: &mut HashMap<u64, Vec<Arc<Setup>>>, setup: &Arc<Setup>) {
    let alike = known.entry(setup.tls.fingerprint()).or_default();
    if !alike.iter().any(|known| Arc::ptr_eq(known, setup)) {
        alike.push(Arc::clone(setup));
    }
}

impl Setup {
    fn new(tls: &Arc<ServerTls>, protocol: Protocol, resumption: Resumption) -> Result<Self, TlsError> {
        let crypto = provider_with(&tls.cipher_suites)?;
        let verifier = Arc::new(ClientVerifier::new(&tls.client_auth, &crypto)?);
        let choice = Arc::new(CertificateChoice::new(&tls.certificates, &crypto)?);
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions(tls.min_version))?
            .with_client_cert_verifier(Arc::<ClientVerifier>::clone(&verifier))
            .with_cert_resolver(Arc::<CertificateChoice>::clone(&choice));
        config.ignore_client_order = !tls.cipher_suites.is_empty();
        config.alpn_protocols = vec![protocol.alpn().into()];
        config.session_storage = Arc::clone(&resumption.sessions);
        if let Some(ticketer) = resumption.ticketer() {
            config.ticketer = ticketer;
        }
        let config = Arc::new(config);
        Ok(Self { tls: Arc::clone(tls), protocol, config, choice, verifier, resumption })
    }

    fn asks_for_certificates(&self) -> bool {
        self.tls.client_auth.mode != ClientAuthMode::Disabled
    }

    /// Explains a failed handshake with a client that asked for `name`.
    fn fault(&self, error: std::io::Error, name: Option<&str>) -> HandshakeError {
        let failure = HandshakeFailure::from(error);
        if let HandshakeFailure::NoCommonVersion = failure {
            return HandshakeError::Client(HandshakeFailure::Version(self.other_versions()));
        }
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        if let HandshakeFailure::Alert(AlertDescription::CertificateExpired) = failure
            && let Some(reference) = self.choice.expired(name, now)
        {
            return HandshakeError::Client(HandshakeFailure::Expired(reference.to_owned()));
        }
        HandshakeError::Client(failure)
    }

    /// Describes the versions of a client that offers none that this setup speaks.
    fn other_versions(&self) -> &'static str {
        let suites = &self.config.crypto_provider().cipher_suites;
        let has_suite =
            |version: &SupportedProtocolVersion| suites.iter().any(|suite| suite.version() == version);
        match (has_suite(&rustls::version::TLS12), has_suite(&rustls::version::TLS13)) {
            _ if self.tls.min_version == MinVersion::Tls13 => {
                "versions of TLS that are older than tls.minVersion"
            }
            (false, _) => {
                "TLS 1.2 or older, and tls.cipherSuites has only suites of TLS 1.3; add suites of TLS 1.2 there, or \
                 update the client"
            }
            (_, false) => {
                "other versions than TLS 1.2, and tls.cipherSuites has only suites of TLS 1.2; add suites of TLS 1.3 \
                 there"
            }
            (true, true) => TLS_1_1_OR_OLDER,
        }
    }

    /// Returns the algorithms of the certificate that the client got, which rustls does not report. `schemes` are the
    /// signatures that the client verifies.
    fn shown(
        &self,
        connection: &ServerConnection,
        mut schemes: Vec<SignatureScheme>,
    ) -> Option<Arc<CertificateAlgorithms>> {
        // In TLS 1.2 the cipher suite determines the type of the key.
        if let Some(SupportedCipherSuite::Tls12(suite)) = connection.negotiated_cipher_suite() {
            schemes.retain(|scheme| suite.sign.contains(scheme));
        }
        self.choice.algorithms(connection.server_name(), &schemes)
    }

    fn serves(&self, tls: &Arc<ServerTls>, protocol: Protocol) -> bool {
        self.protocol == protocol && self.tls == *tls
    }

    /// Returns the state for resumption if nothing but the certificates changed. Client authentication, versions and
    /// suites must be those under which the old sessions were created.
    fn resumption_with(&self, tls: &ServerTls) -> Option<Resumption> {
        let old = ServerTls { certificates: tls.certificates.clone(), ..(*self.tls).clone() };
        (old == *tls).then(|| self.resumption.renewed(tls, self.protocol))
    }
}

/// Sends the alert `unrecognized_name` (RFC 6066 section 3) before a configuration is selected.
async fn refuse_name<S>(hello: StartHandshake<S>) -> HandshakeError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = hello.client_hello().server_name().unwrap_or_default().to_owned();
    let mut stream = hello.io;
    hello::send_alert(&mut stream, AlertDescription::UnrecognisedName, hello::TLS_1_2).await;
    HandshakeError::Client(HandshakeFailure::UnknownName(name))
}

/// Maximum size of a ClientHello, and of what a client without certificates sends after it. A browser's ClientHello has
/// about 2 KiB with a post-quantum key share. rustls reads 4 KiB at a time into a buffer that it doubles, so these 12
/// KiB take up to 16 KiB of memory.
const MAX_HELLO: usize = 12 * 1024;

/// Maximum size of a ClientHello if client certificates are requested.
const MAX_HELLO_WITH_CERTIFICATES: usize = 28 * 1024;

/// Maximum of what a client sends after its hello if certificates are requested. rustls accepts no longer message.
const MAX_CERTIFICATES: usize = 64 * 1024;

fn versions(minimum: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    match minimum {
        MinVersion::Tls12 => rustls::ALL_VERSIONS,
        MinVersion::Tls13 => TLS13_ONLY,
    }
}

static TLS13_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = connection.protocol_version().unwrap_or(ProtocolVersion::Unknown(0));
    let cipher = connection.negotiated_cipher_suite().map(|suite| tls_names::openssl(suite.suite()));
    let alpn = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    TlsFacts {
        server_name: connection.server_name().map(ToOwned::to_owned),
        alpn,
        version: tls_names::version(version).to_owned(),
        cipher: cipher.unwrap_or_default(),
        ..TlsFacts::default()
    }
}

fn client_facts(
    connection: &ServerConnection,
    certificate: &ClientCertificate,
) -> Option<ClientCertificateFacts> {
    let ClientCertificate::Presented { der, verified } = certificate else { return None };
    let verified = verified.is_ok();
    Some(ClientCertificateFacts {
        common_name: verified.then(|| describe::common_name(der)).flatten(),
        verified,
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

#[cfg(test)]
mod tests;
