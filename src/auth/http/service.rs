//! One auth service with its endpoints, kept connections and request template.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::model::{AuthHeader, HeaderText, HttpAuth, TrustAnchors};
use crate::net::BackendAddress;
use crate::tls::client::https_connector;

use super::connect::Connector;
use super::pool::Pool;
use super::quota::Quota;
use super::request::Template;

/// A service with its connections.
pub(super) struct Service {
    pub(super) template: Template,
    pub(super) connector: Connector,
    pub(super) pool: Arc<Pool>,
    endpoints: Vec<BackendAddress>,
    next: AtomicUsize,
}

impl Service {
    /// The error says what in the configuration cannot be used; it completes a sentence.
    pub(super) fn new(auth: &HttpAuth, quota: &Quota) -> Result<Self, String> {
        let tls = auth.tls.as_ref().map(|trust| tls(trust, &auth.host)).transpose()?;
        Ok(Self {
            template: template(auth)?,
            connector: Connector { tls, quota: quota.clone() },
            pool: Pool::new(auth.reference.clone(), auth.keep_alive, quota),
            endpoints: auth.endpoints.clone(),
            next: AtomicUsize::new(0),
        })
    }

    /// Returns all endpoints, each time starting with the next one.
    pub(super) fn turn(&self) -> impl Iterator<Item = &BackendAddress> {
        let count = self.endpoints.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or_default();
        self.endpoints.iter().cycle().skip(first).take(count)
    }
}

fn template(auth: &HttpAuth) -> Result<Template, String> {
    let path: PathAndQuery =
        auth.path.expose().parse().map_err(|error| format!("the path of its URL: {error}"))?;
    let host = HeaderValue::try_from(&auth.host).map_err(|_| format!("{:?} is not a host", auth.host))?;
    let unusable = |header: &&AuthHeader| {
        let is_allowed = match &header.value {
            HeaderText::Fixed(text) => HeaderValue::from_bytes(text.expose()).is_ok(),
            HeaderText::ClientPort | HeaderText::SessionId => true,
        };
        HeaderName::try_from(&header.name).is_err() || !is_allowed
    };
    if let Some(AuthHeader { name, .. }) = auth.headers.iter().find(unusable) {
        return Err(format!("auth.http.headers: {name:?} or its value is not allowed in HTTP"));
    }
    Ok(Template {
        path,
        host,
        keep_alive: auth.keep_alive,
        extra: auth.headers.clone(),
        pass_client_certificate: auth.pass_client_certificate,
    })
}

fn tls(trust: &TrustAnchors, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("{host:?} is not a name that a certificate can be verified for"))?;
    let connector = https_connector(trust).map_err(|error| error.to_string())?;
    Ok((connector, name))
}
