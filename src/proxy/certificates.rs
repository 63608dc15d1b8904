//! Identifies the certificates that an object's listeners serve, so that metrics count each one once per object.

use crate::model::{Certificate, Listener, ListenerId};

/// A Secret's certificate, as served by one `MailServer` or `MailListener`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CertificateId {
    kind: &'static str,
    object: String,
    secret: String,
}

impl CertificateId {
    /// Takes the object from the listener's id. A `MailListener` has no listener name.
    fn new(listener: &ListenerId, certificate: &Certificate) -> Self {
        let kind = if listener.listener.is_empty() { "MailListener" } else { "MailServer" };
        let object = format!("{}/{}", listener.namespace, listener.object);
        Self { kind, object, secret: certificate.reference.clone() }
    }

    /// Values of the metric labels `kind`, `object` and `secret`.
    pub(crate) fn labels(&self) -> [&str; 3] {
        [self.kind, &self.object, &self.secret]
    }
}

pub(crate) fn certificates(listener: &Listener) -> impl Iterator<Item = (CertificateId, &Certificate)> {
    let all = listener.tls.iter().flat_map(|tls| &tls.certificates);
    all.map(|certificate| (CertificateId::new(&listener.id, certificate), certificate.as_ref()))
}
