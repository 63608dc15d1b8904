//! Collects the certificates that listeners serve, each once.

use std::collections::BTreeMap;

use crate::model::Snapshot;
use crate::model::view::{Certificate, CertificateOrder, Excerpt, Question, State};

/// Returns the matching certificates in the requested order.
pub(super) fn select(snapshot: &Snapshot, question: &Question, now: i64) -> Excerpt<(Certificate, usize)> {
    let mut all = BTreeMap::new();
    for listener in snapshot.sockets.values().flat_map(|socket| &socket.listeners) {
        for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let key = (certificate.reference.as_str(), certificate.not_after);
            all.entry(key).or_insert((certificate, 0_usize)).1 += 1;
        }
    }
    let text = question.text.to_lowercase();
    let number = all.len();
    let is_asked_for = |certificate: &crate::model::Certificate| {
        (!question.only_troubled || super::certificate_state(certificate, now) != State::Good)
            && (text.is_empty()
                || certificate.reference.to_lowercase().contains(&text)
                || certificate.names.iter().any(|name| name.contains(&text)))
    };
    let mut asked_for: Vec<_> =
        all.into_values().filter(|(certificate, _)| is_asked_for(certificate)).collect();
    if question.certificates == CertificateOrder::Expiry {
        asked_for.sort_by_key(|(certificate, _)| certificate.not_after);
    }
    super::excerpt(asked_for, number, 1, CERTIFICATES_SHOWN)
        .map(|(certificate, listeners)| (super::certificate_view(certificate, now), listeners))
}

/// Certificates per page.
const CERTIFICATES_SHOWN: usize = 25;
