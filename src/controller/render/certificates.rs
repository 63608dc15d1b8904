//! The certificates of Secrets. Only changed ones are parsed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::controller::index::{Key, Objects, Reference, ReferenceKind, SecretData};
use crate::model::Certificate;
use crate::tls::parse::{self, CertificateWarning};

/// The parsed certificates by Secret, so that only changed ones are parsed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificates(BTreeMap<Key, (Arc<SecretData>, Parsed)>);

/// A certificate, or why it cannot be used.
pub(crate) type Parsed = Result<Loaded, String>;

/// A certificate from a Secret.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The certificate for clients or backends.
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) warnings: Arc<[CertificateWarning]>,
}

impl Certificates {
    /// Returns the certificate of a Secret.
    pub(crate) fn of(&mut self, key: &Key, secret: &Arc<SecretData>) -> Parsed {
        if let Some((_, parsed)) = self.0.get(key).filter(|(known, _)| Arc::ptr_eq(known, secret)) {
            return parsed.clone();
        }
        let parsed = parse_secret(key, secret).map(|parsed| Loaded {
            certificate: Arc::new(parsed.certificate),
            warnings: parsed.warnings.into(),
        });
        self.0.insert(key.clone(), (Arc::clone(secret), parsed.clone()));
        parsed
    }

    /// Removes the parsed certificate of a Secret that has changed.
    pub(crate) fn forget_changed(&mut self, objects: &Objects, changed: &Reference) {
        let same = |known: &Arc<SecretData>| {
            objects.secrets.get(&changed.key).is_some_and(|now| Arc::ptr_eq(now, known))
        };
        if changed.kind == ReferenceKind::Secret
            && !self.0.get(&changed.key).is_some_and(|(known, _)| same(known))
        {
            self.0.remove(&changed.key);
        }
    }

    /// Removes the parsed certificate of a Secret without references.
    pub(crate) fn forget(&mut self, released: &Reference) {
        if released.kind == ReferenceKind::Secret {
            self.0.remove(&released.key);
        }
    }
}

fn parse_secret(key: &Key, secret: &SecretData) -> Result<parse::Parsed, String> {
    let value = |name: &str| {
        let missing =
            || format!("it has no {name}; it must be of type kubernetes.io/tls, with tls.crt and tls.key");
        secret.data.get(name).ok_or_else(missing)
    };
    let (chain, private) = (value("tls.crt")?, value("tls.key")?);
    parse::certificate(&key.to_string(), chain.expose(), private.expose()).map_err(|error| error.to_string())
}
