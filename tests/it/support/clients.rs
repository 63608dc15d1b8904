//! Real clients: Python's standard library, curl, openssl, swaks, sieve-connect.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::pki::{AUTHORITY, Identity};
use super::servers::PASSWORD;

/// How a client reaches a listener.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `IMAP`, `POP3`, `SMTP` or `Sieve`.
    pub protocol: &'static str,
    /// `Disabled`, `StartTLS`, `RequireStartTLS` or `Implicit`.
    pub tls: &'static str,
    /// The listener's address.
    pub address: SocketAddr,
}

/// A directory with the authority's certificate and the clients' files.
pub struct Clients {
    directory: TempDir,
}

/// The result of running a client.
#[derive(Debug)]
pub struct Ran {
    /// Whether its exit status was 0.
    pub ok: bool,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Ran {
    /// Panics unless the client succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.ok, "the client failed\n{}\n{}", self.output, self.errors);
        self
    }

    /// Panics if the client succeeded.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.ok, "the client succeeded\n{}\n{}", self.output, self.errors);
        self
    }
}

impl Endpoint {
    /// Tells whether the client must use STARTTLS.
    pub fn starttls(&self) -> bool {
        matches!(self.tls, "StartTLS" | "RequireStartTLS")
    }

    fn url(&self, path: &str) -> String {
        let scheme = self.protocol.to_ascii_lowercase();
        let secure = if self.tls == "Implicit" { "s" } else { "" };
        format!("{scheme}{secure}://localhost:{}{path}", self.address.port())
    }
}

impl Clients {
    /// Creates the directory with the files.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mailgress-clients-").tempdir().unwrap();
        AUTHORITY.write(&directory.path().join("ca.pem"));
        Self { directory }
    }

    /// Returns the path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a script of `tests/it/clients` with the endpoint, the CA and these arguments.
    pub fn python(&self, script: &str, to: &Endpoint, arguments: &[&str]) -> Ran {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(script);
        let mut command = Command::new("python3");
        command.arg(script).args([to.protocol, to.tls, &to.address.ip().to_string()]);
        command.arg(to.address.port().to_string()).arg(self.file("ca.pem")).args(arguments);
        run(&mut command, "")
    }

    /// Logs in with Python, and requests something that only a mailbox or a mail server can answer.
    pub fn python_login(&self, to: &Endpoint, method: &str, user: &str, password: &str) -> Ran {
        self.python("login.py", to, &[method, user, password])
    }

    /// Logs in with Python and EXTERNAL, with a certificate instead of a password.
    pub fn python_external(&self, to: &Endpoint, user: &str, identity: &Identity) -> Ran {
        let file = self.file("identity.pem");
        std::fs::write(&file, identity.certificate.clone() + &identity.key).unwrap();
        self.python("login.py", to, &["external", user, "", file.to_str().unwrap()])
    }

    /// Logs in with curl: lists mailboxes or mails, or sends HELP (SMTP).
    pub fn curl_login(&self, to: &Endpoint, user: &str, password: &str) -> Ran {
        self.curl_logs_in(self.curl(to, user, password), to)
    }

    /// Logs in with curl and this mechanism. `+APOP` is POP3's command.
    pub fn curl_login_by(&self, to: &Endpoint, mechanism: &str, user: &str, password: &str) -> Ran {
        self.curl_logs_in(self.curl_with(to, mechanism, &format!("{user}:{password}")), to)
    }

    /// Logs in with curl and a token, with the mechanism that curl prefers.
    pub fn curl_token(&self, to: &Endpoint, user: &str, token: &str) -> Ran {
        let mut command = self.curl_as(to, &format!("{user}:"));
        command.args(["--oauth2-bearer", token]);
        self.curl_logs_in(command, to)
    }

    /// Sends a message file with curl.
    pub fn curl_send(&self, to: &Endpoint, user: &str, recipient: &str, message: &Path) -> Ran {
        let mut command = self.curl(to, user, PASSWORD);
        command.args(["--mail-from", user, "--mail-rcpt", recipient, "--upload-file"]);
        run(command.arg(message).arg(to.url("/client.example.test")), "")
    }

    /// Fetches the mailbox's first message into a file with curl.
    pub fn curl_fetch(&self, to: &Endpoint, user: &str, into: &Path) -> Ran {
        let mut command = self.curl(to, user, PASSWORD);
        let path = if to.protocol == "IMAP" { "/INBOX;MAILINDEX=1" } else { "/1" };
        run(command.arg("--output").arg(into).arg(to.url(path)), "")
    }

    /// Runs the smallest command that needs a login.
    fn curl_logs_in(&self, mut command: Command, to: &Endpoint) -> Ran {
        match to.protocol {
            "SMTP" => command.args(["--request", "NOOP"]).arg(to.url("/client.example.test")),
            _ => command.arg(to.url("/")),
        };
        run(&mut command, "")
    }

    fn curl_with(&self, to: &Endpoint, mechanism: &str, credentials: &str) -> Command {
        let mut command = self.curl_as(to, credentials);
        command.args(["--login-options", &format!("AUTH={mechanism}")]);
        command
    }

    fn curl(&self, to: &Endpoint, user: &str, password: &str) -> Command {
        let credentials = format!("{user}:{password}");
        if to.protocol == "SMTP" {
            self.curl_with(to, "PLAIN", &credentials)
        } else {
            self.curl_as(to, &credentials)
        }
    }

    fn curl_as(&self, to: &Endpoint, credentials: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sSv", "--max-time", "120", "--resolve"]);
        command.arg(format!("localhost:{}:{}", to.address.port(), to.address.ip()));
        command.args(["--user", credentials, "--cacert"]).arg(self.file("ca.pem"));
        if to.starttls() {
            command.arg("--ssl-reqd");
        }
        command
    }

    /// Runs `openssl s_client` with `lines` as input after the handshake. The server must verify.
    pub fn openssl(&self, to: &Endpoint, lines: &[&str]) -> Ran {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost"]);
        command.args(["-verify_hostname", "localhost", "-CAfile"]).arg(self.file("ca.pem"));
        command.args(["-connect", &to.address.to_string()]);
        if to.starttls() {
            command.args(["-starttls", &to.protocol.to_ascii_lowercase()]);
        }
        let input: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        run(&mut command, &input)
    }

    /// Runs one action of Debian's ManageSieve client over STARTTLS, such as `--list`.
    pub fn sieve_connect(&self, to: &Endpoint, user: &str, password: &str, action: &[&str]) -> Ran {
        let mut command = Command::new("sieve-connect");
        command.args(["--server", "localhost", "--port", &to.address.port().to_string(), "--nosrv", "-4"]);
        command.args(["--user", user, "--authmech", "PLAIN", "--passwordfd", "0", "--tlscafile"]);
        command.arg(self.file("ca.pem")).args(action);
        run(&mut command, &format!("{password}\n"))
    }

    /// Sends a short message with AUTH with swaks.
    pub fn swaks(&self, to: &Endpoint, method: &str, user: &str, password: &str) -> Ran {
        self.swaks_with(to, method, user, password, &[])
    }

    /// As [`Self::swaks`], with additional options.
    pub fn swaks_with(
        &self,
        to: &Endpoint,
        method: &str,
        user: &str,
        password: &str,
        options: &[&str],
    ) -> Ran {
        let login = ["--auth", method, "--auth-user", user, "--auth-password", password];
        self.swaks_anonymous(to, user, &[&login, options].concat())
    }

    /// Sends a short message without AUTH with swaks.
    pub fn swaks_anonymous(&self, to: &Endpoint, user: &str, options: &[&str]) -> Ran {
        let mut command = Command::new("swaks");
        command.args(["--server", &to.address.to_string(), "--from", user, "--to", user]);
        command.args(["--ehlo", "client.example.test", "--timeout", "30", "--header", "Subject: swaks"]);
        command.args(options);
        match to.tls {
            "Disabled" => {}
            "Implicit" => drop(command.args(["--tls-on-connect", "--tls-verify", "--tls-sni", "localhost"])),
            _ => drop(command.args(["--tls", "--tls-verify", "--tls-sni", "localhost"])),
        }
        if to.tls != "Disabled" {
            command.arg("--tls-ca-path").arg(self.file("ca.pem"));
        }
        run(&mut command, "")
    }
}

fn run(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    // A client may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        ok: status.success(),
        output: String::from_utf8_lossy(&stdout).into_owned(),
        errors: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
