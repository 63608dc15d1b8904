//! Opens the control socket, and connects it with the data plane.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::control::{self, ControlState};
use crate::model::Snapshot;
use crate::model::sessions::SessionFilter;
use crate::model::why::Why;
use crate::net::socket::{SocketFile, UnixListening, bind_private};
use crate::proxy::{self, Observer};

/// The control socket, before it is served.
pub(super) struct Control {
    listener: UnixListener,
    state: ControlState,
    /// Removes the file when it is dropped.
    file: SocketFile,
}

impl Control {
    /// Opens the socket at this path.
    ///
    /// # Errors
    /// The socket cannot be bound, for example because another process serves it.
    pub(super) fn open(
        path: &Path,
        observer: &Observer,
        snapshots: &watch::Receiver<Arc<Snapshot>>,
        replica: &str,
    ) -> anyhow::Result<Self> {
        let shown = path.display();
        let bound = bind_private(path).with_context(|| format!("cannot listen on --control-socket {shown}"));
        let UnixListening { listener, file } = bound?;
        let listener = UnixListener::from_std(listener).context("cannot wait for connections")?;
        info!("control socket is listening at {shown}");
        let (reader, kicker, explainer) = (observer.clone(), observer.clone(), observer.clone());
        let (snapshots, name) = (snapshots.clone(), replica.to_owned());
        let state = ControlState {
            replica: replica.to_owned(),
            list: Arc::new(move |filter| reader.sessions(filter, Instant::now(), SystemTime::now())),
            kick: Arc::new(move |filter| kicker.kick(filter)),
            why: Arc::new(move |query| {
                let snapshot = Arc::clone(&snapshots.borrow());
                let listeners = proxy::why(&snapshot, query);
                let filter = SessionFilter { user: Some(query.user.clone()), ..SessionFilter::default() };
                let (now, at) = (Instant::now(), SystemTime::now());
                let sessions = explainer.sessions(&filter, now, at);
                let (refusals, bans) = explainer.refusals(query, &listeners, now, at);
                Why { replica: name.clone(), listeners, sessions, refusals, bans }
            }),
        };
        Ok(Self { listener, state, file })
    }

    /// Serves until `ended`. Returns the guard of the socket's file.
    pub(super) fn serve(self, ended: CancellationToken) -> SocketFile {
        drop(tokio::spawn(control::serve(self.listener, self.state, ended)));
        self.file
    }
}
