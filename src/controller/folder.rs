//! The source without a cluster: objects from the YAML files of a folder, which is watched.
//!
//! The outcomes that operators rely on:
//! - A file counts once it has settled. One that is written in place, and lacks an object, a listener or a block of
//!   settings, or ends within a line, keeps what it held for two seconds more: its writer may be between two writes.
//! - A file that cannot be read or understood keeps what it last held.
//! - A renamed file keeps what it held under its old path, also while it is being written.
//! - The objects of a deleted file go at once. Where all files are gone, they go after `EMPTY_FOR`; a folder that
//!   cannot be read keeps what it last held.
//! - Of two objects with one name, the one in the first file by path order counts.
//! - Editors' temporary files are not seen, and a ConfigMap volume's swap of `..data` is one change.

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
use super::publisher::{Publisher, REPORT_PATIENCE};
use super::validate::{BrokenCrd, Validator};

use scan::{Patience, Scan, read_tree};
use walk::{Tree, walk};
use watch::Watch;

pub use store::{Loaded, Problem, Store};

/// The folder, and what is known of it.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    publisher: Publisher,
    validator: Arc<Validator>,
    store: Store,
    index: Index,
    problems: Vec<Problem>,
    /// Since when files have been left alone because they are being written.
    unsettled: Option<Instant>,
    /// Since when there has been no file where there were some.
    emptied: Option<Instant>,
    /// How soon to look again without an event.
    again: Option<Duration>,
    /// Somebody asks for all files to be read again.
    reread: Arc<Notify>,
}

/// Why a folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("{0} is not a folder; create it, or name another with --manifests")]
    NoFolder(PathBuf),
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
    pub fn new(root: PathBuf, publisher: Publisher) -> Result<Self, SourceError> {
        if !root.is_dir() {
            return Err(SourceError::NoFolder(root));
        }
        Ok(Self {
            root,
            publisher: publisher.with_patience(REPORT_PATIENCE),
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

    /// Asks for all files to be read again, also those that look the same.
    #[must_use]
    pub fn reread(&self) -> Arc<Notify> {
        Arc::clone(&self.reread)
    }

    /// Reads, renders and publishes until it is told to end.
    ///
    /// # Errors
    /// When nothing can be read at all.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SourceError> {
        let (changed, mut changes) = mpsc::channel(1);
        // Kept alive by its sender here, where there is no watcher.
        let mut watch = Watch::new(&self.root, changed.clone());
        watch = self.read(watch).await?.0;
        while let Some(wait) = self.again {
            sleep(wait).await;
            watch = self.read(watch).await?.0;
        }
        self.render();
        let mut look = interval_at(Instant::now() + LOOK_ANYWAY, LOOK_ANYWAY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rendered = Instant::now();
        loop {
            let next_tell = self.publisher.next_tell();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = changes.recv() => settle(&mut changes).await,
                _ = look.tick() => {}
                () = self.reread.notified() => self.store.forget_stamps(),
                () = sleep(self.again.unwrap_or_default()), if self.again.is_some() => {}
                () = self.publisher.reported() => {
                    self.tell();
                    continue;
                }
                () = sleep_until(next_tell.unwrap_or_else(Instant::now)), if next_tell.is_some() => {
                    self.tell();
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

    /// Whether anything changed. Files are read off the runtime's threads.
    async fn read(&mut self, mut watch: Watch) -> Result<(Watch, bool), SourceError> {
        let (root, known) = (self.root.clone(), self.store.stamps());
        let waited = self.unsettled.is_some_and(|since| since.elapsed() > UNSETTLED_AT_MOST);
        let patience = if waited { Patience::Read } else { Patience::Wait };
        let (watch, scan) = tokio::task::spawn_blocking(move || {
            let tree = look(&root, &mut watch);
            (watch, read_tree(tree, &known, patience))
        })
        .await?;
        let scan = self.doubt_emptiness(scan);
        let settles_in = scan.settles_in();
        let validator = Arc::clone(&self.validator);
        let mut store = std::mem::take(&mut self.store);
        let (store, changed) = tokio::task::spawn_blocking(move || {
            let changed = store.apply(scan, &validator);
            (store, changed)
        })
        .await?;
        self.store = store;
        let unsettled = [settles_in, self.store.doubt()].into_iter().flatten().min();
        self.unsettled = unsettled.map(|_| self.unsettled.unwrap_or_else(Instant::now));
        let emptied = self.emptied.map(|since| EMPTY_FOR.saturating_sub(since.elapsed()));
        let waits = [unsettled, emptied].into_iter().flatten().min();
        self.again = waits.map(|wait| wait.clamp(SHORTEST_WAIT, LOOK_ANYWAY));
        if changed {
            let loaded = self.store.load();
            for problem in loaded.problems.iter().filter(|problem| !self.problems.contains(problem)) {
                tracing::error!("{problem}");
            }
            for path in mended(&self.problems, &loaded.problems, &self.store) {
                tracing::info!(file = %path.display(), "the problem of the file is solved");
            }
            self.index.replace(&loaded.objects);
            self.problems = loaded.problems;
        }
        Ok((watch, changed))
    }

    /// A folder without any file is most likely between two states: what it held is kept for a while.
    fn doubt_emptiness(&mut self, mut scan: Scan) -> Scan {
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
        self.tell();
    }

    fn tell(&mut self) {
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        self.publisher.tell(&problems);
    }
}

/// Files and folders that had a problem and have none. Those that are gone are not among them.
fn mended<'a>(before: &'a [Problem], now: &[Problem], store: &Store) -> BTreeSet<&'a Path> {
    let is_over = |path: &&Path| store.knows(path) && now.iter().all(|problem| problem.path != *path);
    before.iter().map(|problem| problem.path.as_path()).filter(is_over).collect()
}

/// What is in the folder, with all of it watched.
fn look(root: &Path, watch: &mut Watch) -> Tree {
    let tree = walk(root);
    if !watch.follow(&tree.folders) {
        return tree;
    }
    let tree = walk(root);
    // What appears from now on is an event in a folder that is watched.
    watch.follow(&tree.folders);
    tree
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
/// How soon a file that is being written is looked at again, at the soonest.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// A file that never settles is read as it is after so long.
const UNSETTLED_AT_MOST: Duration = Duration::from_secs(6);
/// A folder without any manifest is believed after so long.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// Links may lead to where no event comes from, and some file systems have none: so look anyway.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// Certificates expire without an event.
const RENDER_ANYWAY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
