//! `mailgress probe`: connects as a client to a mail server, or to every listener behind a Service.

mod login;
mod service;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::app::ObjectRef;
use crate::controller::render::units;
use crate::model::TrustAnchors;
use crate::model::settings::ClientTls;
use crate::net::BackendAddress;
use crate::probe::{Outcome, ProbeRequest, Strictness, TlsStart, probe};
use crate::protocol::Protocol;
use crate::protocol::proxy_header::ProxyVersion;
use crate::tls::parse;

use super::Usage;
use super::colour::Colour;
use super::output::OutputFormat;
use super::run::duration;

/// `mailgress probe`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Probe {
    /// The server: host:port, `[::1]:993` or unix:/path.
    #[arg(value_name = "HOST:PORT", required_unless_present = "service")]
    target: Option<String>,

    /// The protocol [default: the usual protocol of the port].
    #[arg(long, value_enum, ignore_case = true)]
    protocol: Option<Speaks>,

    /// When TLS starts [default: from the first byte on ports 465, 993 and 995; on other ports with STARTTLS if the
    /// server offers it].
    #[arg(long, value_enum, ignore_case = true, value_name = "MODE")]
    tls: Option<Mode>,

    /// The name to send as SNI and to verify in the certificate [default: the host].
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// The options to connect to all listeners behind a Service.
    #[command(flatten)]
    service_options: service::ServiceOptions,

    /// The options of every probe.
    #[command(flatten)]
    options: ProbeOptions,
}

/// The options of every probe.
#[derive(Args, Debug)]
struct ProbeOptions {
    /// Trust the CA certificates in this PEM file [default: the host's root certificates].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Accept every certificate, and report its problems.
    #[arg(long)]
    no_verify: bool,

    /// Send this client certificate: a PEM file with the chain and the key.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,

    /// The login.
    #[command(flatten)]
    login: login::Login,

    /// Send a PROXY header first, as a load balancer does (v1 or v2).
    #[arg(long, value_enum, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "v2")]
    proxy_protocol: Option<Version>,

    /// Timeout of each step.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = bound)]
    timeout: Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,

    /// The use of colours.
    #[command(flatten)]
    colour: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speaks {
    Imap,
    Pop3,
    Smtp,
    Sieve,
}

/// When TLS starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Never.
    #[value(name = "Disabled")]
    Disabled,
    /// After STARTTLS.
    #[value(name = "StartTLS")]
    StartTls,
    /// With the first byte.
    #[value(name = "Implicit")]
    Implicit,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

impl Probe {
    /// Probes and prints the result.
    ///
    /// # Errors
    ///
    /// Fails if the command line, or a file that it names, is not valid.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (printed, outcome) = match &self.service_options.service {
            Some(service) => self.run_service(service)?,
            None => self.run_single()?,
        };
        self.options.colour.stdout().write_all(&printed)?;
        Ok(if outcome == Outcome::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn run_single(&self) -> anyhow::Result<(Vec<u8>, Outcome)> {
        let request = self.request().map_err(Usage::new)?;
        let report = super::runtime()?.block_on(probe(&request));
        let mut out = Vec::new();
        self.options.output.write(&mut out, &report, |out| text::write(out, &report))?;
        Ok((out, report.outcome()))
    }

    fn run_service(&self, service: &ObjectRef) -> anyhow::Result<(Vec<u8>, Outcome)> {
        let probed = super::runtime()?.block_on(self.service_options.probe_all(service, &self.options))?;
        let mut out = Vec::new();
        self.options.output.write(&mut out, &probed, |out| service::write(out, &probed))?;
        let worst = probed.iter().map(service::Probed::outcome).max();
        Ok((out, worst.unwrap_or(Outcome::Ok)))
    }

    fn request(&self) -> anyhow::Result<ProbeRequest> {
        let text = self.target.as_deref().unwrap_or_default();
        let Some(target) = units::backend_address(text, None) else {
            bail!("{text:?} is neither HOST:PORT, [ADDRESS]:PORT nor unix:/path");
        };
        let port = match &target {
            BackendAddress::Ip(address) => Some(address.port()),
            BackendAddress::Name { port, .. } => Some(*port),
            BackendAddress::Unix(_) => None,
        };
        let protocol = self.protocol.map(Speaks::protocol).or_else(|| port.and_then(Protocol::of_port));
        let Some(protocol) = protocol else {
            bail!(
                "cannot tell the protocol of {target} from its port; set --protocol to imap, pop3, smtp or sieve"
            );
        };
        let tls = match self.tls {
            Some(Mode::Disabled) => TlsStart::Disabled,
            Some(Mode::StartTls) => TlsStart::StartTls,
            Some(Mode::Implicit) => TlsStart::Implicit,
            None if port.is_some_and(Protocol::is_implicit_tls) => TlsStart::Implicit,
            None => TlsStart::IfOffered,
        };
        let strictness = if self.options.no_verify { Strictness::None } else { Strictness::All };
        self.options.request(target, protocol, tls, (self.server_name.clone(), strictness))
    }
}

impl ProbeOptions {
    fn request(
        &self,
        target: BackendAddress,
        protocol: Protocol,
        tls: TlsStart,
        (server_name, strictness): (Option<String>, Strictness),
    ) -> anyhow::Result<ProbeRequest> {
        let trust = match &self.ca {
            None => TrustAnchors::System,
            Some(path) => {
                let pem = read(path)?;
                let found = parse::authorities(&pem).with_context(|| path.display().to_string())?;
                if found.certificates.is_empty() {
                    bail!("{}: {}", path.display(), parse::ParseError::UnusableAuthorities);
                }
                TrustAnchors::Certificates(found.certificates)
            }
        };
        let certificate = match &self.certificate {
            None => None,
            Some(path) => {
                let pem = read(path)?;
                let parsed = parse::certificate(&path.display().to_string(), &pem, &pem);
                let parsed = parsed.map_err(|error| anyhow::anyhow!("--certificate: {error}"))?;
                Some(Arc::new(parsed.certificate))
            }
        };
        Ok(ProbeRequest {
            target,
            protocol,
            tls,
            client: ClientTls { trust, server_name, certificate },
            strictness,
            login: self.login.credentials()?,
            proxy_protocol: self.proxy_protocol.map(|version| match version {
                Version::V1 => ProxyVersion::V1,
                Version::V2 => ProxyVersion::V2,
            }),
            timeout: self.timeout,
            now: jiff::Timestamp::now().as_second(),
        })
    }
}

impl Speaks {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Imap => Protocol::Imap,
            Self::Pop3 => Protocol::Pop3,
            Self::Smtp => Protocol::Smtp,
            Self::Sieve => Protocol::Sieve,
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn bound(text: &str) -> Result<Duration, String> {
    let bound = duration(text)?;
    if bound.is_zero() || bound > LONGEST_STEP {
        return Err(format!("{text} is not between 1ms and {LONGEST_STEP:?}"));
    }
    Ok(bound)
}

/// The maximum timeout of a step. Servers may delay the greeting on purpose.
const LONGEST_STEP: Duration = Duration::from_secs(600);

const AFTER_HELP: &str = "\
There is no flag for the password. Use --login-file, or --user with the environment variable MAILGRESS_PROBE_PASSWORD.

Exit status: 0 all tests succeeded (there may be warnings), 1 a test failed, 2 usage error.";
