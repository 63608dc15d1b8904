//! The source without a cluster: objects from the YAML files of a folder, which is watched.
//!
//! Operators rely on these rules:
//! - A file is read when it has not changed for a short time. If a file is written in place and now lacks an object, a
//!   listener or a block of settings, or ends within a line, its previous content stays for two more seconds: its
//!   writer may be between two writes.
//! - A file that is not readable or not valid keeps its previous content.
//! - A renamed file keeps what it held under its old path, also while it is being written.
//! - The objects of a deleted file are removed at once. If all files are deleted, they are removed after `EMPTY_FOR`. A
//!   folder that is not readable keeps its previous content.
//! - If two objects have the same name, the one in the first file in the order of paths is used.
//! - Temporary files of editors are ignored, and the change of a ConfigMap volume's link `..data` is one change.

mod half;
pub mod scan;
pub mod store;
mod walk;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::publisher::{Publisher, REPORT_TIMEOUT};
use super::validate::{BrokenCrd, Validator};

use scan::{RecentWrites, Scan, read_tree};
use walk::{Tree, walk};
use watch::Watch;

pub use store::{Loaded, Problem, Store};

/// A folder as a source, and its state.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    publisher: Publisher,
    validator: Arc<Validator>,
    store: Store,
    index: Index,
    problems: Vec<Problem>,
    /// Since when some files are not read because they are being written.
    unsettled: Option<Instant>,
    /// Since when the folder, which had files, has none.
    emptied: Option<Instant>,
    /// When to read the folder again without an event.
    again: Option<Duration>,
    /// Notified when all files must be read again.
    reread: Arc<Notify>,
}

/// Why a folder cannot be used as a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The folder does not exist.
    #[error("{0} is not a folder; create it, or name another with --manifests")]
    NoFolder(PathBuf),
    /// The CRDs of this program are broken.
    #[error(transparent)]
    Crd(#[from] BrokenCrd),
    /// The thread that reads the folder failed.
    #[error("reading the folder failed: {0}")]
    Read(#[from] tokio::task::JoinError),
}

impl FolderSource {
    /// Creates a source for the folder `root`.
    ///
    /// # Errors
    ///
    /// Fails if the folder does not exist.
    pub fn new(root: PathBuf, publisher: Publisher) -> Result<Self, SourceError> {
        if !root.is_dir() {
            return Err(SourceError::NoFolder(root));
        }
        Ok(Self {
            root,
            publisher: publisher.with_pending_timeout(REPORT_TIMEOUT),
            validator: Arc::new(Validator::new()?),
            store: Store::default(),
            index: Index::default(),
            problems: Vec::new(),
            unsettled: None,
            emptied: None,
            again: None,
            reread: Arc::default(),
        })
    }

    /// Returns a handle: notifying it causes all files to be read again, even if they have not changed.
    #[must_use]
    pub fn reread(&self) -> Arc<Notify> {
        Arc::clone(&self.reread)
    }

    /// Reads, renders and publishes until `shutdown`.
    ///
    /// # Errors
    ///
    /// Fails if the thread that reads the folder fails.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SourceError> {
        let (changed, mut changes) = mpsc::channel(1);
        // Without a watcher, the sender in this function keeps the channel open.
        let mut watch = Watch::new(&self.root, changed.clone());
        watch = self.read(watch).await?.0;
        while let Some(wait) = self.again {
            sleep(wait).await;
            watch = self.read(watch).await?.0;
        }
        self.render();
        let mut resync = interval_at(Instant::now() + RESYNC_INTERVAL, RESYNC_INTERVAL);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            let next_deadline = self.publisher.next_deadline();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = changes.recv() => settle(&mut changes).await,
                _ = resync.tick() => {}
                () = self.reread.notified() => self.store.forget_stamps(),
                () = sleep(self.again.unwrap_or_default()), if self.again.is_some() => {}
                () = self.publisher.reported() => {
                    self.update_status();
                    continue;
                }
                () = sleep_until(next_deadline.unwrap_or_else(Instant::now)), if next_deadline.is_some() => {
                    self.update_status();
                    continue;
                }
            }
            let changed;
            (watch, changed) = self.read(watch).await?;
            if changed || rendered.elapsed() > RENDER_ANYWAY {
                self.render();
                rendered = Instant::now();
            }
        }
    }

    /// Reads changed files on a thread for blocking calls. Returns whether anything has changed.
    async fn read(&mut self, mut watch: Watch) -> Result<(Watch, bool), SourceError> {
        let (root, known) = (self.root.clone(), self.store.stamps());
        let waited = self.unsettled.is_some_and(|since| since.elapsed() > UNSETTLED_AT_MOST);
        let recent_writes = if waited { RecentWrites::Read } else { RecentWrites::Wait };
        let (watch, scan) = tokio::task::spawn_blocking(move || {
            let tree = walk_and_watch(&root, &mut watch);
            (watch, read_tree(tree, &known, recent_writes))
        })
        .await?;
        let scan = self.keep_if_emptied(scan);
        let settles_in = scan.settles_in();
        let validator = Arc::clone(&self.validator);
        let mut store = std::mem::take(&mut self.store);
        let (store, changed) = tokio::task::spawn_blocking(move || {
            let changed = store.apply(scan, &validator);
            (store, changed)
        })
        .await?;
        self.store = store;
        let unsettled = [settles_in, self.store.unsettled_for()].into_iter().flatten().min();
        self.unsettled = unsettled.map(|_| self.unsettled.unwrap_or_else(Instant::now));
        let emptied = self.emptied.map(|since| EMPTY_FOR.saturating_sub(since.elapsed()));
        let waits = [unsettled, emptied].into_iter().flatten().min();
        self.again = waits.map(|wait| wait.clamp(SHORTEST_WAIT, RESYNC_INTERVAL));
        if changed {
            let loaded = self.store.load();
            for problem in loaded.problems.iter().filter(|problem| !self.problems.contains(problem)) {
                tracing::error!("{problem}");
            }
            for path in solved(&self.problems, &loaded.problems, &self.store) {
                tracing::info!(file = %path.display(), "the file is valid again");
            }
            self.index.replace(&loaded.objects);
            self.problems = loaded.problems;
        }
        Ok((watch, changed))
    }

    /// Keeps the content for some time if all files have disappeared: the folder is probably being replaced.
    fn keep_if_emptied(&mut self, mut scan: Scan) -> Scan {
        let is_emptied = scan.files.is_empty() && scan.unreadable.is_empty() && !self.store.is_empty();
        self.emptied = is_emptied.then(|| self.emptied.unwrap_or_else(Instant::now));
        if self.emptied.is_some_and(|since| since.elapsed() < EMPTY_FOR) {
            let why = format!(
                "the folder has no manifests any more; keeping their objects for {EMPTY_FOR:?}, then removing them"
            );
            scan.unreadable.insert(self.root.clone(), why);
        } else {
            self.emptied = None;
        }
        scan
    }

    fn render(&mut self) {
        self.publisher.render(&mut self.index);
        self.update_status();
    }

    fn update_status(&mut self) {
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        self.publisher.update_status(&problems);
    }
}

/// Returns the files and folders whose problems are solved. Those that are gone are not among them.
fn solved<'a>(before: &'a [Problem], now: &[Problem], store: &Store) -> BTreeSet<&'a Path> {
    let is_over = |path: &&Path| store.knows(path) && now.iter().all(|problem| problem.path != *path);
    before.iter().map(|problem| problem.path.as_path()).filter(is_over).collect()
}

/// Returns the tree of the folder, and watches all its folders.
fn walk_and_watch(root: &Path, watch: &mut Watch) -> Tree {
    let tree = walk(root);
    if !watch.follow(&tree.folders) {
        return tree;
    }
    let tree = walk(root);
    // The second walk finds what has appeared before the watches started.
    watch.follow(&tree.folders);
    tree
}

/// Waits until there are no events for [`QUIET`], because one edit causes many events.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + SETTLE_AT_MOST;
    loop {
        let quiet = (Instant::now() + QUIET).min(end);
        if timeout_at(quiet, changes.recv()).await.is_err() || Instant::now() >= end {
            return;
        }
    }
}

/// Files are read when there are no events for this time.
const QUIET: Duration = Duration::from_millis(40);
/// The longest time that a change waits for further events.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);
/// The shortest delay before a file that is being written is checked again.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// A file that keeps changing is read after this time.
const UNSETTLED_AT_MOST: Duration = Duration::from_secs(6);
/// An empty folder is accepted after this time.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// Checks the folder at this interval: links may lead to folders without events, and some file systems have no events.
const RESYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Renders again after this time, because certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
