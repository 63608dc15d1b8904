//! Hints for a backend that sends nothing: what it may be waiting for, or why it may have closed the connection.

/// A connection on which a backend should have spoken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Without TLS.
    InClear,
    /// Without TLS, behind a PROXY header.
    InClearBehindHeader,
    /// Under TLS from the first byte.
    UnderTls,
}

impl Silence {
    /// What it may wait for.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::InClear => {
                "it may expect TLS from the first byte (upstream.tls.mode: Implicit) or a PROXY header \
                 (upstream.proxyProtocol)"
            }
            Self::InClearBehindHeader => {
                "it may expect TLS from the first byte (upstream.tls.mode: Implicit)"
            }
            Self::UnderTls => "the TLS handshake succeeded, but it sent no greeting",
        }
    }

    /// Why it may have closed.
    pub(super) const fn hint_when_closed(self) -> &'static str {
        match self {
            Self::InClear => {
                "it may expect a PROXY header (upstream.proxyProtocol) or TLS from the first byte (upstream.tls.mode: \
                 Implicit)"
            }
            Self::InClearBehindHeader => {
                "it may not support the PROXY header (upstream.proxyProtocol), may not accept it from this address, or \
                 may expect TLS after it (upstream.tls.mode: Implicit)"
            }
            Self::UnderTls => "the TLS handshake succeeded",
        }
    }
}
