//! The two compared programs as processes with equivalent configurations.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::services::Services;
use crate::tls::Identity;
use crate::{PATIENCE, account, load};

/// A running proxy.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// IMAP without TLS.
    pub(crate) plain: SocketAddr,
    /// IMAP with implicit TLS.
    pub(crate) secure: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Peer {
    fn start(
        name: &'static str,
        version: String,
        mut command: Command,
        ports: [u16; 2],
        log: PathBuf,
    ) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let [plain, secure] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Self { name, version, plain, secure, child, log })
    }

    /// Waits until a login works on both ports.
    pub(crate) async fn wait_until_ready(&self, identity: &Identity) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for secure in [false, true] {
            let target = load::Target::new(self, identity, secure);
            while let Err(error) = load::logins(&target, 1, 1).await {
                ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", self.name);
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Returns the CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        account::cpu(&self.processes())
    }

    /// Waits until it is idle.
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

    /// Returns the memory when it no longer changes.
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

    /// Describes a failure with the log.
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
        // nginx ends its workers itself. Both get some time before they are killed.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts Debian's nginx with only its mail module.
pub(crate) fn nginx(
    directory: &Path,
    identity: &Identity,
    services: &Services,
    workers: usize,
) -> Result<Peer> {
    let home = directory.join("nginx");
    fs::create_dir(&home)?;
    identity.write(&home)?;
    let ports = [free_port()?, free_port()?];
    let home_text = home.display();
    let configuration = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n\
         daemon off;\nworker_processes {workers};\npid {home_text}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\n\
         mail {{\n\
           server_name bench.example.test;\n\
           auth_http {auth}/auth;\n\
           imap_capabilities IMAP4rev1;\n\
           ssl_certificate {home_text}/server.pem;\n\
           ssl_certificate_key {home_text}/server.key;\n\
           ssl_protocols TLSv1.2 TLSv1.3;\n\
           server {{ listen 127.0.0.1:{plain}; protocol imap; }}\n\
           server {{ listen 127.0.0.1:{secure} ssl; protocol imap; }}\n\
         }}\n",
        auth = services.auth,
        plain = ports[0],
        secure = ports[1],
    );
    let file = home.join("nginx.conf");
    fs::write(&file, configuration)?;
    let version = Command::new("nginx").arg("-v").output().context("nginx is missing; see `make bench`")?;
    let version = String::from_utf8_lossy(&version.stderr).trim().to_owned();
    let mut command = Command::new("nginx");
    // Before it reads its configuration, it would log to /var/log.
    command.args(["-e", "stderr", "-p"]).arg(&home).arg("-c").arg(file);
    Peer::start("nginx", version, command, ports, home.join("log"))
}

/// Starts this package's binary with a folder of manifests.
pub(crate) fn mailgress(
    directory: &Path,
    binary: &Path,
    identity: &Identity,
    services: &Services,
    workers: usize,
) -> Result<Peer> {
    let home = directory.join("mailgress");
    let manifests = home.join("manifests");
    fs::create_dir_all(&manifests)?;
    let ports = [free_port()?, free_port()?];
    let listener = |name: &str, mode: &str, port: u16| {
        json!({
            "name": name, "protocol": "IMAP", "address": "127.0.0.1", "port": port,
            "tls": { "mode": mode }, "backendAddress": services.backend.to_string(),
        })
    };
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
            "listeners": [listener("plain", "Off", ports[0]), listener("tls", "Implicit", ports[1])],
        },
    });
    fs::write(manifests.join("secret.yaml"), serde_yaml::to_string(&secret)?)?;
    fs::write(manifests.join("server.yaml"), serde_yaml::to_string(&server)?)?;
    let version = Command::new(binary).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut command = Command::new(binary);
    command.arg("run").arg("--manifests").arg(manifests);
    command.args(["--workers", &workers.to_string(), "--drain-timeout", "0s"]);
    command.args(["--admin-address", &format!("127.0.0.1:{}", free_port()?)]);
    Peer::start("Mailgress", version, command, ports, home.join("log"))
}

/// Returns a free port. The kernel assigns ports in turn, so no other process gets it soon.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

const POLL: Duration = Duration::from_millis(50);
/// CPU time in one poll that counts as idle; timers and health checks need this much.
const NEXT_TO_NOTHING: Duration = Duration::from_micros(500);
