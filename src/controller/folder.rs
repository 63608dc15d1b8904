//! The source without a cluster: objects from the YAML files of a folder, which is watched.
//!
//! The outcomes that operators rely on: a file that is being written counts once it has settled; a file that
//! cannot be read or understood keeps what it last held; a deleted file's objects go; of two objects with one
//! name, the one in the first file by path order counts; editors' temporary files are not seen; and a ConfigMap
//! volume's swap of `..data` is one change.

pub mod scan;
pub mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::outlet::Outlet;
use super::validate::{BrokenCrd, Validator};

use scan::Patience;

pub use store::{Loaded, Problem, Store};

/// The folder, and what is known of it.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    outlet: Outlet,
    validator: Arc<Validator>,
    store: Store,
    index: Index,
    problems: Vec<Problem>,
    /// Since when files have been left alone because they are being written.
    unsettled: Option<Instant>,
    /// Somebody asks for all files to be read again.
    reread: Arc<Notify>,
}

/// Why a folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("{0} is not a folder; create it, or name another with --manifests")]
    NoFolder(PathBuf),
    /// There is no way to watch anything.
    #[error("files cannot be watched: {0}")]
    Watch(#[from] notify::Error),
    /// Our own fault.
    #[error(transparent)]
    Crd(#[from] BrokenCrd),
    /// Our own fault.
    #[error("reading the folder failed: {0}")]
    Read(#[from] tokio::task::JoinError),
}

impl FolderSource {
    /// For the folder `root`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn new(root: PathBuf, outlet: Outlet) -> Result<Self, SourceError> {
        if !root.is_dir() {
            return Err(SourceError::NoFolder(root));
        }
        Ok(Self {
            root,
            outlet,
            validator: Arc::new(Validator::new()?),
            store: Store::default(),
            index: Index::default(),
            problems: Vec::new(),
            unsettled: None,
            reread: Arc::default(),
        })
    }

    /// Asks for all files to be read again, also those that look the same.
    #[must_use]
    pub fn reread(&self) -> Arc<Notify> {
        Arc::clone(&self.reread)
    }

    /// Reads, renders and publishes until it is told to end.
    ///
    /// # Errors
    /// When nothing can be watched or read at all.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SourceError> {
        let (changed, mut changes) = mpsc::channel(1);
        // Kept alive by its sender here, where there is no watcher.
        let _watcher = watch_folder(&self.root, changed.clone()).inspect_err(|error| {
            let folder = self.root.display();
            tracing::warn!("{folder} cannot be watched, so it is looked at every {LOOK_ANYWAY:?}: {error}");
        });
        self.read().await?;
        while self.unsettled.is_some() {
            sleep(SETTLING).await;
            self.read().await?;
        }
        self.render();
        let mut look = interval_at(Instant::now() + LOOK_ANYWAY, LOOK_ANYWAY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = changes.recv() => settle(&mut changes).await,
                _ = look.tick() => {}
                () = self.reread.notified() => self.store.forget_stamps(),
                () = sleep(SETTLING), if self.unsettled.is_some() => {}
                () = self.outlet.reported() => {
                    self.tell();
                    continue;
                }
            }
            if self.read().await? || rendered.elapsed() > RENDER_ANYWAY {
                self.render();
                rendered = Instant::now();
            }
        }
    }

    /// Whether anything changed. Files are read off the runtime's threads.
    async fn read(&mut self) -> Result<bool, SourceError> {
        let (root, known) = (self.root.clone(), self.store.stamps());
        let waited = self.unsettled.is_some_and(|since| since.elapsed() > UNSETTLED_AT_MOST);
        let patience = if waited { Patience::Read } else { Patience::Wait };
        let validator = Arc::clone(&self.validator);
        let mut store = std::mem::take(&mut self.store);
        let (store, changed, is_unsettled) = tokio::task::spawn_blocking(move || {
            let scan = scan::scan(&root, &known, patience);
            let is_unsettled = scan.is_unsettled();
            let changed = store.apply(scan, &validator);
            (store, changed, is_unsettled)
        })
        .await?;
        self.store = store;
        self.unsettled = is_unsettled.then(|| self.unsettled.unwrap_or_else(Instant::now));
        if changed {
            let loaded = self.store.load();
            for problem in loaded.problems.iter().filter(|problem| !self.problems.contains(problem)) {
                tracing::error!("{problem}");
            }
            self.index.replace(&loaded.objects);
            self.problems = loaded.problems;
        }
        Ok(changed)
    }

    fn render(&mut self) {
        let look = self.outlet.look(&mut self.index);
        self.outlet.publish(look);
        self.tell();
    }

    fn tell(&mut self) {
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        self.outlet.tell(&problems);
    }
}

/// Sends at every change. One pending event is as good as many: each leads to a look at everything.
fn watch_folder(root: &Path, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Waits until nothing happens for a while, since one edit is many events.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + SETTLE_AT_MOST;
    loop {
        let quiet = (Instant::now() + QUIET).min(end);
        if timeout_at(quiet, changes.recv()).await.is_err() || Instant::now() >= end {
            return;
        }
    }
}

/// How long nothing must happen before the files are read.
const QUIET: Duration = Duration::from_millis(40);
/// How long a change waits at most.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);
/// How soon a file that is being written is looked at again.
const SETTLING: Duration = Duration::from_millis(20);
/// A file that never settles is read as it is after so long.
const UNSETTLED_AT_MOST: Duration = Duration::from_secs(3);
/// Links may lead to where no event comes from, and some file systems have none: so look anyway.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// Certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
