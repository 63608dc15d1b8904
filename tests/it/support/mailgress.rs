//! The Mailgress process under test.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::wait::{self, PATIENCE};
use super::{manifest, ports};

/// A running `mailgress run`. Dropping it kills the process and checks its log for panics.
pub struct Mailgress {
    process: Process,
    admin: SocketAddr,
    _log: TempDir,
}

impl Mailgress {
    /// Starts it with a folder and waits until it is ready.
    pub fn start(folder: &manifest::Folder) -> Self {
        Self::start_with(folder, &[])
    }

    /// Starts it with additional arguments and waits until it is ready.
    pub fn start_with(folder: &manifest::Folder, arguments: &[&str]) -> Self {
        Self::start_from(folder_arguments(folder), arguments)
    }

    /// Starts it with the source of objects in this flag and waits until it is ready.
    pub fn start_from(flag: [&OsStr; 2], arguments: &[&str]) -> Self {
        Self::launch(Ipv4Addr::LOCALHOST.into(), &flag, binary(), &[], arguments)
    }

    /// Starts it with this limit of file descriptors and waits until it is ready.
    pub fn start_with_descriptors(folder: &manifest::Folder, limit: u32) -> Self {
        let limit = format!("--nofile={limit}");
        let before = [OsStr::new(&limit), &binary()];
        let admin = Ipv4Addr::LOCALHOST.into();
        Self::launch(admin, &folder_arguments(folder), "prlimit".into(), &before, &["--workers", "1"])
    }

    /// Starts it with these outputs instead of a log file, through `before` (a program with its arguments), and waits
    /// until it is ready.
    pub fn start_into(outputs: [Stdio; 2], before: &[&str], folder: &manifest::Folder) -> Self {
        let binary = binary();
        let mut all: Vec<&OsStr> = before.iter().skip(1).map(OsStr::new).collect();
        let program = before.first().map_or(binary.clone(), OsString::from);
        if !before.is_empty() {
            all.push(&binary);
        }
        let admin = Ipv4Addr::LOCALHOST.into();
        Self::launch_into(Some(outputs), admin, &folder_arguments(folder), program, &all, &[])
    }

    fn launch(
        admin: IpAddr,
        source: &[&OsStr],
        program: OsString,
        before: &[&OsStr],
        arguments: &[&str],
    ) -> Self {
        Self::launch_into(None, admin, source, program, before, arguments)
    }

    fn launch_into(
        outputs: Option<[Stdio; 2]>,
        admin: IpAddr,
        source: &[&OsStr],
        program: OsString,
        before: &[&OsStr],
        arguments: &[&str],
    ) -> Self {
        let mut mailgress = Self::begin(outputs, admin, source, program, before, arguments);
        wait::eventually("/readyz says 200", || {
            mailgress.assert_runs();
            mailgress.is_ready().then_some(())
        });
        mailgress
    }

    fn begin(
        outputs: Option<[Stdio; 2]>,
        admin: IpAddr,
        source: &[&OsStr],
        program: OsString,
        before: &[&OsStr],
        arguments: &[&str],
    ) -> Self {
        let log = tempfile::Builder::new().prefix("mailgress-log-").tempdir().unwrap();
        let admin = SocketAddr::new(admin, ports::free());
        let admin_text = admin.to_string();
        let mut all = before.to_vec();
        all.push(OsStr::new("run"));
        all.extend(source);
        all.extend(["--admin-address", &admin_text].map(OsStr::new));
        // All pages at one port, unless the test wants two.
        if !arguments.contains(&"--status-address") {
            all.extend(["--status-address", &admin_text].map(OsStr::new));
        }
        all.extend(arguments.iter().map(OsStr::new));
        let path = log.path().join("mailgress.log");
        let process = match outputs {
            None => Process::start(&program, &all, &[], path),
            Some(outputs) => {
                File::create(&path).unwrap();
                Process::start_into(outputs, &program, &all, &[], path)
            }
        };
        Self { process, admin, _log: log }
    }

    fn assert_runs(&mut self) {
        let ended = self.process.exit_status();
        assert!(ended.is_none(), "Mailgress ended with {ended:?}; its log:\n{}", self.log());
    }

    /// Tells whether `/readyz` returns 200.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Tells whether `/livez` returns 200.
    pub fn is_alive(&self) -> bool {
        self.get("/livez").is_ok_and(|(status, _)| status == 200)
    }

    /// Returns `/status`.
    pub fn status(&self) -> Value {
        let (status, body) = self.get("/status").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Returns `/metrics`.
    pub fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Returns its output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for a log line that contains all of `texts`.
    pub fn logs(&self, texts: &[&str]) -> String {
        wait::eventually(&format!("a log line with {texts:?}"), || {
            let log = self.log();
            log.lines().find(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned)
        })
    }

    /// Returns the number of open descriptors.
    pub fn descriptors(&self) -> usize {
        let metrics = self.metrics();
        let open = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds "));
        open.unwrap().parse().unwrap()
    }

    /// Returns the resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Returns the peak of resident memory in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.process.peak_bytes()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Sends a signal by its number.
    pub fn signal(&self, number: i32) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([&format!("-{number}"), &id]).status().unwrap();
        assert!(sent.success(), "kill -{number}: {sent}");
    }

    /// Waits until it ends.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        self.process.wait(bound)
    }

    /// Tells whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let response = String::from_utf8_lossy(&response);
        let (head, body) = response.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
    }
}

#[allow(dead_code, reason = "replicas are a matter of tests/cluster, the page of tests/page")]
impl Mailgress {
    /// Returns a page of the admin server.
    pub fn page(&self, path: &str) -> String {
        let (status, body) = self.get(path).unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Starts it with an admin server that other hosts can reach, and waits until it is ready.
    pub fn start_at(admin: IpAddr, flag: [&OsStr; 2], arguments: &[&str]) -> Self {
        Self::launch(admin, &flag, binary(), &[], arguments)
    }

    /// As [`Self::start_at`], but waits only for the admin server, not until it is ready.
    pub fn start_unready_at(admin: IpAddr, flag: [&OsStr; 2], arguments: &[&str]) -> Self {
        let mut mailgress = Self::begin(None, admin, &flag, binary(), &[], arguments);
        wait::eventually("/readyz is answered", || {
            mailgress.assert_runs();
            mailgress.get("/readyz").ok()
        });
        mailgress
    }

    /// Returns the status and the text of `/readyz`.
    pub fn readyz(&self) -> (u16, String) {
        self.get("/readyz").unwrap()
    }

    /// Returns the address of the admin server.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Sends SIGSTOP.
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl Drop for Mailgress {
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- the end of Mailgress's log ---\n{}", lines[last..].join("\n"));
        } else {
            assert!(!log.contains("panicked at"), "Mailgress panicked:\n{log}");
        }
    }
}

fn folder_arguments(folder: &manifest::Folder) -> [&OsStr; 2] {
    ["--manifests".as_ref(), folder.path().as_os_str()]
}

/// The binary to test: this package's, or another one, such as that of an installed package.
pub fn binary() -> OsString {
    std::env::var_os("MAILGRESS_TEST_BINARY")
        .unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_mailgress")).as_os_str().to_owned())
}

const SHOWN_LINES: usize = 400;
