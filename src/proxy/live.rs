//! What a session shows of itself while it is relayed, and how it is told to end.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::end::End;
use super::exclusive::EndReason;

/// The state of a relayed session that others read. Only its own task writes the numbers.
#[derive(Debug)]
pub(crate) struct Live {
    /// When the session entered the relay.
    pub(crate) began: Instant,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    /// When bytes moved last, in milliseconds since `began`.
    moved: AtomicU64,
    /// 0, or an [`Order`].
    order: AtomicU8,
    task: AtomicWaker,
}

/// Numbers of relayed bytes and refused recipients, however the session ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) to_backend: u64,
    pub(crate) to_client: u64,
    /// Recipients that we have refused instead of the backend.
    pub(crate) recipients_refused: u32,
}

impl Relayed {
    /// Returns the sum.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            to_backend: self.to_backend.saturating_add(other.to_backend),
            to_client: self.to_client.saturating_add(other.to_client),
            recipients_refused: self.recipients_refused.saturating_add(other.recipients_refused),
        }
    }
}

/// Why a session has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// An operator ended it.
    Kick = 1,
    /// The replica drains.
    Drain = 2,
    /// The session's `MailRoute` is held.
    Hold = 3,
    /// The user has become exclusive.
    Join = 4,
    /// [`EndReason::Moving`].
    Move = 5,
    /// [`EndReason::EndpointGone`].
    EndpointGone = 6,
    /// [`EndReason::ReplicaUnlisted`].
    Unlisted = 7,
    /// The endpoint is taken out of service.
    Leave = 8,
}

impl EndReason {
    /// Returns the order for a session that ends for this reason.
    pub(crate) const fn order(self) -> Order {
        match self {
            Self::Moving => Order::Move,
            Self::EndpointGone => Order::EndpointGone,
            Self::ReplicaUnlisted => Order::Unlisted,
        }
    }
}

impl Live {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            to_backend: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            order: AtomicU8::new(0),
            task: AtomicWaker::new(),
        }
    }

    /// Stores how many bytes have moved, after some have.
    pub(crate) fn moved(&self, relayed: Relayed, at: Instant) {
        let since = at.saturating_duration_since(self.began).as_millis();
        self.to_backend.store(relayed.to_backend, Ordering::Relaxed);
        self.to_client.store(relayed.to_client, Ordering::Relaxed);
        self.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tells the session to end. Returns false if it was told before.
    pub(crate) fn end(&self, order: Order) -> bool {
        let told = self.order.compare_exchange(0, order as u8, Ordering::Release, Ordering::Relaxed).is_ok();
        if told {
            self.task.wake();
        }
        told
    }

    /// Waits until the session is told to end.
    pub(crate) async fn told(&self) -> End {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            self.ordered().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Returns the end of the session if it was told to end.
    pub(crate) fn ordered(&self) -> Option<End> {
        match self.order.load(Ordering::Acquire) {
            0 => None,
            order if order == Order::Kick as u8 => Some(End::Kicked),
            order if order == Order::Hold as u8 => Some(End::Held),
            order if order == Order::Join as u8 => Some(End::Joined),
            order if order == Order::Move as u8 => Some(End::Moved(EndReason::Moving)),
            order if order == Order::EndpointGone as u8 => Some(End::Moved(EndReason::EndpointGone)),
            order if order == Order::Unlisted as u8 => Some(End::Moved(EndReason::ReplicaUnlisted)),
            order if order == Order::Leave as u8 => Some(End::EndpointLeaves),
            _ => Some(End::Drained),
        }
    }

    pub(crate) fn relayed(&self) -> Relayed {
        Relayed {
            to_backend: self.to_backend.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
            recipients_refused: 0,
        }
    }

    pub(crate) fn moved_at(&self) -> Instant {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.began.checked_add(moved).unwrap_or(self.began)
    }
}
