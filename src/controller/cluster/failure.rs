//! Why the API server did not do what it was asked: whose fault it is.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use kube::runtime::watcher;
use tokio::time::timeout;

use crate::controller::violation::one_line;

/// Why a request or a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The API server says that we may not.
    Forbidden(String),
    /// The API server says something else.
    Refused(String),
    /// There is no API server to be talked to.
    Unreachable(String),
}

impl Failure {
    /// A watch's; `None` where it has been away for longer than the API server remembers, and lists again by itself.
    pub(super) fn of_watch(error: watcher::Error) -> Option<Self> {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Some(Self::of(&error)),
            watcher::Error::WatchError(status) if status.code == EXPIRED => None,
            watcher::Error::WatchError(status) => Some(Self::said(status.code, &status.message)),
            watcher::Error::NoResourceVersion => Some(Self::Refused(error.to_string())),
        }
    }

    /// Whose fault a request's error is.
    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::said(status.code, &status.message),
            other => Self::Unreachable(one_line(&root(other).to_string())),
        }
    }

    /// For a metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "forbidden",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }

    fn said(code: u16, message: &str) -> Self {
        match code {
            401 | 403 => Self::Forbidden(one_line(message)),
            404 => Self::Refused(format!("{}; `mailgress crds` prints the CRDs", one_line(message))),
            _ => Self::Refused(one_line(message)),
        }
    }
}

impl Error for Failure {}

/// A request's answer, or why there is none in time.
pub(in crate::controller) async fn answered<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::Unreachable(NO_ANSWER.to_owned())),
    }
}

/// The reason alone.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Forbidden(why) | Self::Refused(why) | Self::Unreachable(why)) = self;
        f.write_str(why)
    }
}

/// What it all began with: the outer errors say no more than that something failed.
pub(super) fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

/// In words.
pub(super) const NO_ANSWER: &str = "the API server does not answer";
/// How long one request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// HTTP's Gone.
const EXPIRED: u16 = 410;
