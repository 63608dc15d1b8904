//! Which certificates are served by whose listeners, so that each is counted once for an object.

use crate::model::{Certificate, Listener, ListenerId};

/// A certificate of an object's listeners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CertificateId {
    kind: &'static str,
    object: String,
    secret: String,
}

impl CertificateId {
    /// Of the object that has this listener.
    fn new(listener: &ListenerId, certificate: &Certificate) -> Self {
        let kind = if listener.listener.is_empty() { "MailListener" } else { "MailServer" };
        let object = format!("{}/{}", listener.namespace, listener.object);
        Self { kind, object, secret: certificate.reference.clone() }
    }

    /// As a metric has them.
    pub(crate) fn labels(&self) -> [&str; 3] {
        [self.kind, &self.object, &self.secret]
    }
}

/// All that a listener serves.
pub(crate) fn certificates(listener: &Listener) -> impl Iterator<Item = (CertificateId, &Certificate)> {
    let all = listener.tls.iter().flat_map(|tls| &tls.certificates);
    all.map(|certificate| (CertificateId::new(&listener.id, certificate), certificate.as_ref()))
}
