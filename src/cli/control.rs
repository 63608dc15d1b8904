//! Asks a running instance over its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use form_urlencoded::Serializer;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::control::{KICK, SESSIONS, WHY};
use crate::model::sessions::{Kicked, SessionFilter, SessionList};
use crate::model::why::{Why, WhyQuery};

/// The option for the control socket.
#[derive(Args, Clone, Debug)]
pub struct Socket {
    /// The control socket of the instance: the value of --control-socket of its `mailgress run`.
    #[arg(long = "control-socket", value_name = "PATH", env = "MAILGRESS_CONTROL_SOCKET", default_value = DEFAULT_PATH)]
    pub path: PathBuf,
}

impl Socket {
    /// Returns the selected sessions.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers at the socket.
    pub fn sessions(&self, filter: &SessionFilter) -> anyhow::Result<SessionList> {
        self.ask(http::Method::GET, &target(SESSIONS, filter))
    }

    /// Ends the selected sessions.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers at the socket.
    pub fn kick(&self, filter: &SessionFilter) -> anyhow::Result<Kicked> {
        self.ask(http::Method::POST, &target(KICK, filter))
    }

    /// Asks where a user goes.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers at the socket.
    pub fn why(&self, query: &WhyQuery) -> anyhow::Result<Why> {
        self.ask(http::Method::GET, &why_target(query))
    }

    fn ask<T: DeserializeOwned>(&self, method: http::Method, target: &str) -> anyhow::Result<T> {
        let asked = async { timeout(TIMEOUT, exchange(&self.path, method, target)).await };
        let shown = self.path.display();
        let answer = super::runtime()?.block_on(asked);
        let answer = answer
            .with_context(|| format!("the instance at {shown} does not answer within {TIMEOUT:?}"))??;
        serde_json::from_slice(&answer)
            .with_context(|| format!("the instance at {shown} has another version"))
    }
}

/// Returns the path with the filter as its query.
fn target(path: &str, filter: &SessionFilter) -> String {
    let SessionFilter { user, backend, listener, session } = filter;
    let session = session.map(|session| session.to_string());
    let fields = [("user", user), ("backend", backend), ("listener", listener), ("session", &session)];
    with_query(path, fields.map(|(name, value)| (name, value.as_deref())))
}

fn why_target(query: &WhyQuery) -> String {
    let WhyQuery { user, recipient, protocol, listener, sni } = query;
    let fields = [
        ("user", Some(user.as_str())),
        ("recipient", recipient.then_some("true")),
        ("protocol", protocol.as_deref()),
        ("listener", listener.as_deref()),
        ("sni", sni.as_deref()),
    ];
    with_query(WHY, fields)
}

fn with_query<const N: usize>(path: &str, fields: [(&str, Option<&str>); N]) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in fields {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("{path}?{}", query.finish())
}

async fn exchange(socket: &Path, method: http::Method, target: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the runtime.
    tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(target).header(http::header::HOST, "control");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?.to_bytes();
    if status != http::StatusCode::OK {
        bail!("the instance answers {status}: {}", String::from_utf8_lossy(&body).trim_end());
    }
    Ok(body)
}

fn unreachable(socket: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "only root and the user of the process may connect",
        io::ErrorKind::ConnectionRefused => "the process that created the socket has ended",
        _ => {
            "run this in the pod (kubectl exec deploy/mailgress -- /mailgress …), or start `mailgress run` with \
             --control-socket PATH and name the same path here"
        }
    };
    anyhow::anyhow!("no instance answers at {}: {error}; {remedy}", socket.display())
}

/// Where the chart puts it.
pub const DEFAULT_PATH: &str = "/run/mailgress/control.sock";

/// The timeout for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of an answer in bytes. It is enough for hundreds of thousands of sessions.
const MAX_ANSWER: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;

    #[test]
    fn a_filter_becomes_a_query() {
        let filter = SessionFilter {
            user: Some("a b@é".to_owned()),
            session: Some(SessionId { process: 1, number: 2 }),
            ..SessionFilter::default()
        };
        assert_eq!(target("/kick", &filter), "/kick?user=a+b%40%C3%A9&session=0000000000001-2");
    }

    #[test]
    fn a_socket_that_nobody_serves_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let error = |path: &Path| {
            let socket = Socket { path: path.to_owned() };
            format!("{:#}", socket.sessions(&SessionFilter::default()).unwrap_err())
        };
        assert!(error(&path).contains("--control-socket PATH"), "{}", error(&path));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(error(&path).contains("has ended"), "{}", error(&path));
    }
}
