//! The protocols of nginx's mail proxy. It has no ManageSieve.

use crate::{api, protocol};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Imap,
    Pop3,
    Smtp,
}

impl Protocol {
    /// Returns the value of a listener's `protocol`.
    pub(super) const fn api(self) -> api::listener::Protocol {
        match self {
            Self::Imap => api::listener::Protocol::Imap,
            Self::Pop3 => api::listener::Protocol::Pop3,
            Self::Smtp => api::listener::Protocol::Smtp,
        }
    }

    pub(super) const fn wire(self) -> protocol::Protocol {
        match self {
            Self::Imap => protocol::Protocol::Imap,
            Self::Pop3 => protocol::Protocol::Pop3,
            Self::Smtp => protocol::Protocol::Smtp,
        }
    }
}
