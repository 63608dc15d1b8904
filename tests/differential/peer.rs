//! nginx and Mailgress, each with its own services, serving the same configuration.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;

use super::conf::Conf;
use super::observed::Observed;
use super::played;
use super::scenario::Scenario;
use super::services::Services;
use super::support::mailgress::{Mailgress, binary};
use super::support::manifest::Folder;
use super::support::process::{Process, we_are_root};
use super::support::wait;

/// Both peers, running.
pub struct Peers {
    nginx: Nginx,
    mailgress: Peer,
    _process: Mailgress,
    _folder: Folder,
    next: AtomicU16,
}

/// One of the peers.
pub struct Peer {
    /// The services behind it.
    pub services: Services,
    /// The configuration that it serves.
    pub conf: Conf,
    /// The second byte of its clients' addresses.
    network: u8,
}

struct Nginx {
    peer: Peer,
    process: Process,
    _folder: TempDir,
}

impl Peers {
    /// Starts both with a server for each scenario.
    pub fn start(scenarios: &[Scenario]) -> Self {
        let peer = Peer::new(scenarios, MAILGRESS_NETWORK);
        let folder = imported(&peer.conf);
        let process = Mailgress::start(&folder);
        let peers = Self {
            nginx: Nginx::start(Peer::new(scenarios, NGINX_NETWORK)),
            mailgress: peer,
            _process: process,
            _folder: folder,
            next: AtomicU16::new(1),
        };
        for scenario in scenarios {
            for peer in [&peers.nginx.peer, &peers.mailgress] {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.conf.port(&scenario.server)));
                wait::eventually("the server listens", || TcpStream::connect(address).ok());
            }
        }
        peers
    }

    /// Plays a scenario with both.
    pub fn play(&self, scenario: &Scenario) -> (Observed, Observed) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let nginx = scope.spawn(|| played::one(&self.nginx.peer, scenario, number));
            let mailgress = played::one(&self.mailgress, scenario, number);
            (nginx.join().unwrap(), mailgress)
        })
    }
}

impl Peer {
    fn new(scenarios: &[Scenario], network: u8) -> Self {
        let services = Services::start();
        let conf = Conf::new(scenarios, services.auth_port());
        Self { services, conf, network }
    }

    /// Returns the address of a session of this peer.
    pub fn client(&self, number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(127, self.network, high, low)
    }
}

impl Nginx {
    fn start(peer: Peer) -> Self {
        let folder = tempfile::Builder::new().prefix("nginx-mail-").tempdir().unwrap();
        let user = if we_are_root() { "user root;\n" } else { "" };
        let preamble = format!(
            "{user}load_module {MODULE};\ndaemon off;\nworker_processes 1;\npid nginx.pid;\n\
             error_log error.log info;\nevents {{ worker_connections 4096; }}\n"
        );
        peer.conf.write(folder.path(), &preamble);
        let arguments = ["-p".as_ref(), folder.path().as_os_str(), "-c".as_ref(), OsStr::new("nginx.conf")];
        let log = folder.path().join("out.log");
        let process = Process::start(OsStr::new("nginx"), &arguments, &[], log);
        Self { peer, process, _folder: folder }
    }
}

impl Drop for Nginx {
    /// The workers are not our children, so the master must end them.
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(wait::PATIENCE);
    }
}

/// Returns the manifests that `import nginx` creates.
fn imported(conf: &Conf) -> Folder {
    let source = tempfile::Builder::new().prefix("mailgress-import-").tempdir().unwrap();
    conf.write(source.path(), "events {}\n");
    let folder = Folder::new();
    folder.write_text("mail.yaml", &import(&source.path().join("nginx.conf")));
    folder
}

fn import(path: &Path) -> String {
    let ran = Command::new(binary()).args(["import", "nginx", "--strict"]).arg(path).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_mail_module.so";

const NGINX_NETWORK: u8 = 101;
const MAILGRESS_NETWORK: u8 = 102;
