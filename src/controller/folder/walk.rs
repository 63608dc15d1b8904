//! Finds the folders and manifests below a folder. Links to folders are followed within bounds, and each folder is read
//! once. A link to the folder itself or to `/` is reported and not followed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Identifies a folder, and distinguishes it from an earlier one with the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FolderId {
    device: u64,
    inode: u64,
    /// Inode numbers are used again. Not every file system has this time.
    created: Option<SystemTime>,
}

impl FolderId {
    /// Returns the identity of a folder, after links; `None` if it is not a folder.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().filter(Metadata::is_dir).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), created: metadata.created().ok() }
    }
}

/// The result of a walk.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
    /// Folders that cannot be read completely, and why.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
}

/// Walks everything below `root`.
pub(super) fn walk(root: &Path) -> Tree {
    let mut walker = Walker { ancestors: ancestors(root), ..Walker::default() };
    walker.branch(root, 0, MAX_ENTRIES);
    // The target of a link may have more links.
    while let Some((link, depth)) = walker.links.pop_first() {
        walker.follow(&link, depth);
    }
    walker.tree
}

#[derive(Default)]
struct Walker {
    tree: Tree,
    /// The ancestors of the root, and the root itself.
    ancestors: HashSet<FolderId>,
    seen: HashSet<FolderId>,
    /// Links to folders, with their depth. They are followed after all real folders.
    links: BTreeMap<PathBuf, usize>,
    followed: usize,
}

impl Walker {
    fn follow(&mut self, link: &Path, depth: usize) {
        let Some(target) = FolderId::of(link) else { return };
        let refused = if self.ancestors.contains(&target) || self.seen.contains(&target) {
            "this link points to a folder that is already read, or to one of its parents; remove the link"
                .to_owned()
        } else if self.followed >= MAX_LINKS {
            format!("more than {MAX_LINKS} links to folders")
        } else {
            self.followed = self.followed.saturating_add(1);
            self.branch(link, depth, MAX_LINKED_ENTRIES);
            return;
        };
        self.tree.unreadable.insert(link.to_owned(), refused);
    }

    /// Reads a folder and the real folders below it.
    fn branch(&mut self, top: &Path, depth: usize, max_entries: usize) {
        let mut open = vec![(top.to_owned(), depth)];
        let mut entries = 0_usize;
        while let Some((folder, depth)) = open.pop() {
            let Some(id) = FolderId::of(&folder) else {
                self.tree.unreadable.insert(folder, "there is no such folder".to_owned());
                continue;
            };
            self.seen.insert(id);
            let listed = match fs::read_dir(&folder) {
                Ok(listed) => listed,
                Err(error) => {
                    self.tree.unreadable.insert(folder, error.to_string());
                    continue;
                }
            };
            self.tree.folders.insert(folder, id);
            for entry in listed.flatten() {
                entries = entries.saturating_add(1);
                if entries > max_entries
                    || self.tree.files.len() >= MAX_FILES
                    || self.tree.folders.len() >= MAX_FOLDERS
                {
                    self.stop_at_limit(top, max_entries);
                    return;
                }
                let Ok(kind) = entry.file_type() else { continue };
                self.entry(entry.path(), kind, depth, &mut open);
            }
        }
    }

    fn entry(&mut self, path: PathBuf, kind: FileType, depth: usize, open: &mut Vec<(PathBuf, usize)>) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        if is_temporary(name) {
            return;
        }
        let is_folder = kind.is_dir() || (kind.is_symlink() && path.is_dir());
        if !is_folder {
            if is_manifest(&path) {
                self.tree.files.insert(path);
            }
        } else if depth >= MAX_DEPTH {
            self.tree.unreadable.insert(path, format!("more than {MAX_DEPTH} folders deep"));
        } else if kind.is_symlink() {
            self.links.insert(path, depth.saturating_add(1));
        } else {
            open.push((path, depth.saturating_add(1)));
        }
    }

    /// Leaves the folder `top` at a limit. For the target of a link, everything below it is removed: the part that was
    /// read would be different each time.
    fn stop_at_limit(&mut self, top: &Path, max_entries: usize) {
        if max_entries == MAX_LINKED_ENTRIES {
            self.tree.files.retain(|path| !path.starts_with(top));
            self.tree.folders.retain(|path, _| !path.starts_with(top));
            self.links.retain(|path, _| !path.starts_with(top));
        }
        let why =
            format!("more than {max_entries} entries, {MAX_FILES} files or {MAX_FOLDERS} folders below it");
        self.tree.unreadable.insert(top.to_owned(), why);
    }
}

/// Returns the ancestors of `root`, and `root` itself.
fn ancestors(root: &Path) -> HashSet<FolderId> {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    root.ancestors().filter_map(FolderId::of).collect()
}

/// Tells whether a file belongs to an editor or a volume. `..data` of a volume and its targets are hidden; the links
/// beside them are read.
fn is_temporary(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || name.ends_with(".swp")
        || name.ends_with(".tmp")
        || (name.starts_with('#') && name.ends_with('#'))
        || name == "4913"
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

/// The maximum depth of folders.
const MAX_DEPTH: usize = 16;
/// The maximum number of files.
const MAX_FILES: usize = 10_000;
/// The maximum number of folders. Each of them needs an inotify watch.
const MAX_FOLDERS: usize = 2_000;
/// The maximum number of directory entries below the root, including other files.
const MAX_ENTRIES: usize = 50_000;
/// The same below the target of a link.
const MAX_LINKED_ENTRIES: usize = 5_000;
/// The maximum number of links to folders that are followed.
const MAX_LINKS: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(tree: &Tree, root: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        tree.files.iter().map(name).collect()
    }

    #[test]
    fn ignores_what_editors_and_volumes_leave() {
        for name in [".a.yaml.swp", "..data", "a.yaml~", "#a.yaml#", "4913", ".a.yaml", "a.swp"] {
            assert!(is_temporary(name), "{name}");
        }
        assert!(!is_temporary("a.yaml"));
        assert!(is_manifest(Path::new("a.yml")) && !is_manifest(Path::new("a.txt")));
    }

    #[test]
    fn links_to_itself_and_to_the_root_end_there_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        for name in ["a.yaml", "sub/b.yaml", "z.yaml"] {
            fs::write(path(name), "").unwrap();
        }
        symlink(".", path("loop")).unwrap();
        symlink("/", path("root")).unwrap();
        symlink("..", path("sub/up")).unwrap();
        symlink("../sub", path("sub/again")).unwrap();
        symlink("self", path("self")).unwrap();
        symlink("self.yaml", path("self.yaml")).unwrap();
        let tree = walk(folder.path());
        assert_eq!(names(&tree, folder.path()), ["a.yaml", "self.yaml", "sub/b.yaml", "z.yaml"]);
        let told: Vec<&PathBuf> = tree.unreadable.keys().collect();
        assert_eq!(told, [&path("loop"), &path("root"), &path("sub/again"), &path("sub/up")]);
        assert!(tree.unreadable.values().all(|why| why.contains("already read")), "{tree:?}");
        assert_eq!(tree.folders.len(), 2);
    }

    #[test]
    fn a_link_to_a_large_folder_is_reported_and_the_rest_is_read() {
        let (folder, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..=MAX_LINKED_ENTRIES {
            fs::write(large.path().join(format!("{n}.yaml")), "").unwrap();
        }
        fs::write(folder.path().join("z.yaml"), "").unwrap();
        symlink(large.path(), folder.path().join("large")).unwrap();
        let tree = walk(folder.path());
        assert_eq!(names(&tree, folder.path()), ["z.yaml"]);
        assert!(tree.unreadable[&folder.path().join("large")].contains("more than 5000 entries"), "{tree:?}");
    }

    #[test]
    fn the_links_of_a_volume_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("..1/sub")).unwrap();
        fs::write(path("..1/a.yaml"), "").unwrap();
        fs::write(path("..1/sub/b.yaml"), "").unwrap();
        symlink("..1", path("..data")).unwrap();
        symlink("..data/a.yaml", path("a.yaml")).unwrap();
        symlink("..data/sub", path("sub")).unwrap();
        let tree = walk(folder.path());
        assert_eq!(names(&tree, folder.path()), ["a.yaml", "sub/b.yaml"]);
        assert!(tree.unreadable.is_empty() && tree.folders.contains_key(&path("sub")), "{tree:?}");
    }

    #[test]
    fn folders_that_are_too_deep_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let deep: PathBuf = folder.path().join(["d"; MAX_DEPTH + 1].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.parent().unwrap().join("a.yaml"), "").unwrap();
        let tree = walk(folder.path());
        assert_eq!(tree.files.len(), 1);
        assert_eq!(tree.unreadable[&deep], "more than 16 folders deep");
    }
}
