//! The second part of a session: commands, STARTTLS and logins, until the backend accepts a login.

use std::sync::Arc;

use crate::net::Stream;
use crate::protocol::{CloseReason, Frontend, StartTls, Step};
use crate::tls::Accepted;

use super::client::{Counted, Secured, Session, refuse_for_limit};
use super::upstream::{Accepting, Decision};
use crate::proxy::connection::Connection;
use crate::proxy::end::End;
use crate::proxy::goodbye::Goodbye;
use crate::proxy::metrics::TlsLabel;
use crate::proxy::record::Record;
use crate::proxy::serving::SocketTls;

/// Why reading commands stops.
enum Progress {
    /// The client requested STARTTLS.
    StartTls(StartTls),
    /// The backend accepted a login.
    Accepted(Accepting),
}

impl Session {
    /// Handles commands until a login is accepted or the session ends.
    pub(super) async fn log_in(
        mut self: Box<Self>,
        frontend: Frontend,
        record: &mut Record,
    ) -> Result<(Box<Self>, Accepting), End> {
        let mut frontend = frontend;
        loop {
            match self.until_progress(frontend, record).await {
                Ok(Progress::StartTls(agreed)) => {
                    (self, frontend) = Box::pin(self.upgrade(agreed, record)).await?;
                }
                Ok(Progress::Accepted(accepted)) => return Ok((self, accepted)),
                Err(end) => return Err(Box::pin(self.end(end)).await),
            }
        }
    }

    async fn until_progress(&mut self, frontend: Frontend, record: &mut Record) -> Result<Progress, End> {
        let mut frontend = frontend;
        let mut out = Vec::new();
        loop {
            let step = frontend.receive(&mut self.connection.input, &mut out);
            self.send(&mut out).await?;
            match step {
                Step::Read(same) => {
                    frontend = same;
                    self.read().await?;
                }
                Step::StartTls(agreed) => return Ok(Progress::StartTls(agreed)),
                Step::Login(attempt) => match Box::pin(self.decide(attempt, record)).await? {
                    Decision::Refused(next) => frontend = next,
                    Decision::Accepted(accepted) => return Ok(Progress::Accepted(accepted)),
                },
                Step::Close(CloseReason::SpeaksTls) => return Err(self.speaks_tls()),
                Step::Close(CloseReason::Quit) => return Err(End::Quit),
                Step::Close(reason) => return Err(End::Rule(reason)),
            }
        }
    }

    /// Does STARTTLS. Bytes received in cleartext are refused, and only the proof of this allows the handshake.
    async fn upgrade(
        mut self: Box<Self>,
        agreed: StartTls,
        record: &mut Record,
    ) -> Result<(Box<Self>, Frontend), End> {
        // The backend was told of a client without TLS.
        self.end_kept();
        let Self { connection, context, ends, host, serving, counted, mut deadline, mut goodbye, .. } = *self;
        let SocketTls::StartTls(acceptor) = &serving.tls else {
            return Err(End::Internal("STARTTLS on a socket without it"));
        };
        let clear = connection.into_handshake()?;
        if clear.refused() > 0 {
            tracing::debug!(client = %ends.client, refused = clear.refused(), "refused data that was sent between STARTTLS and the handshake");
        }
        let accepted = tokio::select! {
            accepted = acceptor.accept(clear) => accepted,
            () = deadline.passed() => return Err(End::ClientTimeout),
            () = goodbye.said() => return Err(End::Drained),
        };
        let Accepted { stream, listener, facts, client, refusal, proof } = accepted?;
        let served = Arc::clone(serving.at(listener)?);
        let goodbye = Goodbye::new(&served.goodbye);
        record.served = Some(Arc::clone(&served));
        record.tls = TlsLabel::StartTls;
        record.tls_version = facts.version.as_str().into();
        let connection =
            Connection::new(Stream::Server(Box::new(stream)), served.listener.limits.client_buffer);
        // From now on, the limits of the listener that SNI selected apply.
        drop(counted);
        let counted = match Counted::at(&served, ends.counted, record.tls) {
            Ok(counted) => counted,
            Err(refusal) => {
                let protocol = served.listener.frontend.protocol;
                return Err(refuse_for_limit(connection, protocol, refusal.into(), &context.lingering).await);
            }
        };
        let mut greeting = Vec::new();
        let frontend = agreed.secured(Arc::clone(&served.listener.frontend), proof, &mut greeting);
        let secured = Some(Arc::new(Secured { facts, certificate: client, refusal }));
        let session = Box::new(Self {
            connection,
            served,
            context,
            ends,
            host,
            attempted: None,
            route: None,
            first_bytes: None,
            is_source_recorded: false,
            secured,
            serving,
            counted,
            kept: None,
            deadline,
            goodbye,
            membership: None,
        });
        let mut session = session.with_certificate_checked().await?;
        if !greeting.is_empty() {
            session.send(&mut greeting).await?;
        }
        Ok((session, frontend))
    }
}
