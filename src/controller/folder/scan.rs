//! What is in a folder now: which files are manifests, which of them changed, and their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::controller::manifest::text::decode;
use crate::controller::manifest::yaml::{MAX_TEXT, too_large};

use super::walk::{Tree, walk};

/// The state of a file by which a change is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// `None` if the file must be read again although it looks the same.
    modified: Option<(i64, i64)>,
    changed: (i64, i64),
}

/// One file, as seen.
#[derive(Debug)]
pub enum Seen {
    /// As before.
    Same,
    /// It is being written: what it held counts for so long at least.
    Unsettled(Duration),
    /// Read again.
    Read(Reading),
}

/// What was read of a file.
#[derive(Debug)]
pub struct Reading {
    /// `None` if the state of the file is not known.
    pub stamp: Option<Stamp>,
    /// The text, or why there is none.
    pub text: Result<String, String>,
    /// For how long its writer may still be between two writes.
    pub doubt: Option<Duration>,
}

impl From<Result<String, String>> for Reading {
    /// A file that nobody is writing.
    fn from(text: Result<String, String>) -> Self {
        Self { stamp: None, text, doubt: None }
    }
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
    /// Folders whose content is not known, with a sentence on each.
    pub unreadable: BTreeMap<PathBuf, String>,
    /// The old path of each file that was renamed, by the new path.
    pub renamed: BTreeMap<PathBuf, PathBuf>,
}

/// Looks at everything below `root`, and reads what is not as it was.
#[must_use]
pub fn scan(root: &Path, known: &BTreeMap<PathBuf, Stamp>, patience: Patience) -> Scan {
    if root.is_file() {
        let seen = look(root, known.get(root), patience);
        return Scan { files: BTreeMap::from([(root.to_owned(), seen)]), ..Scan::default() };
    }
    read_tree(walk(root), known, patience)
}

/// Reads what is not as it was.
pub(super) fn read_tree(tree: Tree, known: &BTreeMap<PathBuf, Stamp>, patience: Patience) -> Scan {
    let renamed = renamed(&tree.files, known);
    let seen = |path: PathBuf| {
        let before = renamed.get(&path).unwrap_or(&path);
        let seen = look(&path, known.get(before), patience);
        (path, seen)
    };
    let told = |(path, why)| (path, format!("cannot read all of it; keeping what it last held: {why}"));
    Scan {
        files: tree.files.into_iter().map(seen).collect(),
        unreadable: tree.unreadable.into_iter().map(told).collect(),
        renamed,
    }
}

/// Finds the files that were known under another path, which is gone. What they held moves with them.
fn renamed(files: &BTreeSet<PathBuf>, known: &BTreeMap<PathBuf, Stamp>) -> BTreeMap<PathBuf, PathBuf> {
    let mut gone: Vec<_> = known.iter().filter(|(path, _)| !files.contains(*path)).collect();
    let mut renamed = BTreeMap::new();
    for path in files.iter().filter(|path| !known.contains_key(*path)) {
        if gone.is_empty() {
            break;
        }
        let Ok(metadata) = fs::metadata(path) else { continue };
        if let Some(index) = gone.iter().position(|(_, stamp)| stamp.is_of(&metadata)) {
            renamed.insert(path.clone(), gone.swap_remove(index).0.clone());
        }
    }
    renamed
}

impl Scan {
    /// When a file has to be looked at again, if one has.
    #[must_use]
    pub fn settles_in(&self) -> Option<Duration> {
        let wait = |seen: &Seen| if let Seen::Unsettled(wait) = seen { Some(*wait) } else { None };
        self.files.values().filter_map(wait).min()
    }
}

fn look(path: &Path, known: Option<&Stamp>, patience: Patience) -> Seen {
    let unread = |why: String| Seen::Read(Reading::from(Err(why)));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return unread(error.to_string()),
    };
    if !metadata.is_file() {
        // Opening a pipe would wait for its other end.
        return unread("it is not a regular file".to_owned());
    }
    let stamp = Stamp::new(&metadata);
    if known == Some(&stamp) {
        return Seen::Same;
    }
    let age = age(&metadata);
    let remains =
        |wait: Duration| age.and_then(|age| wait.checked_sub(age)).filter(|_| patience == Patience::Wait);
    if let Some(wait) = remains(patience_with(&metadata, known)) {
        return Seen::Unsettled(wait);
    }
    // A file that was written just now may be written again without its stamp changing.
    let is_settled = age.is_some_and(|age| age > SETTLED);
    // A file that was put in the place of another one is complete.
    let is_new = known.is_some_and(|known| (known.device, known.inode) != (stamp.device, stamp.inode));
    let doubt = remains(HALF_WRITTEN).filter(|_| !is_new);
    let text = read(path).map_err(|error| error.to_string());
    let stamp = if is_settled { stamp } else { stamp.outdated() };
    Seen::Read(Reading { stamp: Some(stamp), text, doubt })
}

/// How old a write must be. A file that held something and is empty now was most likely truncated by a
/// writer that has not written yet.
fn patience_with(metadata: &Metadata, known: Option<&Stamp>) -> Duration {
    if metadata.size() == 0 && known.is_some_and(|known| known.size > 0) { EMPTIED } else { SETTLED }
}

/// A file's text.
///
/// # Errors
/// When it cannot be read, is larger than a file may be, or is no text.
pub fn read(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > MAX_TEXT {
        return Err(io::Error::other(too_large(size)));
    }
    // It may have grown meanwhile.
    read_stream(file)
}

/// The text of what has no size, such as a pipe.
///
/// # Errors
/// When it cannot be read, is larger than a file may be, or is no text.
pub fn read_stream(stream: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    // The parser refuses what is too large.
    stream.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    decode(bytes).map_err(io::Error::other)
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
            modified: Some((metadata.mtime(), metadata.mtime_nsec())),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Equals no state of a file, so that it is read again. It is still known which file it was and what size it had.
    pub(super) fn outdated(self) -> Self {
        Self { modified: None, ..self }
    }

    /// Tells whether this is the same file, perhaps changed. Inodes are used again: then the file is younger than the
    /// stamp, unless the file system does not know its age.
    fn is_of(&self, metadata: &Metadata) -> bool {
        let created =
            metadata.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let is_younger = created.is_some_and(|created| {
            let created = (created.as_secs().cast_signed(), i64::from(created.subsec_nanos()));
            created > self.changed
        });
        (self.device, self.inode) == (metadata.dev(), metadata.ino()) && !is_younger
    }
}

/// A write so long ago is over; also longer than the tick of any file system's clock.
const SETTLED: Duration = Duration::from_millis(30);
/// A writer in place may pause for so long between two writes. Until then a file that lost something, is empty, or ends
/// in the middle of a line keeps what it held.
const HALF_WRITTEN: Duration = Duration::from_secs(2);
/// A file that is empty now keeps what it held for so long: on a busy disk, its writer may wait for seconds between
/// truncating it and writing to it.
const EMPTIED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, "a: 1").unwrap();
        std::thread::sleep(Duration::from_millis(60));
        let first = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        let Seen::Read(Reading { stamp: Some(stamp), text: Ok(text), .. }) = &first.files[&path] else {
            panic!("{first:?}")
        };
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
        let unsettled =
            |known: &BTreeMap<_, _>| scan(folder.path(), known, Patience::Wait).settles_in().is_some();
        written("a: 1", Duration::ZERO);
        assert!(unsettled(&BTreeMap::new()));
        assert!(scan(folder.path(), &BTreeMap::new(), Patience::Read).settles_in().is_none());
        written("a: 1", Duration::from_secs(10));
        assert!(!unsettled(&BTreeMap::new()));
        let known = BTreeMap::from([(path.clone(), Stamp::new(&fs::metadata(&path).unwrap()))]);
        written("", Duration::from_secs(4));
        assert!(unsettled(&known), "truncated, and not written yet");
        assert!(!unsettled(&BTreeMap::new()), "it held nothing before");
        written("", Duration::from_secs(10));
        assert!(!unsettled(&known), "it stays empty");
    }

    #[test]
    fn a_renamed_file_is_found_under_its_new_path_and_a_new_one_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&old, "a: 1").unwrap();
        let stamp = Stamp::new(&fs::metadata(&old).unwrap());
        let known = BTreeMap::from([(old.clone(), stamp)]);
        fs::write(&old, "").unwrap();
        fs::hard_link(&old, &new).unwrap();
        assert!(scan(folder.path(), &known, Patience::Wait).renamed.is_empty(), "the old path is there");
        fs::remove_file(&old).unwrap();
        let seen = scan(folder.path(), &known, Patience::Wait);
        assert_eq!(seen.renamed, BTreeMap::from([(new.clone(), old.clone())]));
        assert!(seen.settles_in().is_some_and(|wait| wait > SETTLED), "truncated, and not written yet");
        let kept = fs::File::open(&new).unwrap();
        fs::remove_file(&new).unwrap();
        fs::write(&new, "b: 1").unwrap();
        assert!(scan(folder.path(), &known, Patience::Wait).renamed.is_empty());
        drop(kept);
    }

    #[test]
    fn does_not_open_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        assert!(
            matches!(&scan.files[&path], Seen::Read(Reading { text: Err(why), .. }) if why.contains("regular")),
            "{scan:?}"
        );
    }

    #[test]
    fn doubts_what_is_written_in_place_and_not_what_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::File::open(path)
                .unwrap()
                .set_modified(SystemTime::now() - Duration::from_millis(500))
                .unwrap();
        };
        write(&path, "a: 1\n");
        let known = BTreeMap::from([(path.clone(), Stamp::new(&fs::metadata(&path).unwrap()))]);
        let doubts = |patience| match scan(folder.path(), &known, patience).files.remove(&path) {
            Some(Seen::Read(reading)) => reading.doubt.is_some(),
            other => panic!("{other:?}"),
        };
        write(&path, "a: 2\n# more\n");
        assert!(doubts(Patience::Wait) && !doubts(Patience::Read));
        write(&folder.path().join("new"), "a: 3\n");
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(!doubts(Patience::Wait));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::File::create(&path).unwrap().set_len(MAX_TEXT as u64 + 1).unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), Patience::Read);
        assert!(
            matches!(&scan.files[&path], Seen::Read(Reading { text: Err(why), .. }) if why.contains("3 MiB")),
            "{scan:?}"
        );
    }
}
