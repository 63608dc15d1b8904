//! The Dovecot and the Postfix that all tests share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use super::dovecot::Dovecot;
use super::postfix::Postfix;

/// Both servers.
pub struct Servers {
    /// For IMAP and POP3.
    pub dovecot: Dovecot,
    /// For SMTP.
    pub postfix: Postfix,
}

/// The password of every user.
pub const PASSWORD: &str = "correct-horse";

/// Returns the servers, started on first use. They end with the test process, which their watchers notice.
pub fn servers() -> &'static Servers {
    static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
        let besides = BESIDES.get().copied();
        let dovecot = Dovecot::start(besides);
        let postfix = Postfix::start(&dovecot, besides);
        Servers { dovecot, postfix }
    });
    &SERVERS
}

/// As [`servers`], listening on this local address too. The first call determines the address.
#[allow(dead_code, reason = "for the tests in a cluster, where no endpoint may be on loopback")]
pub fn servers_at(address: IpAddr) -> &'static Servers {
    let _ = BESIDES.set(address);
    servers()
}

static BESIDES: OnceLock<IpAddr> = OnceLock::new();

/// Returns a user with a mailbox that no other test uses.
pub fn new_user(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{name}{}@example.test", NEXT.fetch_add(1, Ordering::Relaxed))
}
