//! The proxies that are compared, as processes with the same configuration.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use serde_json::json;

use crate::load::Security;
use crate::services::{Protocol, Services};
use crate::table::PEERS;
use crate::tls::Identity;
use crate::{PATIENCE, POLL, account, load};

/// Starts a proxy in a directory.
pub(crate) type Start = fn(&Path, &Identity, &Services, &Run<'_>) -> Result<Peer>;

/// Those of [`PEERS`].
pub(crate) const ALL: [Start; PEERS.len()] = [nginx, floor, mailgress];

/// A running proxy.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// In clear, in the order of [`Protocol::ALL`].
    pub(crate) plain: [SocketAddr; 3],
    /// IMAP with TLS from the first byte.
    pub(crate) secure: SocketAddr,
    /// A client that resumes its TLS sessions.
    pub(crate) resuming: Arc<ClientConfig>,
    child: Child,
    log: PathBuf,
}

impl Peer {
    fn start(
        name: &'static str,
        version: String,
        mut command: Command,
        ports: Ports,
        identity: &Identity,
        log: PathBuf,
    ) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (plain, secure) = (ports.plain.map(at), at(ports.secure));
        Ok(Self { name, version, plain, secure, resuming: identity.resuming(), child, log })
    }

    /// Until a login works on all ports.
    pub(crate) async fn wait_until_ready(&self, identity: &Identity) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let plain =
            Protocol::ALL.map(|protocol| load::Target::new(self, identity, protocol, Security::Plain));
        let secure = load::Target::new(self, identity, Protocol::Imap, Security::Full);
        for target in plain.into_iter().chain([secure]) {
            while let Err(error) = load::logins(&target, 1, 1).await {
                ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", self.name);
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// CPU time until now.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        account::cpu(&self.processes())
    }

    /// Waits until it has nothing left to do.
    pub(crate) async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.cpu()?;
        loop {
            tokio::time::sleep(POLL).await;
            let now = self.cpu()?;
            if now - before < NEXT_TO_NOTHING {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} does not come to rest", self.name);
            before = now;
        }
    }

    /// Memory, once it does not change any more.
    pub(crate) async fn settled_memory(&self) -> Result<u64> {
        self.settle().await?;
        let deadline = Instant::now() + PATIENCE;
        let mut before = account::memory(&self.processes())?;
        loop {
            tokio::time::sleep(POLL * 4).await;
            let now = account::memory(&self.processes())?;
            if now.abs_diff(before) <= 64 * 1024 {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "the memory of {} does not come to rest", self.name);
            before = now;
        }
    }

    /// For error messages.
    pub(crate) fn failure(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        format!("{}; the end of its log:\n{}", self.name, last.join("\n"))
    }

    fn processes(&self) -> Vec<u32> {
        account::family(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx ends its workers, and Callgrind writes its file; each is given time for that before the kill.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ports that a peer listens on.
struct Ports {
    /// In the order of [`Protocol::ALL`].
    plain: [u16; 3],
    secure: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self { plain: [free_port()?, free_port()?, free_port()?], secure: free_port()? })
    }
}

/// How a peer is run.
pub(crate) enum Run<'a> {
    /// With so many workers.
    Workers(usize),
    /// With one worker under Callgrind, which writes its counts to this file when the peer ends.
    Counted(&'a Path),
    /// With one worker under strace, which writes how many system calls there were to this file when the peer ends.
    Traced(&'a Path),
}

impl Run<'_> {
    fn workers(&self) -> usize {
        match self {
            Self::Workers(workers) => *workers,
            Self::Counted(_) | Self::Traced(_) => 1,
        }
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Workers(_) => Command::new(program),
            Self::Counted(counts) => {
                let mut command = Command::new("valgrind");
                let mut output = OsString::from("--callgrind-out-file=");
                output.push(counts);
                command.args(["--quiet", "--tool=callgrind"]).arg(output).arg(program);
                command
            }
            Self::Traced(counts) => {
                let mut command = Command::new("strace");
                // As a grandchild, strace traces from outside, and this process signals the peer itself.
                command.args(["-D", "-f", "-c", "-o"]).arg(counts).arg(program);
                command
            }
        }
    }
}

/// Debian's nginx with its mail module and nothing else.
pub(crate) fn nginx(
    directory: &Path,
    identity: &Identity,
    services: &Services,
    run: &Run<'_>,
) -> Result<Peer> {
    let home = directory.join("nginx");
    fs::create_dir(&home)?;
    identity.write(&home)?;
    let ports = Ports::free()?;
    let home_text = home.display();
    let configuration = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n\
         daemon off;\nworker_processes {workers};\nmaster_process {master};\npid {home_text}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\n\
         mail {{\n\
           server_name bench.example.test;\n\
           auth_http {auth}/auth;\n\
           imap_capabilities IMAP4rev1;\n\
           ssl_certificate {home_text}/server.pem;\n\
           ssl_certificate_key {home_text}/server.key;\n\
           ssl_protocols TLSv1.2 TLSv1.3;\n\
           server {{ listen 127.0.0.1:{imap}; protocol imap; }}\n\
           server {{ listen 127.0.0.1:{pop3}; protocol pop3; }}\n\
           server {{ listen 127.0.0.1:{smtp}; protocol smtp; smtp_auth plain; }}\n\
           server {{ listen 127.0.0.1:{secure} ssl; protocol imap; }}\n\
         }}\n",
        workers = run.workers(),
        master = if matches!(run, Run::Workers(_)) { "on" } else { "off" },
        auth = services.auth,
        imap = ports.plain[0],
        pop3 = ports.plain[1],
        smtp = ports.plain[2],
        secure = ports.secure,
    );
    let file = home.join("nginx.conf");
    fs::write(&file, configuration)?;
    let version = Command::new("nginx").arg("-v").output().context("nginx is missing; see `make bench`")?;
    let version = String::from_utf8_lossy(&version.stderr).trim().to_owned();
    let mut command = run.command("nginx");
    // Before it has read its configuration, it would log to /var/log.
    command.args(["-e", "stderr", "-p"]).arg(&home).arg("-c").arg(file);
    Peer::start(PEERS[0], version, command, ports, identity, home.join("log"))
}

/// This package's binary on a folder of manifests.
pub(crate) fn mailgress(
    directory: &Path,
    identity: &Identity,
    services: &Services,
    run: &Run<'_>,
) -> Result<Peer> {
    let binary = env!("CARGO_BIN_EXE_mailgress");
    let home = directory.join("mailgress");
    let manifests = home.join("manifests");
    fs::create_dir_all(&manifests)?;
    let ports = Ports::free()?;
    let listener = |name: &str, protocol: Protocol, mode: &str, port: u16| {
        json!({
            "name": name, "protocol": protocol.name(), "address": "127.0.0.1", "port": port,
            "tls": { "mode": mode }, "backendAddress": services.backend(protocol).to_string(),
        })
    };
    let mut listeners = vec![listener("tls", Protocol::Imap, "Implicit", ports.secure)];
    for (protocol, port) in Protocol::ALL.into_iter().zip(ports.plain) {
        listeners.push(listener(&protocol.name().to_lowercase(), protocol, "Disabled", port));
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "tls", "namespace": "mail" },
        "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key },
    });
    let server = json!({
        "apiVersion": "mailgress.dev/v1alpha1", "kind": "MailServer",
        "metadata": { "name": "bench", "namespace": "mail" },
        "spec": {
            "serverName": "bench.example.test",
            "tls": { "certificateRefs": [{ "name": "tls" }] },
            "auth": { "http": { "url": format!("http://{}/auth", services.auth) } },
            "imap": { "capabilities": ["IMAP4rev1"] },
            "listeners": listeners,
        },
    });
    fs::write(manifests.join("secret.yaml"), serde_yaml::to_string(&secret)?)?;
    fs::write(manifests.join("server.yaml"), serde_yaml::to_string(&server)?)?;
    let version = Command::new(binary).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut command = run.command(binary);
    command.arg("run").arg("--manifests").arg(manifests);
    command.args(["--workers", &run.workers().to_string(), "--drain-timeout", "0s"]);
    let admin = format!("127.0.0.1:{}", free_port()?);
    command.args(["--admin-address", &admin, "--status-address", &admin]);
    Peer::start(PEERS[2], version, command, ports, identity, home.join("log"))
}

/// [`crate::floor`], as this program.
pub(crate) fn floor(
    directory: &Path,
    identity: &Identity,
    services: &Services,
    run: &Run<'_>,
) -> Result<Peer> {
    let home = directory.join("floor");
    fs::create_dir(&home)?;
    identity.write(&home)?;
    let ports = Ports::free()?;
    let mut command = run.command(std::env::current_exe()?);
    command.args([crate::floor::ARGUMENT, &run.workers().to_string(), &services.auth.to_string()]);
    command.args(ports.plain.iter().chain([&ports.secure]).map(ToString::to_string)).arg(&home);
    let version = "tokio, rustls and nothing else (benches/compare/floor.rs)".to_owned();
    Peer::start(PEERS[1], version, command, ports, identity, home.join("log"))
}

/// Given to no one else while its owner does not bind it: the kernel hands them out in turn.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// In one poll; timers and health checks cost that much.
const NEXT_TO_NOTHING: Duration = Duration::from_micros(500);
