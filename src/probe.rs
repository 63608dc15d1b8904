//! Visits a mail server as a client and reports what works: `mailgress probe`, which `helm test` also runs.
//!
//! Every step produces a finding. A failure that prevents all further steps ends the visit. A password is sent only if
//! the server has proved its identity, or if the user said that this is not needed.

mod report;
mod request;
mod talk;
mod trust;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::time::timeout;

use crate::net::{BackendAddress, Socket, Stream};
use crate::protocol::Protocol;
use crate::protocol::backend::RefusalCause;
use crate::protocol::backend::visit::{Login, Offers, Question, ReplyKind, Visit, spoken_instead};
use crate::protocol::proxy_header::{self, Details};
use crate::tls::ServerNameSource;
use crate::tls::observe::{ObserveError, Observed, observe};
use crate::tls::{HandshakeError, HandshakeFailure};

pub use report::{Capabilities, CertificateFacts, Finding, LoginFacts, Outcome, Report, Step, TlsFacts};
pub use request::{Credentials, ProbeRequest, Strictness, TlsStart};
use talk::{Silence, Talk};

/// Visits the server. All results, including failures, are in the report.
pub async fn probe(request: &ProbeRequest) -> Report {
    let mut report = Report::new(request.target.to_string(), request.protocol);
    // The report contains the reason why the visit stopped.
    let _: Result<(), Stop> = Prober { request, report: &mut report, trusted: false }.visit().await;
    report
}

/// The visit cannot continue.
struct Stop;

struct Prober<'a> {
    request: &'a ProbeRequest,
    report: &'a mut Report,
    /// Whether a password may be sent.
    trusted: bool,
}

impl Prober<'_> {
    async fn visit(mut self) -> Result<(), Stop> {
        let mut talk = self.connect().await?;
        if self.request.tls == TlsStart::Implicit {
            talk = self.secure(talk).await?;
        }
        self.greeting(&mut talk).await?;
        let mut offers = self.offers(&mut talk).await?;
        if self.start_tls(&mut talk, &offers).await? {
            talk = self.secure(talk).await?;
            offers = self.offers(&mut talk).await?;
        }
        if let Some(login) = &self.request.login {
            self.log_in(&mut talk, &offers, login).await?;
        }
        match talk.ask(Question::Goodbye).await {
            Ok(answer) if answer.kind == ReplyKind::Yes => self.report.good(Step::Goodbye, answer.first()),
            Ok(answer) => self.report.warn(Step::Goodbye, answer.first(), ""),
            Err(silence) => self.report.warn(Step::Goodbye, silence.to_string(), ""),
        }
        talk.close().await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<Talk, Stop> {
        let began = Instant::now();
        let (stream, at) = match self.reach().await {
            Ok(reached) => reached,
            Err((problem, remedy)) => return self.stop(Step::Connection, problem, remedy),
        };
        let elapsed = began.elapsed().as_millis();
        self.report.address.clone_from(&at);
        self.report.good(Step::Connection, format!("{at} in {elapsed} ms"));
        stream.set_nodelay();
        let ends = match &stream {
            Socket::Tcp(tcp) => tcp.local_addr().ok().zip(tcp.peer_addr().ok()),
            Socket::Unix(_) => None,
        };
        let visit = Visit::new(self.request.protocol);
        let mut talk = Talk::new(visit, Stream::Plain(stream), self.request.timeout);
        if let Some(version) = self.request.proxy_protocol {
            let mut header = Vec::new();
            proxy_header::encode(version, ends, Details::default(), &mut header);
            if let Err(silence) = talk.send(header).await {
                return self.stop(Step::Connection, silence.to_string(), "");
            }
        }
        Ok(talk)
    }

    /// Connects. Returns the connection and its address, or the problem and the remedy.
    async fn reach(&self) -> Result<(Socket, String), (String, &'static str)> {
        let bound = self.request.timeout;
        let late = |what: &str| (format!("{what}: no answer within {bound:?}"), DROPPED);
        let addresses: Vec<SocketAddr> = match &self.request.target {
            BackendAddress::Unix(path) => {
                return match timeout(bound, tokio::net::UnixStream::connect(path)).await {
                    Ok(Ok(stream)) => Ok((Socket::Unix(stream), self.request.target.to_string())),
                    Ok(Err(error)) => Err((format!("cannot connect: {error}"), REFUSED)),
                    Err(_) => Err(late("cannot connect")),
                };
            }
            BackendAddress::Ip(address) => vec![*address],
            BackendAddress::Name { host, port } => {
                match timeout(bound, tokio::net::lookup_host((host.as_str(), *port))).await {
                    Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
                    Ok(Err(error)) => {
                        return Err((format!("the name cannot be resolved: {error}"), NAMELESS));
                    }
                    Err(_) => return Err(late("the name cannot be resolved")),
                }
            }
        };
        let mut last = ("the name has no address".to_owned(), NAMELESS);
        for address in addresses {
            match timeout(bound, tokio::net::TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((Socket::Tcp(stream), address.to_string())),
                Ok(Err(error)) => last = (format!("cannot connect to {address}: {error}"), REFUSED),
                Err(_) => last = late(&format!("cannot connect to {address}")),
            }
        }
        Err(last)
    }

    async fn secure(&mut self, talk: Talk) -> Result<Talk, Stop> {
        let (protocol, bound) = (self.request.protocol, self.request.timeout);
        let Some(clear) = talk.into_clear() else {
            let problem = "the server sent data in clear text after its reply to STARTTLS";
            return self.stop(Step::Tls, problem.to_owned(), "the connection may be intercepted");
        };
        let name = match &self.request.target {
            BackendAddress::Ip(address) => ServerNameSource::Ip(address.ip()),
            BackendAddress::Name { host, .. } => ServerNameSource::Host(host.clone()),
            BackendAddress::Unix(_) => ServerNameSource::Host("localhost".to_owned()),
        };
        let handshake = observe(clear, &self.request.client, protocol, &name);
        let (stream, observed) = match timeout(bound, handshake).await {
            Ok(Ok(observed)) => observed,
            Ok(Err(error)) => {
                let (problem, remedy) = explain(error, self.closed());
                return self.stop(Step::Tls, problem, remedy);
            }
            Err(_) => return self.stop(Step::Tls, format!("no handshake within {bound:?}"), PLAIN),
        };
        self.observed(&observed);
        let visit = match self.request.tls {
            TlsStart::Implicit => Visit::new(protocol),
            TlsStart::Disabled | TlsStart::IfOffered | TlsStart::StartTls => Visit::secured(protocol),
        };
        Ok(Talk::new(visit, Stream::Client(Box::new(stream)), bound))
    }

    fn observed(&mut self, observed: &Observed) {
        let Observed { version, cipher, alpn, .. } = observed;
        let begins = match self.request.tls {
            TlsStart::Implicit => "from the first byte",
            _ => "after STARTTLS",
        };
        let agreed = alpn.as_ref().map(|name| format!(", ALPN {name}")).unwrap_or_default();
        self.report.good(Step::Tls, format!("{version}, {cipher}{agreed}, {begins}"));
        self.report.tls = Some(TlsFacts { begins, version, cipher: cipher.clone(), alpn: alpn.clone() });
        let certificates = observed.chain.iter().map(|shown| CertificateFacts::new(shown, self.request.now));
        self.report.certificates = certificates.collect();
        let (finding, trusted) = trust::judge(self.request, observed);
        self.trusted = trusted;
        self.report.findings.push(finding);
    }

    /// Returns the likely reason if the server closes the connection at once.
    fn closed(&self) -> &'static str {
        if self.request.proxy_protocol.is_none() { CLOSED } else { UNTRUSTED_HEADER }
    }

    async fn greeting(&mut self, talk: &mut Talk) -> Result<(), Stop> {
        let answer = match talk.ask(Question::Greeting).await {
            Ok(answer) => answer,
            Err(silence) => {
                let remedy = match (&silence, self.request.tls) {
                    (Silence::Late(_), TlsStart::Disabled | TlsStart::IfOffered | TlsStart::StartTls) => {
                        SILENT
                    }
                    (Silence::Closed | Silence::Lost(_), _) => self.closed(),
                    _ => "",
                };
                return self.stop(Step::Greeting, silence.to_string(), remedy);
            }
        };
        let first = answer.first();
        self.report.greeting = Some(first.clone());
        match answer.kind {
            ReplyKind::Yes => {
                self.report.good(Step::Greeting, first);
                Ok(())
            }
            ReplyKind::Foreign => {
                let wanted = self.request.protocol.label();
                let problem = match spoken_instead(&answer.lines) {
                    Some(other) => format!("this is {other}, not {wanted}: {first}"),
                    None => format!("this is not {wanted}: {first}"),
                };
                self.stop(Step::Greeting, problem, FOREIGN)
            }
            ReplyKind::No | ReplyKind::GoOn => {
                self.stop(Step::Greeting, first, "the server accepts no connections at the moment")
            }
        }
    }

    async fn offers(&mut self, talk: &mut Talk) -> Result<Offers, Stop> {
        let answer = match talk.ask(Question::Capabilities).await {
            Ok(answer) => answer,
            Err(silence) => return self.stop(Step::Capabilities, silence.to_string(), ""),
        };
        let offers = Offers::read(self.request.protocol, &answer);
        let words = &offers.words;
        let (place, when) = match self.report.tls {
            Some(_) => (&mut self.report.capabilities.tls, "over TLS"),
            None => (&mut self.report.capabilities.clear, "without TLS"),
        };
        *place = Some(words.clone());
        let separator = if self.request.protocol == Protocol::Imap { " " } else { ", " };
        if answer.kind == ReplyKind::Yes {
            let message = format!("{when}: {}", words.join(separator));
            self.report.good(Step::Capabilities, message);
        } else {
            self.report.warn(Step::Capabilities, format!("{when}: {}", answer.decisive()), "");
        }
        Ok(offers)
    }

    /// Sends STARTTLS if needed. Returns whether the TLS handshake follows.
    async fn start_tls(&mut self, talk: &mut Talk, offers: &Offers) -> Result<bool, Stop> {
        match self.request.tls {
            TlsStart::Implicit => return Ok(false),
            TlsStart::Disabled => {
                self.trusted = true;
                return Ok(false);
            }
            TlsStart::IfOffered if !offers.start_tls() => {
                self.report.warn(
                    Step::Tls,
                    "the server does not offer STARTTLS: passwords and mail are not encrypted".to_owned(),
                    "",
                );
                return Ok(false);
            }
            TlsStart::StartTls if !offers.start_tls() => {
                return self.stop(Step::Tls, "the server does not offer STARTTLS".to_owned(), NO_CERTIFICATE);
            }
            TlsStart::IfOffered | TlsStart::StartTls => {}
        }
        match talk.ask(Question::StartTls).await {
            Ok(answer) if answer.kind == ReplyKind::Yes => Ok(true),
            Ok(answer) => {
                self.stop(Step::Tls, format!("the server refused STARTTLS: {}", answer.decisive()), "")
            }
            Err(silence) => self.stop(Step::Tls, silence.to_string(), ""),
        }
    }

    async fn log_in(&mut self, talk: &mut Talk, offers: &Offers, who: &Credentials) -> Result<(), Stop> {
        if !self.trusted {
            let (problem, remedy) = match self.report.tls {
                Some(_) => ("not tried: the certificate is not accepted", UNVERIFIED),
                None => ("not tried: the password would be sent in clear text", IN_CLEAR),
            };
            self.report.fail(Step::Login, problem.to_owned(), remedy);
            return Ok(());
        }
        let mut login = match Login::choose(offers, who.user.as_bytes(), &who.password) {
            Ok(login) => login,
            Err(error) => {
                self.report.fail(Step::Login, error.to_string(), NO_MECHANISM);
                return Ok(());
            }
        };
        let mechanism = login.mechanism;
        let answer = match talk.log_in(&mut login).await {
            Ok(answer) => answer,
            Err(silence) => return self.stop(Step::Login, format!("{mechanism}: {silence}"), ""),
        };
        let (reply, accepted) = (answer.decisive(), answer.kind == ReplyKind::Yes);
        self.report.login =
            Some(LoginFacts { user: who.user.clone(), mechanism, accepted, reply: reply.clone() });
        let message = format!("{mechanism} as {}: {reply}", who.user);
        if accepted {
            self.report.good(Step::Login, message);
        } else {
            let cause = RefusalCause::of_login(self.request.protocol, &answer.lines);
            let busy = cause != RefusalCause::Credentials;
            self.report.fail(Step::Login, message, if busy { BUSY } else { "" });
        }
        Ok(())
    }

    fn stop<T>(&mut self, step: Step, problem: String, remedy: &str) -> Result<T, Stop> {
        self.report.fail(step, problem, remedy);
        Err(Stop)
    }
}

/// Explains why a handshake failed, with the remedy. `closed` is the remedy for a closed connection.
fn explain(error: ObserveError, closed: &'static str) -> (String, &'static str) {
    let failure = match error {
        ObserveError::Handshake(HandshakeError::Backend(failure) | HandshakeError::Client(failure)) => {
            failure
        }
        ObserveError::Settings(error) => return (error.to_string(), ""),
    };
    let remedy = match &failure {
        HandshakeFailure::NotTls
        | HandshakeFailure::Oversized
        | HandshakeFailure::Protocol(rustls::Error::InvalidMessage(_)) => PLAIN,
        HandshakeFailure::Alert(rustls::AlertDescription::UnrecognisedName) => OTHER_NAME,
        HandshakeFailure::Alert(rustls::AlertDescription::NoApplicationProtocol) => FOREIGN,
        HandshakeFailure::Closed(_) => closed,
        _ => "",
    };
    (format!("the server {failure}"), remedy)
}

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

const REFUSED: &str = "nothing listens on this port, or a firewall rejects the connection; `mailgress status` lists the listeners";
const DROPPED: &str = "a firewall or a NetworkPolicy may drop the packets";
const NAMELESS: &str = "correct the name, or the name servers of this host";
const SILENT: &str = "the server may expect TLS from the first byte (use --tls Implicit) or a PROXY header (use --proxy-protocol)";
const CLOSED: &str = "the listener may require a PROXY header (use --proxy-protocol); its log has the reason";
const UNTRUSTED_HEADER: &str =
    "the listener's proxyProtocol.trustedPeers may not contain this address; its log has the reason";
const FOREIGN: &str = "set --protocol, or correct the port";
const PLAIN: &str = "the port may not use TLS from the first byte; use --tls StartTLS";
const OTHER_NAME: &str = "no listener on this port has this host name; set --server-name";
const NO_CERTIFICATE: &str = "configure a certificate (tls.certificateRefs), or use --tls Disabled";
const UNVERIFIED: &str = "pass the issuer with --ca, or use --no-verify";
const IN_CLEAR: &str = "use TLS, or pass --tls Disabled to send the password in clear text";
const NO_MECHANISM: &str = "allow PLAIN in authMethods";
const BUSY: &str = "a temporary failure; the password may be correct";

#[cfg(test)]
mod tests;
