//! The end of a drain, as a session waits for it. The session registers once with the listener's token, not for each of
//! its waits.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Waits for the end of a listener's drain.
#[derive(Debug)]
pub(crate) struct Goodbye {
    token: CancellationToken,
    registered: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Goodbye {
    /// Registers with the first wait.
    pub(crate) fn new(token: &CancellationToken) -> Self {
        Self { token: token.clone(), registered: None }
    }

    /// Tells whether the drain has ended.
    pub(crate) fn is_said(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns when the drain ends; at once if it has ended.
    pub(crate) fn said(&mut self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            let Self { token, registered } = self;
            let waiting = registered.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
            ready!(waiting.as_mut().poll(cx));
            // A future that is complete must not be polled again.
            *registered = None;
            Poll::Ready(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn a_drain_that_ends_is_noticed_in_each_wait() {
        let token = CancellationToken::new();
        let mut goodbye = Goodbye::new(&token);
        for _ in 0..2 {
            let mut waiting = std::pin::pin!(goodbye.said());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let later = token.clone();
        tokio::spawn(async move { later.cancel() });
        goodbye.said().await;
        goodbye.said().await;
    }
}
