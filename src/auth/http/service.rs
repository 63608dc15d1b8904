//! One auth service, ready to be asked: its endpoints, its pool of connections, what every request repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::dns::Target;
use crate::model::{HttpAuth, TrustAnchors};
use crate::net::{BackendAddress, roots};

use super::connect::{Connector, authority};
use super::request::Template;

/// The longest header block of a reply, in bytes; nginx has 1 KiB.
const MAX_REPLY: usize = 8 * 1024;

/// Idle connections kept to one endpoint.
const MAX_IDLE: usize = 64;

/// Until an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A service with its pool.
pub(super) struct Service {
    pub(super) template: Template,
    pub(super) client: Client<Connector, Empty<Bytes>>,
    scheme: Scheme,
    path: PathAndQuery,
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
}

/// Where a request may go to.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// Straight to the connector.
    Fixed(Uri),
    /// To be resolved for each request.
    Named(BackendAddress),
}

impl Service {
    /// The error is a sentence's end: what in the configuration cannot be used.
    pub(super) fn new(auth: &HttpAuth) -> Result<Self, String> {
        let tls = auth.tls.as_ref().map(|trust| tls(trust, &auth.host)).transpose()?;
        let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let path = auth.path.parse().map_err(|error| format!("the path {:?}: {error}", auth.path))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_timer(TokioTimer::new())
            .http1_title_case_headers(true)
            .http1_max_buf_size(MAX_REPLY)
            .set_host(false)
            .build(Connector { tls });
        let template = template(auth)?;
        let mut service =
            Self { template, client, scheme, path, endpoints: Vec::new(), next: AtomicUsize::new(0) };
        let endpoints = auth.endpoints.iter().map(|address| service.endpoint(address));
        service.endpoints = endpoints.collect::<Result<_, _>>()?;
        Ok(service)
    }

    /// All endpoints, beginning with another one each time.
    pub(super) fn turn(&self) -> impl Iterator<Item = &Endpoint> {
        let count = self.endpoints.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or_default();
        self.endpoints.iter().cycle().skip(first).take(count)
    }

    pub(super) fn uri(&self, target: &Target) -> Result<Uri, String> {
        let authority = authority(target).map_err(|error| format!("{target}: {error}"))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(self.path.clone());
        Uri::from_parts(parts).map_err(|error| format!("{target}: {error}"))
    }

    fn endpoint(&self, address: &BackendAddress) -> Result<Endpoint, String> {
        Ok(match address {
            BackendAddress::Ip(ip) => Endpoint::Fixed(self.uri(&Target::Tcp(*ip))?),
            BackendAddress::Unix(path) => Endpoint::Fixed(self.uri(&Target::Unix(path.clone()))?),
            name @ BackendAddress::Name { .. } => Endpoint::Named(name.clone()),
        })
    }
}

fn template(auth: &HttpAuth) -> Result<Template, String> {
    let header = |(name, value): &(String, crate::secret::Secret)| {
        let parsed = HeaderName::try_from(name).ok().zip(HeaderValue::from_bytes(value.expose()).ok());
        let (header, mut value) = parsed
            .ok_or_else(|| format!("auth.http.headers: {name:?} or its value is not allowed in HTTP"))?;
        value.set_sensitive(true);
        Ok::<_, String>((header, value))
    };
    Ok(Template {
        host: HeaderValue::try_from(&auth.host).map_err(|_| format!("{:?} is not a host", auth.host))?,
        extra: auth.headers.iter().map(header).collect::<Result<_, _>>()?,
        pass_client_certificate: auth.pass_client_certificate,
    })
}

fn tls(trust: &TrustAnchors, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let roots = match trust {
        TrustAnchors::System => roots::system(),
        TrustAnchors::Certificates(certificates) => roots::of(certificates),
    };
    let roots = roots.map_err(|error| error.to_string())?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("{host:?} is not a name that a certificate can be verified for"))?;
    let builder =
        ClientConfig::builder_with_provider(roots::provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}
