//! Creates answers that need time and memory: outside of the control threads, few at once, and each counted until its
//! last byte is handed over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::bounds::{Bounds, Kind, Place};
use super::connections::Peer;

/// Creates answers. Clones share the limits.
#[derive(Clone, Debug)]
pub(super) struct Makers {
    pub(super) bounds: Bounds,
    working: Arc<Semaphore>,
}

/// An answer with its whole body.
pub(super) type Whole = http::Response<Vec<u8>>;

impl Makers {
    pub(super) fn new() -> Self {
        Self { bounds: Bounds::default(), working: Arc::new(Semaphore::new(MAKERS)) }
    }

    /// Waits for its turn and returns the answer of `make`.
    pub(super) async fn make(
        &self,
        kind: Kind,
        peer: Peer,
        make: impl FnOnce() -> Whole + Send + 'static,
    ) -> Response {
        let Some(place) = self.bounds.wait(kind, peer).await else { return busy() };
        let Ok(working) = Arc::clone(&self.working).acquire_owned().await else { return busy() };
        let made = tokio::task::spawn_blocking(move || {
            let made = make();
            drop(working);
            made
        });
        match made.await {
            Ok(made) => made.map(|bytes| Body::new(Written { rest: bytes.into(), _place: place })),
            Err(error) => failed(&error.to_string()).map(Body::from),
        }
    }
}

/// Converts a value to JSON.
pub(super) fn json(value: &impl Serialize) -> Whole {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(HeaderValue::from_static("application/json"), bytes),
        Err(error) => failed(&error.to_string()),
    }
}

pub(super) fn with_type(content_type: HeaderValue, bytes: Vec<u8>) -> Whole {
    let mut whole = Whole::new(bytes);
    whole.headers_mut().insert(header::CONTENT_TYPE, content_type);
    whole
}

/// Creates the answer for an error of Mailgress.
pub(super) fn failed(error: &str) -> Whole {
    let mut whole = Whole::new(format!("{error}\n").into_bytes());
    *whole.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    whole
}

fn busy() -> Response {
    let text = "too many requests of this kind at once; try again\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], text).into_response()
}

/// A body that is handed over in pieces, so that hyper buffers only one piece, and the place is free when the rest is
/// handed over.
#[derive(Debug)]
struct Written {
    rest: Bytes,
    _place: Place,
}

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.rest.len().min(BIT);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Answers that are created at once.
const MAKERS: usize = 2;
/// Bytes that hyper gets at once.
const BIT: usize = 16 << 10;
