//! inotify watches of all folders that are read, and of the parent of the root. If a folder is removed and created
//! again, it is a different folder and gets a new watch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::walk::FolderId;

/// The watches. Each folder has its own, because the library's recursive watches would follow every link.
pub(super) struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    root: PathBuf,
    watched: BTreeMap<PathBuf, FolderId>,
    /// Whether the log already says that watching does not work.
    is_logged: bool,
}

impl Watch {
    /// Creates an empty set of watches. The channel holds one pending event, because each event causes a scan of
    /// everything.
    pub(super) fn new(root: &Path, changed: mpsc::Sender<()>) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let top = root.clone();
        let is_ours = move |event: notify::Result<notify::Event>| {
            // The watch of the parent also reports events of other files.
            event.map_or(true, |event| {
                !event.kind.is_access() && event.paths.iter().any(|p| p.starts_with(&top))
            })
        };
        let watcher = notify::recommended_watcher(move |event| {
            if is_ours(event) {
                let _ = changed.try_send(());
            }
        });
        let mut watch = Self { watcher: None, root, watched: BTreeMap::new(), is_logged: false };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.log_failure(&error),
        }
        watch
    }

    /// Watches these folders and no others. Returns whether there are new ones: their content may have changed between
    /// the walk and the start of the watch.
    pub(super) fn follow(&mut self, folders: &BTreeMap<PathBuf, FolderId>) -> bool {
        if self.watcher.is_none() {
            return false;
        }
        let mut wanted = BTreeMap::new();
        for (path, id) in folders {
            wanted.extend(std::path::absolute(path).ok().map(|path| (path, *id)));
        }
        let parent = self.root.parent().map(Path::to_owned);
        wanted.extend(parent.and_then(|parent| FolderId::of(&parent).map(|id| (parent, id))));
        let removed: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in removed {
            self.watched.remove(&path);
            // If the folder was removed, the kernel has already removed the watch.
            let _ = self.watcher.as_mut().map(|watcher| watcher.unwatch(&path));
        }
        let mut is_new = false;
        for (path, id) in wanted {
            if !self.watched.contains_key(&path) {
                is_new |= self.watch(path, id);
            }
        }
        is_new
    }

    fn watch(&mut self, path: PathBuf, id: FolderId) -> bool {
        let Some(watcher) = self.watcher.as_mut() else { return false };
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.watched.insert(path, id)),
            Err(error) => {
                self.log_failure(&error);
                return false;
            }
        }
        true
    }

    fn log_failure(&mut self, error: &notify::Error) {
        if !self.is_logged {
            let folder = self.root.display();
            tracing::warn!(
                "{folder} cannot be watched completely; reading it every {:?} instead: {error}",
                super::RESYNC_INTERVAL
            );
        }
        self.is_logged = true;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::controller::folder::walk::walk;

    /// Long enough for a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_folder_that_is_made_again_and_one_that_is_new_send_events() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("manifests");
        let (changed, mut changes) = mpsc::channel(1);
        let mut watch = Watch::new(&root, changed);
        // The watch of the parent reports the new folder.
        assert!(watch.follow(&walk(&root).folders));
        for _ in 0..3 {
            fs::create_dir_all(root.join("sub")).unwrap();
            timeout(PATIENCE, changes.recv()).await.unwrap().unwrap();
            assert!(watch.follow(&walk(&root).folders), "it is another folder");
            while watch.follow(&walk(&root).folders) {}
            for file in ["a.yaml", "sub/a.yaml"] {
                // Remove the pending events.
                while timeout(Duration::from_millis(100), changes.recv()).await.is_ok() {}
                fs::write(root.join(file), "").unwrap();
                timeout(PATIENCE, changes.recv()).await.unwrap().unwrap();
            }
            fs::remove_dir_all(&root).unwrap();
            timeout(PATIENCE, changes.recv()).await.unwrap().unwrap();
            watch.follow(&walk(&root).folders);
        }
    }
}
