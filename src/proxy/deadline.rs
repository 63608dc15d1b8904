//! One deadline for many waits of a task. A timer for each wait would be registered and removed every time; this one is
//! registered by the first wait that waits, and moves only when it fires before a deadline that was postponed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline and its timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Registers no timer yet.
    pub(crate) const fn new(at: Instant) -> Self {
        Self { at, timer: None }
    }

    pub(crate) const fn at(&self) -> Instant {
        self.at
    }

    /// Returns a deadline at another time, which has the timer, so that none has to be registered. Call it while this one is
    /// not awaited.
    pub(crate) fn lend(&mut self, at: Instant) -> Self {
        Self { at, timer: self.timer.take() }
    }

    /// Takes the timer back, unless there is another one already.
    pub(crate) fn take_back(&mut self, lent: Self) {
        self.timer = self.timer.take().or(lent.timer);
    }

    /// Moves the deadline.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// Runs `work` until the deadline; returns `None` if the deadline comes first.
    pub(crate) async fn bound<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.passed() => None,
        }
    }

    /// Waits for the deadline.
    pub(crate) fn passed(&mut self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.poll(cx))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            if timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Duration, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn ends_work_that_waits_longer_and_no_other() {
        let began = Instant::now();
        let mut deadline = Deadline::new(began + 3 * SECOND);
        assert_eq!(deadline.bound(sleep(SECOND)).await, Some(()));
        assert_eq!(deadline.bound(sleep(SECOND)).await, Some(()));
        assert_eq!(deadline.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 3);
        assert_eq!(deadline.bound(async { 1 }).await, Some(1), "work that does not wait is done");
        assert_eq!(deadline.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_lent_serves_another_deadline_and_then_its_own_again() {
        let began = Instant::now();
        let mut own = Deadline::new(began + 5 * SECOND);
        assert_eq!(own.bound(sleep(SECOND)).await, Some(()));
        let mut other = own.lend(began + 3 * SECOND);
        assert!(own.timer.is_none() && other.timer.is_some());
        assert_eq!(other.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 3);
        own.take_back(other);
        assert!(own.timer.is_some());
        assert_eq!(own.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn can_be_postponed_and_brought_forward_while_its_timer_runs() {
        let began = Instant::now();
        let mut deadline = Deadline::new(began + 3 * SECOND);
        assert_eq!(deadline.bound(sleep(SECOND)).await, Some(()));
        deadline.set(began + 10 * SECOND);
        assert_eq!(deadline.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 10);
        deadline.set(began + 30 * SECOND);
        assert_eq!(deadline.bound(sleep(SECOND)).await, Some(()));
        deadline.set(began + 12 * SECOND);
        assert_eq!(deadline.bound(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 12);
    }
}
