//! A private Dovecot: IMAP, POP3 and ManageSieve in every TLS mode and with a PROXY header, LMTP and SASL for Postfix.
//!
//! Every user exists, with the same password and with all tokens of [`super::tokens`]. A mailbox is created on first
//! use. [`LONG_PASSWORD_USER`] has a second password, a long one.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pki::AUTHORITY;
use super::process::{Daemon, open_directory, our_names, we_are_root};
use super::servers::PASSWORD;
use super::{ports, tokens, wait};

/// A running Dovecot.
pub struct Dovecot {
    _daemon: Daemon,
    directory: PathBuf,
    mail: PathBuf,
    ports: Ports,
}

struct Ports {
    imap: u16,
    imaps: u16,
    imap_proxied: u16,
    pop3: u16,
    pop3s: u16,
    pop3_proxied: u16,
    sieve: u16,
    sieves: u16,
    sieve_proxied: u16,
    lmtp: u16,
    sasl: u16,
}

impl Dovecot {
    /// Starts on loopback and this address, and waits until it serves.
    pub fn start(besides: Option<IpAddr>) -> Self {
        Self::start_with(besides, None)
    }

    /// As [`Self::start`], with the same mail as another one.
    #[allow(dead_code, reason = "shared storage is a matter of tests/cluster")]
    pub fn beside(other: &Self, besides: Option<IpAddr>) -> Self {
        Self::start_with(besides, Some(other.mail.clone()))
    }

    fn start_with(besides: Option<IpAddr>, shared: Option<PathBuf>) -> Self {
        let directory = open_directory("dovecot");
        let ports = Ports {
            imap: ports::free(),
            imaps: ports::free(),
            imap_proxied: ports::free(),
            pop3: ports::free(),
            pop3s: ports::free(),
            pop3_proxied: ports::free(),
            sieve: ports::free(),
            sieves: ports::free(),
            sieve_proxied: ports::free(),
            lmtp: ports::free(),
            sasl: ports::free(),
        };
        let identity = AUTHORITY.issue(&["dovecot.example.test"]);
        std::fs::write(directory.join("server.pem"), identity.certificate).unwrap();
        std::fs::write(directory.join("server.key"), identity.key).unwrap();
        let mail = shared.unwrap_or_else(|| {
            let mail = directory.join("mail");
            std::fs::create_dir(&mail).unwrap();
            if we_are_root() {
                std::os::unix::fs::chown(&mail, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            mail
        });
        let configuration = directory.join("dovecot.conf");
        std::fs::write(&configuration, configure((&directory, &mail), &ports, besides)).unwrap();
        let oauth2 = include_str!("dovecot/2.3-oauth2.conf").replace("@DIR@", &directory.to_string_lossy());
        std::fs::write(directory.join("oauth2.conf"), oauth2).unwrap();
        let account = format!("{LONG_PASSWORD_USER}:{{PLAIN}}{}::::::\n", long_password());
        std::fs::write(directory.join("passwd"), account).unwrap();
        // One folder for each token audience, with one folder for each algorithm.
        let keys = directory.join("keys/default/HS256");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(keys.join("default"), STANDARD.encode(tokens::KEY)).unwrap();
        let daemon = Daemon::start(
            "dovecot",
            &directory,
            &["/usr/sbin/dovecot".as_ref(), "-F".as_ref(), "-c".as_ref(), configuration.as_os_str()],
            "",
            false,
        );
        let dovecot = Self { _daemon: daemon, directory, mail, ports };
        wait::eventually("Dovecot accepts connections", || {
            [dovecot.imap(), dovecot.pop3(), dovecot.sieve(), dovecot.lmtp(), dovecot.sasl()]
                .iter()
                .all(|address| std::net::TcpStream::connect(address).is_ok())
                .then_some(())
        });
        dovecot
    }

    /// IMAP with STARTTLS.
    pub fn imap(&self) -> SocketAddr {
        loopback(self.ports.imap)
    }

    /// IMAP with implicit TLS.
    pub fn imaps(&self) -> SocketAddr {
        loopback(self.ports.imaps)
    }

    /// IMAP that requires a PROXY header, version 1 or 2.
    pub fn imap_proxied(&self) -> SocketAddr {
        loopback(self.ports.imap_proxied)
    }

    /// POP3 with STLS.
    pub fn pop3(&self) -> SocketAddr {
        loopback(self.ports.pop3)
    }

    /// POP3 with implicit TLS.
    pub fn pop3s(&self) -> SocketAddr {
        loopback(self.ports.pop3s)
    }

    /// POP3 that requires a PROXY header, version 1 or 2.
    pub fn pop3_proxied(&self) -> SocketAddr {
        loopback(self.ports.pop3_proxied)
    }

    /// ManageSieve with STARTTLS.
    pub fn sieve(&self) -> SocketAddr {
        loopback(self.ports.sieve)
    }

    /// ManageSieve with implicit TLS.
    pub fn sieves(&self) -> SocketAddr {
        loopback(self.ports.sieves)
    }

    /// ManageSieve that requires a PROXY header, version 1 or 2.
    pub fn sieve_proxied(&self) -> SocketAddr {
        loopback(self.ports.sieve_proxied)
    }

    /// LMTP, for local delivery.
    pub fn lmtp(&self) -> SocketAddr {
        loopback(self.ports.lmtp)
    }

    /// The SASL service that Postfix uses.
    pub fn sasl(&self) -> SocketAddr {
        loopback(self.ports.sasl)
    }

    /// As [`Self::log_of`], but waits for a line, because lines may follow the reply to a client.
    pub fn logs(&self, user: &str) -> Vec<String> {
        wait::eventually("Dovecot logs it", || Some(self.log_of(user)).filter(|lines| !lines.is_empty()))
    }

    /// Returns the log lines about a user.
    pub fn log_of(&self, user: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(user)).map(str::to_owned).collect()
    }

    /// Returns the log. Each line begins with the time in Unix seconds, with six decimal places.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.join("dovecot.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// As root, Dovecot uses its package's users and the mail belongs to nobody; otherwise everything belongs to our user.
fn identities() -> String {
    if we_are_root() {
        return String::new();
    }
    let (user, group) = our_names();
    format!(
        "default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n\
         service anvil {{\n  chroot =\n}}\n\
         service imap-login {{\n  chroot =\n}}\nservice pop3-login {{\n  chroot =\n}}\n\
         service managesieve-login {{\n  chroot =\n}}\n"
    )
}

/// Returns the settings whose syntax differs between 2.3 and 2.4.
fn dialect() -> (&'static str, &'static str) {
    let output = Command::new("/usr/sbin/dovecot").arg("--version").output().expect("dovecot is installed");
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    match version.get(..3) {
        Some("2.3") => (include_str!("dovecot/2.3.conf"), "service_count = 0"),
        Some("2.4") => (include_str!("dovecot/2.4.conf"), "restart_request_count = unlimited"),
        _ => panic!("Dovecot {version} is installed; the tests know 2.3 and 2.4"),
    }
}

fn configure((directory, mail): (&Path, &Path), ports: &Ports, besides: Option<IpAddr>) -> String {
    let (accounts, unlimited) = dialect();
    let (user, group) = if we_are_root() { (NOBODY.to_string(), NOBODY.to_string()) } else { our_names() };
    let port = |word: &str, port: u16| (word.to_owned(), port.to_string());
    let words = [
        port("@IMAP@", ports.imap),
        port("@IMAPS@", ports.imaps),
        port("@IMAP_PROXIED@", ports.imap_proxied),
        port("@POP3@", ports.pop3),
        port("@POP3S@", ports.pop3s),
        port("@POP3_PROXIED@", ports.pop3_proxied),
        port("@SIEVE@", ports.sieve),
        port("@SIEVES@", ports.sieves),
        port("@SIEVE_PROXIED@", ports.sieve_proxied),
        port("@LMTP@", ports.lmtp),
        port("@SASL@", ports.sasl),
        ("@BESIDES@".to_owned(), besides.map(|address| format!(", {address}")).unwrap_or_default()),
        ("@USER@".to_owned(), user),
        ("@GROUP@".to_owned(), group),
        ("@UNLIMITED@".to_owned(), unlimited.to_owned()),
        ("@PASSWORD@".to_owned(), PASSWORD.to_owned()),
        ("@MAIL@".to_owned(), OsStr::new(mail).to_string_lossy().into_owned()),
        ("@DIR@".to_owned(), OsStr::new(directory).to_string_lossy().into_owned()),
    ];
    let template = [accounts, &identities(), include_str!("dovecot/services.conf")].concat();
    words.iter().fold(template, |text, (word, value)| text.replace(word, value))
}

const NOBODY: u32 = 65534;

/// The user whose password is [`long_password`].
pub const LONG_PASSWORD_USER: &str = "long-password@example.test";

/// Longer than Dovecot's limit for LOGIN and PASS, which is 1,024 bytes.
pub fn long_password() -> String {
    "long-password-".repeat(100)
}
