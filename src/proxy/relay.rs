//! The relay: after the login, bytes move in both directions. [`Follower`] reads them, only as far as needed to insert
//! a closing message and to keep a client's XCLIENT away from the backend.
//!
//! Sessions spend most of their life here, so an idle session holds no buffer. A read uses a buffer of the worker's
//! thread and is written at once. Only bytes that the other side does not accept yet are kept; until they are written,
//! nothing more is read from their source. A FIN is passed on (quirk Q-33). Activity in one direction resets the
//! timeout of both.

mod direction;
mod nagle;

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::model::Timeouts;
use crate::net::Stream;
use crate::protocol::follow::{Follower, Interrupted, Passage};
use crate::secret::Wiped;

use self::direction::{Direction, Failure};
use self::nagle::Nagle;
use super::connection::Side;
use super::deadline::Deadline;
use super::end::End;
use super::exclusive::EndReason;
use super::goodbye::Goodbye;
use super::live::{Live, Relayed};

/// Both connections of a session that is logged in.
#[derive(Debug)]
pub(crate) struct Relay {
    client: Stream,
    backend: Stream,
    up: Direction,
    down: Direction,
    follower: Follower,
    /// Mail without a login whose recipients are placed by routes.
    recipients: Option<Box<dyn JudgesRecipients>>,
    idle: Duration,
    half_closed: Duration,
    /// When the client last sent something.
    last_sent: Instant,
}

/// What may end a relay from our side.
#[derive(Debug)]
pub(crate) struct Until<'a> {
    /// The end of the listener's drain.
    pub(crate) drained: &'a mut Goodbye,
    /// Tells the session to end, and gets the numbers of relayed bytes.
    pub(crate) live: &'a Live,
    /// For the idle timeout. It may have a timer of an earlier wait.
    pub(crate) timer: &'a mut Deadline,
}

/// Why polling the relay returns.
#[derive(Debug)]
enum Progress {
    /// One side has ended. A shorter timeout may apply from now on, because for most clients the session is over.
    HalfClosed,
    /// The relay is done.
    Finished(Finish),
}

/// Decides about the recipients of mail without a login after the first one.
pub(crate) trait JudgesRecipients: fmt::Debug + Send {
    /// Returns the reply to a recipient that the backend must not get. `line` is the RCPT command.
    fn refusal(&mut self, line: &[u8]) -> Option<&'static [u8]>;

    /// Returns how many recipients were refused.
    fn refused(&self) -> u32;
}

/// Why a relay is done.
#[derive(Debug)]
pub(crate) enum Finish {
    /// The session has ended: both sides are done, or one failed.
    Ended(End),
    /// The next command of the client is not for this backend ([`Follower::may_leave`]). Both connections are open, and
    /// the client has got all replies.
    Left,
}

/// What is left of a relay after [`Finish::Left`].
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) client: Stream,
    /// Bytes that the client has sent and the backend has not got.
    pub(crate) unread: Wiped,
    pub(crate) backend: Stream,
    /// Whether the backend may have a sender and recipients for the next message.
    pub(crate) is_in_transaction: bool,
}

impl Relay {
    /// Creates a relay. `follower` must not have read anything yet.
    pub(crate) fn new(client: Side, backend: Side, timeouts: Timeouts, mut follower: Follower) -> Self {
        follower.backend(&backend.received);
        Self {
            up: Direction::new(&client.received, 0, client.relayed, Nagle::Unused),
            down: Direction::new(&backend.received, backend.received.len(), backend.relayed, Nagle::Disabled),
            follower,
            recipients: None,
            client: client.stream,
            backend: backend.stream,
            idle: timeouts.idle,
            half_closed: timeouts.half_closed,
            last_sent: Instant::now(),
        }
    }

    /// Asks `recipients` about each recipient of the client.
    pub(crate) fn with_recipients(self, recipients: Option<Box<dyn JudgesRecipients>>) -> Self {
        Self { recipients, ..self }
    }

    /// Takes both connections after [`Finish::Left`].
    pub(crate) fn into_left(self) -> Left {
        let Self { client, backend, up, follower, .. } = self;
        let is_in_transaction = follower.is_in_transaction();
        Left { client, unread: up.into_rest(), backend, is_in_transaction }
    }

    /// Relays until both sides are done, the idle timeout expires, a drain ends, or the session is told to end; or until the
    /// session leaves its backend. `goodbye` returns the protocol's message for the client.
    pub(crate) async fn run(
        &mut self,
        Until { drained, live, timer }: Until<'_>,
        goodbye: impl FnOnce(&End) -> Vec<u8>,
    ) -> (Relayed, Finish) {
        let finish = tokio::select! {
            biased;
            finish = self.until_done(live, timer) => finish,
            () = drained.said() => Finish::Ended(End::Drained),
            end = live.told() => Finish::Ended(end),
        };
        // In memory of its own, because most of the time the relay only waits.
        Box::pin(self.conclude(finish, live, goodbye)).await
    }

    /// Ends the session in its protocol, as far as that is possible.
    async fn conclude(
        &mut self,
        finish: Finish,
        live: &Live,
        goodbye: impl FnOnce(&End) -> Vec<u8>,
    ) -> (Relayed, Finish) {
        let finish = match finish {
            // An unlisted replica counts only for a short time, so its sessions end at once.
            Finish::Ended(
                end @ (End::Moved(EndReason::Moving | EndReason::EndpointGone)
                | End::Joined
                | End::EndpointLeaves),
            ) => Finish::Ended(self.finish_message(live, end).await),
            finish => finish,
        };
        let relayed = self.relayed();
        let Finish::Ended(end) = finish else { return (relayed, finish) };
        let is_told = matches!(
            end,
            End::Drained | End::Kicked | End::Held | End::Moved(_) | End::Joined | End::EndpointLeaves
        );
        if is_told {
            self.say_goodbye(&goodbye(&end)).await;
        }
        if self.down.has_ended() && !self.up.has_ended() {
            // Closing while the client is still sending would cause a reset, and the client could lose the backend's
            // last bytes.
            if self.down.is_shut() {
                self.client.linger().await;
            } else {
                self.client.close().await;
            }
        }
        (relayed, Finish::Ended(end))
    }

    /// Tells whether a message or a reply is under way, or the client has not got all of a reply.
    fn is_mid_message(&self) -> bool {
        !self.down.is_clear()
            || matches!(self.follower.interrupted(), Some(Interrupted::Message | Interrupted::Reply))
    }

    /// Relays until no message is under way and the backend has replied, at most for [`MESSAGE_TIME`]. Returns how the
    /// session ended meanwhile, or `told`.
    async fn finish_message(&mut self, live: &Live, told: End) -> End {
        let mut active = Instant::now();
        let until_done = async {
            while self.is_mid_message() {
                // Each poll may finish the message and then wait for the next bytes.
                let polled = poll_fn(|cx| match self.poll(&mut active, live, cx) {
                    Poll::Ready(progress) => Poll::Ready(Some(progress)),
                    Poll::Pending if self.is_mid_message() => Poll::Pending,
                    Poll::Pending => Poll::Ready(None),
                });
                match polled.await {
                    Some(Progress::Finished(Finish::Ended(end))) => return Some(end),
                    Some(Progress::Finished(Finish::Left)) => return None,
                    Some(Progress::HalfClosed) | None => {}
                }
            }
            None
        };
        timeout(MESSAGE_TIME, until_done).await.ok().flatten().unwrap_or(told)
    }

    /// Moves the idle timer only when it fires. Activity just stores the time, which is cheaper.
    async fn until_done(&mut self, live: &Live, timer: &mut Deadline) -> Finish {
        let mut active = Instant::now();
        live.moved(self.relayed(), active.into_std());
        timer.set(active + self.idle);
        loop {
            tokio::select! {
                biased;
                progress = poll_fn(|cx| self.poll(&mut active, live, cx)) => match progress {
                    Progress::Finished(finish) => return finish,
                    Progress::HalfClosed => timer.set(active + self.timeout()),
                },
                () = timer.passed() => {
                    let end = active + self.timeout();
                    if end <= Instant::now() {
                        return Finish::Ended(End::Idle);
                    }
                    timer.set(end);
                }
            }
        }
    }

    fn relayed(&self) -> Relayed {
        Relayed {
            to_backend: self.up.bytes,
            to_client: self.down.bytes,
            recipients_refused: self.recipients.as_ref().map_or(0, |recipients| recipients.refused()),
        }
    }

    /// Returns how long both directions may be silent.
    fn timeout(&self) -> Duration {
        if self.is_half_closed() && !self.ends_with_client() {
            self.idle.min(self.half_closed)
        } else {
            self.idle
        }
    }

    /// Tells whether the session ends as with nginx: a client that closes its direction gets no further reply (quirk
    ///
    fn ends_with_client(&self) -> bool {
        self.half_closed.is_zero()
    }

    /// Tells whether a side has closed its direction, and nothing of it is on its way: a slow reader has the time of an open
    /// session. Bytes that wait for a reply are on nobody's way.
    fn is_half_closed(&self) -> bool {
        let (up, down) = (&self.up, &self.down);
        up.is_broken()
            || up.has_ended() && (up.is_flushed() || up.is_waiting())
            || down.has_ended() && down.is_flushed()
    }

    fn poll(&mut self, active: &mut Instant, live: &Live, cx: &mut Context<'_>) -> Poll<Progress> {
        let was_half_closed = self.is_half_closed();
        let moved = (self.up.moves, self.down.moves);
        let finish = self.poll_both(cx);
        if moved != (self.up.moves, self.down.moves) {
            *active = Instant::now();
            live.moved(self.relayed(), active.into_std());
        }
        if moved.0 != self.up.moves {
            self.last_sent = *active;
        }
        match finish {
            Poll::Ready(finish) => Poll::Ready(Progress::Finished(finish)),
            Poll::Pending if !was_half_closed && self.is_half_closed() => {
                *active = Instant::now();
                Poll::Ready(Progress::HalfClosed)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        loop {
            if let Poll::Ready(end) = self.poll_up(cx) {
                return Poll::Ready(Finish::Ended(end));
            }
            if let Poll::Ready(end) = self.poll_down(cx) {
                return Poll::Ready(Finish::Ended(end));
            }
            if self.follower.may_leave() && self.up.is_waiting() && self.down.is_flushed() {
                return Poll::Ready(Finish::Left);
            }
            if self.down.is_clear()
                && let Some(answer) = self.follower.take_answer()
            {
                self.down.say(answer);
            } else if !(self.up.is_waiting() && self.follower.may_go_on()) {
                return Poll::Pending;
            }
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { up, client, backend, follower, recipients, .. } = self;
        let gate = |bytes: &[u8]| follower.client(bytes, |line| recipients.as_mut()?.refusal(line));
        match up.poll(client, backend, gate, cx) {
            // The backend may have sent the reason before it stopped reading. Deliver that first.
            Poll::Ready(Err(Failure::Write(_))) if !self.down.has_ended() => self.up.give_up(),
            Poll::Ready(Err(failure)) => return Poll::Ready(failure.of("client", "backend")),
            _ => {}
        }
        Poll::Pending
    }

    /// When the backend has ended, the session ends.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { down, client, backend, follower, .. } = self;
        let note = |bytes: &[u8]| {
            follower.backend(bytes);
            Passage::Pass(bytes.len())
        };
        match down.poll(backend, client, note, cx) {
            Poll::Ready(Err(failure)) => Poll::Ready(failure.of("backend", "client")),
            Poll::Ready(Ok(())) => Poll::Ready(self.end()),
            // No reply can follow for the client, so the session is done.
            Poll::Pending
                if self.ends_with_client()
                    && (self.up.is_shut() || self.up.has_ended() && self.up.is_waiting()) =>
            {
                Poll::Ready(self.end())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Decides whether the end of a side completes the session. The side that ends first determines the outcome. A backend may end a
    /// session whose client is silent.
    fn end(&self) -> End {
        match self.follower.interrupted() {
            None => End::Done,
            Some(Interrupted::Message) if self.up.has_ended() => End::ClientLeft,
            Some(_) if self.up.has_ended() => End::Done,
            Some(Interrupted::Message | Interrupted::Notice | Interrupted::Delivery)
                if self.last_sent.elapsed() >= SILENT =>
            {
                End::Done
            }
            Some(interrupted) => End::BackendLeft(interrupted),
        }
    }

    /// Sends the closing message, only between two responses. Elsewhere the client would read it as part of a message.
    async fn say_goodbye(&mut self, goodbye: &[u8]) {
        let closing = async {
            if self.down.is_clear() && !self.down.has_ended() && self.follower.is_between_responses() {
                self.client.write_all(goodbye).await?;
            }
            self.client.flush().await?;
            self.client.shutdown().await?;
            self.backend.shutdown().await
        };
        // A client that does not read cannot be told.
        let _ = timeout(GOODBYE_TIME, closing).await;
    }
}

/// After this time without a byte of the client, a backend may end the session (RFC 5321 section 4.5.3.2.7; RFC 9051
/// section 5.4 sets 30 minutes).
const SILENT: Duration = Duration::from_secs(5 * 60);

/// Time limit for a message that is under way when the user has to leave its endpoint.
const MESSAGE_TIME: Duration = Duration::from_secs(10);

/// Time limit for the closing message of one session.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
