//! The Dovecot and the Postfix that all tests share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

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
        let dovecot = Dovecot::start();
        let postfix = Postfix::start(&dovecot);
        Servers { dovecot, postfix }
    });
    &SERVERS
}

/// A user whose mailbox nobody else has.
pub fn new_user(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{name}{}@example.test", NEXT.fetch_add(1, Ordering::Relaxed))
}
