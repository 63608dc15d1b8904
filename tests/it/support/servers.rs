//! The Dovecot and the Postfix that all tests share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use super::dovecot::Dovecot;
use super::postfix::Postfix;

/// Both servers.
pub struct Servers {
    /// IMAP and POP3.
    pub dovecot: Dovecot,
    /// SMTP.
    pub postfix: Postfix,
}

/// Every user's password.
pub const PASSWORD: &str = "correct-horse";

/// Started when first needed. They end with the test process: their watchers see it go.
pub fn servers() -> &'static Servers {
    static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
        let besides = BESIDES.get().copied();
        let dovecot = Dovecot::start(besides);
        let postfix = Postfix::start(&dovecot, besides);
        Servers { dovecot, postfix }
    });
    &SERVERS
}

/// The same, which listen on this address of ours besides loopback, for those who are told so first.
#[allow(dead_code, reason = "for the tests in a cluster, where no endpoint may be on loopback")]
pub fn servers_at(address: IpAddr) -> &'static Servers {
    let _ = BESIDES.set(address);
    servers()
}

static BESIDES: OnceLock<IpAddr> = OnceLock::new();

/// A user whose mailbox nobody else has.
pub fn new_user(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{name}{}@example.test", NEXT.fetch_add(1, Ordering::Relaxed))
}
