//! What is in a folder now: which files are manifests, which of them changed, and their text.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The state of a file by which a change is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// One file, as seen.
#[derive(Debug)]
pub enum Seen {
    /// As before.
    Same,
    /// It is being written: what it held counts until it has settled.
    Unsettled,
    /// Read again; without a stamp it is to be read at the next scan, too.
    Read(Option<Stamp>, Result<String, String>),
}

/// What a scan does with a file that was written only just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Leaves it for the next scan: its writer may be between two writes.
    Wait,
    /// Reads it as it is.
    Read,
}

/// The manifests in a folder, or one file, by path. Folders that cannot be read are in `unreadable`.
#[derive(Debug, Default)]
pub struct Scan {
    /// All files that count.
    pub files: BTreeMap<PathBuf, Seen>,
    /// Folders whose content is not known, and why.
    pub unreadable: BTreeMap<PathBuf, String>,
}

/// Looks at everything below `root`, and reads what is not as it was.
#[must_use]
pub fn scan(root: &Path, known: &BTreeMap<PathBuf, Stamp>, patience: Patience) -> Scan {
    let mut scan = Scan::default();
    if root.is_file() {
        scan.files.insert(root.to_owned(), look(root, known.get(root), patience));
    } else {
        folder(root, MAX_DEPTH, (known, patience), &mut scan);
    }
    scan
}

impl Scan {
    /// Whether a file has to be looked at again soon.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.files.values().any(|seen| matches!(seen, Seen::Unsettled))
    }
}

/// Editors' and volumes' own files. `..data` and its targets are among the hidden ones: the links beside
/// them are what counts.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || name.ends_with(".swp")
        || name.ends_with(".tmp")
        || (name.starts_with('#') && name.ends_with('#'))
        || name == "4913"
}

fn folder(path: &Path, depth: usize, known: (&BTreeMap<PathBuf, Stamp>, Patience), scan: &mut Scan) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            scan.unreadable.insert(path.to_owned(), error.to_string());
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if is_temporary(name) {
            continue;
        }
        // `is_dir` follows links: a volume's subfolder is one.
        if path.is_dir() {
            match depth.checked_sub(1) {
                Some(depth) => folder(&path, depth, known, scan),
                None => {
                    scan.unreadable.insert(path, format!("more than {MAX_DEPTH} folders deep"));
                }
            }
        } else if is_manifest(&path) {
            if scan.files.len() >= MAX_FILES {
                scan.unreadable.insert(path, format!("more than {MAX_FILES} files"));
                return;
            }
            let seen = look(&path, known.0.get(&path), known.1);
            scan.files.insert(path, seen);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

fn look(path: &Path, known: Option<&Stamp>, patience: Patience) -> Seen {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Seen::Read(None, Err(error.to_string())),
    };
    if !metadata.is_file() {
        // Opening a pipe would wait for its other end.
        return Seen::Read(None, Err("it is not a regular file".to_owned()));
    }
    let stamp = Stamp::new(&metadata);
    if known == Some(&stamp) {
        return Seen::Same;
    }
    let age = age(&metadata);
    if patience == Patience::Wait && age.is_some_and(|age| age <= patience_with(&metadata, known)) {
        return Seen::Unsettled;
    }
    // A file that was written just now may be written again without its stamp changing.
    let is_settled = age.is_some_and(|age| age > SETTLED);
    Seen::Read(is_settled.then_some(stamp), read(path).map_err(|error| error.to_string()))
}

/// How old a write must be. A file that held something and is empty now was most likely truncated by a
/// writer that has not written yet.
fn patience_with(metadata: &Metadata, known: Option<&Stamp>) -> Duration {
    if metadata.size() == 0 && known.is_some_and(|known| known.size > 0) { EMPTIED } else { SETTLED }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// How long ago the file was written; `None` when its time lies in the future.
fn age(metadata: &Metadata) -> Option<Duration> {
    metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok())
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// How deep folders may be nested; also ends loops of links.
const MAX_DEPTH: usize = 16;
/// How many files are read.
const MAX_FILES: usize = 10_000;
/// How large a file may be, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// A write so long ago is over; also longer than the tick of any file system's clock.
const SETTLED: Duration = Duration::from_millis(30);
/// An emptied file that stays so for so long is meant to be empty.
const EMPTIED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_what_editors_and_volumes_leave() {
        for name in [".a.yaml.swp", "..data", "a.yaml~", "#a.yaml#", "4913", ".a.yaml", "a.swp"] {
            assert!(is_temporary(name), "{name}");
        }
        assert!(!is_temporary("a.yaml"));
        assert!(is_manifest(Path::new("a.yml")) && !is_manifest(Path::new("a.txt")));
    }

    #[test]
    fn reads_only_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, "a: 1").unwrap();
        std::thread::sleep(Duration::from_millis(60));
        let first = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        let Seen::Read(Some(stamp), Ok(text)) = &first.files[&path] else { panic!("{first:?}") };
        assert_eq!(text, "a: 1");
        let known = BTreeMap::from([(path.clone(), stamp.clone())]);
        assert!(matches!(scan(folder.path(), &known, Patience::Read).files[&path], Seen::Same));
        fs::write(&path, "a: 2").unwrap();
        assert!(matches!(scan(folder.path(), &known, Patience::Read).files[&path], Seen::Read(..)));
    }

    #[test]
    fn leaves_a_file_alone_while_it_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let written = |size: &str, age: Duration| {
            fs::write(&path, size).unwrap();
            fs::File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        };
        let unsettled = |known: &BTreeMap<_, _>| scan(folder.path(), known, Patience::Wait).is_unsettled();
        written("a: 1", Duration::ZERO);
        assert!(unsettled(&BTreeMap::new()));
        assert!(!scan(folder.path(), &BTreeMap::new(), Patience::Read).is_unsettled());
        written("a: 1", Duration::from_secs(10));
        assert!(!unsettled(&BTreeMap::new()));
        let known = BTreeMap::from([(path.clone(), Stamp::new(&fs::metadata(&path).unwrap()))]);
        written("", Duration::from_millis(500));
        assert!(unsettled(&known), "truncated, and not written yet");
        assert!(!unsettled(&BTreeMap::new()), "it held nothing before");
        written("", Duration::from_secs(10));
        assert!(!unsettled(&known), "it stays empty");
    }

    #[test]
    fn does_not_open_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        assert!(
            matches!(&scan.files[&path], Seen::Read(None, Err(why)) if why.contains("regular")),
            "{scan:?}"
        );
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        fs::write(folder.path().join("a.yaml"), "").unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        assert!(scan.files.contains_key(&folder.path().join("a.yaml")) && !scan.unreadable.is_empty());
    }
}
