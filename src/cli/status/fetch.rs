//! Reads a document from an instance's admin server.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Usage;

/// Reads the document at `path` within `bound`.
///
/// # Errors
///
/// Fails if there is no answer, or the answer is not a JSON document.
pub(super) async fn json(address: &str, path: &str, bound: Duration) -> anyhow::Result<Value> {
    let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    if host.contains('/') || !host.contains(':') {
        return Err(Usage::new(anyhow::anyhow!("--address {address}: write http://HOST:PORT")).into());
    }
    let answer = timeout(bound, get(host, path)).await;
    let answer = answer.with_context(|| format!("{address} does not answer within {bound:?}"))?;
    answer.with_context(|| {
        format!(
            "no instance answers at {address}; set --address (kubectl port-forward makes a pod reachable), or read the \
             status from a cluster with -A or --namespace"
        )
    })
}

async fn get(host: &str, path: &str) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(host).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the runtime.
    tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != http::StatusCode::OK {
        bail!("{path} is answered with {}", response.status());
    }
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{path} cannot be read: {error}"))?;
    serde_json::from_slice(&body.to_bytes()).with_context(|| format!("the response to {path} is not JSON"))
}

/// The maximum size of a document in bytes. It is enough for many thousands of objects.
const MAX_DOCUMENT: usize = 256 << 20;
