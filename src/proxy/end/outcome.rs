//! The names of the ways in which a session ends, for the log and the metrics.

use strum::{IntoStaticStr, VariantNames};

/// The value of the label and log field `outcome`: the kind of an [`End`](super::End).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(crate) enum Outcome {
    Done,
    Quit,
    ClientGone,
    Limited,
    LoginRefused,
    ProtocolError,
    ClientTimeout,
    IdleTimeout,
    ProxyHeader,
    TlsHandshake,
    ClientCertificate,
    EarlyTalker,
    AuthServiceError,
    AuthServiceUnavailable,
    NoBackend,
    RouteUndecided,
    RouteHeld,
    UserHeld,
    BackendNotAllowed,
    BackendConnect,
    NoDescriptors,
    BackendError,
    BackendUnavailable,
    BackendTimeout,
    BackendRefused,
    RelayError,
    InternalError,
    Drained,
    Kicked,
    Held,
    Moved,
}

impl Outcome {
    /// Returns the name.
    pub(crate) const fn name(self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::metric::SESSIONS;

    #[test]
    fn the_reference_of_metrics_names_every_outcome() {
        let label = SESSIONS.labels.iter().find(|label| label.name == "outcome").unwrap();
        let names: Vec<&str> = label.values.split(", ").map(|name| name.trim_matches('`')).collect();
        assert_eq!(names, Outcome::VARIANTS);
    }

    #[test]
    fn the_page_on_troubleshooting_explains_every_outcome() {
        let page = include_str!("../../../docs/howto/troubleshooting.md");
        let missing: Vec<_> =
            Outcome::VARIANTS.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
