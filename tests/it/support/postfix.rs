//! A private Postfix, separate from the system's: submission and port-25 services in every TLS mode and with a PROXY
//! header. It delivers only to Dovecot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::dovecot::Dovecot;
use super::pki::AUTHORITY;
use super::process::{Daemon, open_directory, root_command, we_are_root};
use super::{ports, wait};

/// A running Postfix.
pub struct Postfix {
    _daemon: Daemon,
    directory: PathBuf,
    ports: Ports,
}

struct Ports {
    submission: u16,
    submissions: u16,
    submission_proxied: u16,
    mx: u16,
    mx_proxied: u16,
    mx_verbose: u16,
}

impl Postfix {
    /// Starts in front of `dovecot`, on loopback and this address, and waits until it serves.
    pub fn start(dovecot: &Dovecot, besides: Option<IpAddr>) -> Self {
        let directory = open_directory("postfix");
        let ports = Ports {
            submission: ports::free(),
            submissions: ports::free(),
            submission_proxied: ports::free(),
            mx: ports::free(),
            mx_proxied: ports::free(),
            mx_verbose: ports::free(),
        };
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir(directory.join(name)).unwrap();
        }
        let identity = AUTHORITY.issue(&["postfix.example.test"]);
        std::fs::write(directory.join("etc/server.pem"), identity.key + &identity.certificate).unwrap();
        let etc = directory.join("etc");
        std::fs::write(etc.join("main.cf"), main_cf(&directory, dovecot)).unwrap();
        std::fs::write(etc.join("master.cf"), master_cf(&ports, besides)).unwrap();
        hand_over(&directory);
        let daemon = Daemon::start(
            "postfix",
            &directory,
            &["/usr/sbin/postfix".as_ref(), "-c".as_ref(), etc.as_os_str(), "start-fg".as_ref()],
            &format!("/usr/sbin/postfix -c {} stop >/dev/null 2>&1", etc.display()),
            true,
        );
        let postfix = Self { _daemon: daemon, directory, ports };
        wait::eventually("Postfix accepts connections (its master must be root)", || {
            [postfix.submission(), postfix.mx()]
                .iter()
                .all(|address| std::net::TcpStream::connect(address).is_ok())
                .then_some(())
        });
        postfix
    }

    /// Requires AUTH, offers STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        loopback(self.ports.submission)
    }

    /// Requires AUTH, with implicit TLS.
    pub fn submissions(&self) -> SocketAddr {
        loopback(self.ports.submissions)
    }

    /// Requires AUTH and a PROXY header, version 1 or 2.
    pub fn submission_proxied(&self) -> SocketAddr {
        loopback(self.ports.submission_proxied)
    }

    /// Accepts mail for example.test and two domains below it from everybody, like port 25.
    pub fn mx(&self) -> SocketAddr {
        loopback(self.ports.mx)
    }

    /// As [`Self::mx`], with a required PROXY header, version 1 or 2.
    pub fn mx_proxied(&self) -> SocketAddr {
        loopback(self.ports.mx_proxied)
    }

    /// As [`Self::mx`], and logs every line that it reads.
    pub fn mx_verbose(&self) -> SocketAddr {
        loopback(self.ports.mx_verbose)
    }

    /// As [`Self::log_of`], but waits for a line, because lines may follow the reply to a client.
    pub fn logs(&self, text: &str) -> Vec<String> {
        wait::eventually("Postfix logs it", || Some(self.log_of(text)).filter(|lines| !lines.is_empty()))
    }

    /// Returns the log lines that contain `text`.
    pub fn log_of(&self, text: &str) -> Vec<String> {
        let log = std::fs::read(self.directory.join("postfix.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Sets the owners that Postfix requires for its directories.
fn hand_over(directory: &Path) {
    let run = |owner: &str, name: &str| {
        let status = root_command("chown").args(["-R", owner]).arg(directory.join(name)).status().unwrap();
        assert!(
            status.success(),
            "Postfix's master process must be root: run as root, or let sudo ask nothing"
        );
    };
    run("postfix", "data");
    if !we_are_root() {
        run("root", "queue");
        run("root", "etc");
    }
}

fn main_cf(directory: &Path, dovecot: &Dovecot) -> String {
    MAIN_CF
        .replace("@DIR@", &directory.to_string_lossy())
        .replace("@LMTP@", &dovecot.lmtp().to_string())
        .replace("@SASL@", &dovecot.sasl().to_string())
}

fn master_cf(ports: &Ports, besides: Option<IpAddr>) -> String {
    let auth = "-o smtpd_relay_restrictions=permit_sasl_authenticated,reject \
                -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject";
    let open = "-o smtpd_sasl_auth_enable=no";
    let services = [
        (ports.submission, auth.to_owned()),
        (ports.submissions, format!("{auth} -o smtpd_tls_wrappermode=yes")),
        (ports.submission_proxied, format!("{auth} -o smtpd_upstream_proxy_protocol=haproxy")),
        (ports.mx, open.to_owned()),
        (ports.mx_proxied, format!("{open} -o smtpd_upstream_proxy_protocol=haproxy")),
        (ports.mx_verbose, format!("{open} -v")),
    ];
    let mut text = MASTER_CF.to_owned();
    for (port, options) in services {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(besides) {
            text.push_str(&format!("{address}:{port} inet n - n - - smtpd {options}\n"));
        }
    }
    text
}

const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
maillog_file = @DIR@/postfix.log
maillog_file_prefixes = @DIR@
myhostname = postfix.example.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = all
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =

virtual_mailbox_domains = example.test one.example.test two.example.test
virtual_mailbox_maps = static:ok
virtual_transport = lmtp:inet:@LMTP@
default_transport = error:nothing leaves this machine
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = reject_unauth_destination

smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:@SASL@
smtpd_tls_security_level = may
smtpd_tls_chain_files = @DIR@/etc/server.pem
smtpd_tls_session_cache_database =
smtpd_authorized_xclient_hosts = 127.0.0.1

# Attachments of 25 MB, and tests that connect often and talk long.
message_size_limit = 67108864
default_process_limit = 400
smtpd_client_connection_count_limit = 0
smtpd_junk_command_limit = 1000000
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
in_flow_delay = 0
";

const MASTER_CF: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";
