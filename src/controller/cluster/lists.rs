//! How a watch gets its first list: with one request if the API server streams lists, otherwise with a list before the
//! watch.

use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use kube::runtime::watcher::{self, Config};
use tokio::sync::OnceCell;

use super::failure::{Failure, answered};

/// What is known about the API server's streaming lists (KEP-3157); one for all watches.
#[derive(Debug, Default)]
pub(super) struct StreamingLists {
    /// Whether the version of the API server may have them.
    known: OnceCell<bool>,
    /// The API server has refused one: it has the feature switched off.
    is_refused: AtomicBool,
}

impl StreamingLists {
    /// Returns `config` with the fewest requests that the API server allows. Without an answer about its version, the
    /// list is requested, which every API server allows.
    pub(super) async fn choose(&self, config: Config, client: &Client) -> Config {
        let ask = || async {
            match answered(client.apiserver_version()).await {
                Ok(version) => Ok(has_streaming_lists(&version.major, &version.minor)),
                Err(failure @ Failure::Unreachable(_)) => Err(failure),
                // Thousands of watches need not ask again.
                Err(Failure::Forbidden(_) | Failure::Refused(_)) => Ok(false),
            }
        };
        let has_them = self.known.get_or_try_init(ask).await.is_ok_and(|has_them| *has_them);
        if has_them && !self.is_refused.load(Ordering::Relaxed) { config.streaming_lists() } else { config }
    }

    /// Tells whether the API server has refused a streaming list as such, and remembers it.
    pub(super) fn are_refused_by(&self, error: &watcher::Error) -> bool {
        let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
        let is_refused = status.code == UNPROCESSABLE && status.message.contains("sendInitialEvents");
        if is_refused {
            self.is_refused.store(true, Ordering::Relaxed);
        }
        is_refused
    }
}

/// Tells whether a version of Kubernetes may have streaming lists. They are on by default in 1.32 and since 1.34. Before
/// 1.27, an API server ignores the request for one, so that the end of the list would never come.
fn has_streaming_lists(major: &str, minor: &str) -> bool {
    // Some providers write `32+`.
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version >= (1, 32))
}

/// HTTP status 422, for parameters that the API server does not accept.
const UNPROCESSABLE: u16 = 422;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, message: &str) -> watcher::Error {
        let status = kube::core::Status::failure(message, "Invalid").with_code(code);
        watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn versions_without_streaming_lists_are_not_asked_for_one() {
        for (major, minor, has_them) in [
            ("1", "31", false),
            ("1", "32", true),
            ("1", "35+", true),
            ("2", "0", true),
            ("1", "x", false),
            ("", "", false),
        ] {
            assert_eq!(has_streaming_lists(major, minor), has_them, "{major}.{minor}");
        }
    }

    #[test]
    fn only_a_refusal_of_the_parameter_is_one() {
        let lists = StreamingLists::default();
        assert!(!lists.are_refused_by(&refusal(403, "sendInitialEvents")));
        assert!(!lists.are_refused_by(&refusal(422, "fieldSelector: Invalid value")));
        assert!(!lists.is_refused.load(Ordering::Relaxed));
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        assert!(lists.are_refused_by(&refusal(422, message)));
        assert!(lists.is_refused.load(Ordering::Relaxed));
    }
}
