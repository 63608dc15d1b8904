//! Disables Nagle's algorithm at a backend only when the client sends more than one command: each system call counts, and
//! many sessions end with their first command.

use crate::net::Stream;

/// Nagle's algorithm at the sink. It delays a small write while an earlier one is not acknowledged. A backend is connected
/// with it, because the reply to each command of the login is also an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nagle {
    /// Nothing was written yet.
    Unused,
    /// The next write could wait for the acknowledgement of the first one.
    Used,
    /// It is disabled.
    Disabled,
}

impl Nagle {
    /// Disables it before the second write.
    pub(super) fn before_write(&mut self, sink: &Stream) {
        *self = match self {
            Self::Unused => Self::Used,
            Self::Used => {
                sink.socket().set_nodelay();
                Self::Disabled
            }
            Self::Disabled => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::{Socket, connect_tcp};

    #[tokio::test]
    async fn the_second_write_to_a_backend_does_not_wait_for_the_acknowledgement_of_the_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::Plain(Socket::Tcp(connect_tcp(listener.local_addr().unwrap()).await.unwrap()));
        let has_nodelay = || match stream.socket() {
            Socket::Tcp(tcp) => tcp.nodelay().unwrap(),
            Socket::Unix(_) => unreachable!("the stream is TCP"),
        };
        let mut nagle = Nagle::Unused;
        nagle.before_write(&stream);
        assert!(!has_nodelay());
        nagle.before_write(&stream);
        assert!(has_nodelay() && nagle == Nagle::Disabled);
    }
}
