//! Errors of the API server: why a request failed, and whose fault it is.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use kube::runtime::watcher;
use tokio::time::timeout;

use crate::controller::violation::one_line;

/// Why a request or a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The API server refuses access (401 or 403).
    Forbidden(String),
    /// The API server refuses the request for another reason.
    Refused(String),
    /// The API server cannot be reached.
    Unreachable(String),
}

impl Failure {
    /// Returns the failure of a watch. `None` if its version is too old for the API server: it then lists again without
    /// a failure.
    pub(super) fn of_watch(error: watcher::Error) -> Option<Self> {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Some(Self::of(&error)),
            watcher::Error::WatchError(status) if status.code == EXPIRED => None,
            watcher::Error::WatchError(status) => Some(Self::of_status(status.code, &status.message)),
            watcher::Error::NoResourceVersion => Some(Self::Refused(error.to_string())),
        }
    }

    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            other => Self::Unreachable(one_line(&root(other).to_string())),
        }
    }

    /// The label value for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "forbidden",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        match code {
            401 | 403 => Self::Forbidden(one_line(message)),
            404 => Self::Refused(format!("{}; `mailgress crds` prints the CRDs", one_line(message))),
            _ => Self::Refused(one_line(message)),
        }
    }
}

impl Error for Failure {}

/// Waits for the answer to a request, at most [`REQUEST_TIMEOUT`].
pub(in crate::controller) async fn answered<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::Unreachable(NO_ANSWER.to_owned())),
    }
}

/// Writes the reason only.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Forbidden(why) | Self::Refused(why) | Self::Unreachable(why)) = self;
        f.write_str(why)
    }
}

/// Returns the innermost cause. The outer errors only say that something failed.
pub(in crate::controller) fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

pub(super) const NO_ANSWER: &str = "the API server does not answer";
/// The timeout of one request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP status 410 (Gone).
const EXPIRED: u16 = 410;
