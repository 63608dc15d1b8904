//! Scans a folder: its manifests, which of them have changed, and their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use crate::controller::manifest::text::decode;
use crate::controller::manifest::yaml::{MAX_TEXT, too_large};

use super::walk::{Tree, walk};

/// The metadata by which a changed file is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// `None` if the file must be read again although it looks the same.
    modified: Option<(i64, i64)>,
    changed: (i64, i64),
}

/// The result of scanning one file.
#[derive(Debug)]
pub enum Seen {
    /// The file has not changed.
    Same,
    /// The file is being written. Its previous content stays at least for this time.
    Unsettled(Duration),
    /// The file was read.
    Read(Reading),
}

/// The content of a file.
#[derive(Debug)]
pub struct Reading {
    /// `None` if the state of the file is not known.
    pub stamp: Option<Stamp>,
    /// The text, or why it cannot be read.
    pub text: Result<String, String>,
    /// How long its writer may still be between two writes.
    pub unsettled_for: Option<Duration>,
}

impl From<Result<String, String>> for Reading {
    /// Creates a reading of a file that nobody is writing.
    fn from(text: Result<String, String>) -> Self {
        Self { stamp: None, text, unsettled_for: None }
    }
}

/// How to handle a file that was written very recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecentWrites {
    /// Leave it for the next scan, because its writer may be between two writes.
    Wait,
    /// Read it now.
    Read,
}

/// The manifests in a folder, by path, or a single file.
#[derive(Debug, Default)]
pub struct Scan {
    /// All manifests.
    pub files: BTreeMap<PathBuf, Seen>,
    /// Folders that cannot be read completely, each with a message.
    pub unreadable: BTreeMap<PathBuf, String>,
    /// The old path of each file that was renamed, by the new path.
    pub renamed: BTreeMap<PathBuf, PathBuf>,
}

/// Scans everything below `root`, and reads the files that have changed.
#[must_use]
pub fn scan(root: &Path, known: &BTreeMap<PathBuf, Stamp>, recent_writes: RecentWrites) -> Scan {
    if root.is_file() {
        let seen = scan_file(root, known.get(root), recent_writes);
        return Scan { files: BTreeMap::from([(root.to_owned(), seen)]), ..Scan::default() };
    }
    read_tree(walk(root), known, recent_writes)
}

/// Reads the files that have changed.
pub(super) fn read_tree(tree: Tree, known: &BTreeMap<PathBuf, Stamp>, recent_writes: RecentWrites) -> Scan {
    let renamed = renamed(&tree.files, known);
    let seen = |path: PathBuf| {
        let before = renamed.get(&path).unwrap_or(&path);
        let seen = scan_file(&path, known.get(before), recent_writes);
        (path, seen)
    };
    let with_message = |(path, why)| {
        (path, format!("cannot read the folder completely; keeping its previous content: {why}"))
    };
    Scan {
        files: tree.files.into_iter().map(seen).collect(),
        unreadable: tree.unreadable.into_iter().map(with_message).collect(),
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
    /// Returns when a file must be scanned again, if one must.
    #[must_use]
    pub fn settles_in(&self) -> Option<Duration> {
        let wait = |seen: &Seen| if let Seen::Unsettled(wait) = seen { Some(*wait) } else { None };
        self.files.values().filter_map(wait).min()
    }
}

fn scan_file(path: &Path, known: Option<&Stamp>, recent_writes: RecentWrites) -> Seen {
    let unread = |why: String| Seen::Read(Reading::from(Err(why)));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return unread(error.to_string()),
    };
    if !metadata.is_file() {
        // To open a pipe would block until it has a writer.
        return unread("it is not a regular file".to_owned());
    }
    let stamp = Stamp::new(&metadata);
    if known == Some(&stamp) {
        return Seen::Same;
    }
    let age = age(&metadata);
    let remains = |wait: Duration| {
        age.and_then(|age| wait.checked_sub(age)).filter(|_| recent_writes == RecentWrites::Wait)
    };
    if let Some(wait) = remains(minimum_age(&metadata, known)) {
        return Seen::Unsettled(wait);
    }
    // A file that was written very recently can change again without a change of its stamp.
    let is_settled = age.is_some_and(|age| age > SETTLED);
    // A file that has replaced another one is complete.
    let is_new = known.is_some_and(|known| (known.device, known.inode) != (stamp.device, stamp.inode));
    let unsettled_for = remains(HALF_WRITTEN).filter(|_| !is_new);
    let text = read(path).map_err(|error| error.to_string());
    let stamp = if is_settled { stamp } else { stamp.outdated() };
    Seen::Read(Reading { stamp: Some(stamp), text, unsettled_for })
}

/// Returns the minimum age of the last write. If a file had content and is empty now, its writer has probably truncated
/// it and not written yet.
fn minimum_age(metadata: &Metadata, known: Option<&Stamp>) -> Duration {
    if metadata.size() == 0 && known.is_some_and(|known| known.size > 0) { EMPTIED } else { SETTLED }
}

/// Reads a text file.
///
/// # Errors
///
/// Fails if the file cannot be read, is larger than `MAX_TEXT`, or is not text.
pub fn read(path: &Path) -> io::Result<String> {
    // Some files of /proc look like files, and a read waits for content that may never come.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > MAX_TEXT {
        return Err(io::Error::other(too_large(size)));
    }
    // The file may have grown in the meantime.
    read_stream(file)
}

/// Reads text from a source without a size, such as a pipe.
///
/// # Errors
///
/// Fails if the source cannot be read, is too large, or is not text.
pub fn read_stream(stream: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    // The parser refuses a text of this size.
    stream.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    decode(bytes).map_err(io::Error::other)
}

/// Returns the time since the last write. It is zero if a file server's clock is ahead of ours, and `None` if the time is
/// further in the future.
fn age(metadata: &Metadata) -> Option<Duration> {
    match SystemTime::now().duration_since(metadata.modified().ok()?) {
        Ok(age) => Some(age),
        Err(error) => (error.duration() <= CLOCK_SKEW).then_some(Duration::ZERO),
    }
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

/// A write is complete after this time. It is longer than the resolution of any file system's timestamps.
const SETTLED: Duration = Duration::from_millis(30);
/// How far a file server's clock may be ahead of ours. Until ours has caught up, the file counts as just written.
const CLOCK_SKEW: Duration = Duration::from_secs(10);
/// A writer in place may pause for this time between two writes. During it, a file that lacks something, is empty, or
/// ends within a line keeps its previous content.
const HALF_WRITTEN: Duration = Duration::from_secs(2);
/// A file that is empty now keeps its previous content for this time: on a busy disk, its writer may need seconds
/// between truncating and writing.
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
        let first = scan(folder.path(), &BTreeMap::new(), RecentWrites::Read);
        let Seen::Read(Reading { stamp: Some(stamp), text: Ok(text), .. }) = &first.files[&path] else {
            panic!("{first:?}")
        };
        assert_eq!(text, "a: 1");
        let known = BTreeMap::from([(path.clone(), stamp.clone())]);
        assert!(matches!(scan(folder.path(), &known, RecentWrites::Read).files[&path], Seen::Same));
        fs::write(&path, "a: 2").unwrap();
        assert!(matches!(scan(folder.path(), &known, RecentWrites::Read).files[&path], Seen::Read(..)));
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
            |known: &BTreeMap<_, _>| scan(folder.path(), known, RecentWrites::Wait).settles_in().is_some();
        written("a: 1", Duration::ZERO);
        assert!(unsettled(&BTreeMap::new()));
        assert!(scan(folder.path(), &BTreeMap::new(), RecentWrites::Read).settles_in().is_none());
        let ahead = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        for (seconds, is_unsettled) in [(5, true), (3600, false)] {
            fs::File::open(&path).unwrap().set_modified(ahead(seconds)).unwrap();
            assert_eq!(unsettled(&BTreeMap::new()), is_unsettled, "written {seconds} s in the future");
        }
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
        assert!(scan(folder.path(), &known, RecentWrites::Wait).renamed.is_empty(), "the old path is there");
        fs::remove_file(&old).unwrap();
        let seen = scan(folder.path(), &known, RecentWrites::Wait);
        assert_eq!(seen.renamed, BTreeMap::from([(new.clone(), old.clone())]));
        assert!(seen.settles_in().is_some_and(|wait| wait > SETTLED), "truncated, and not written yet");
        let kept = fs::File::open(&new).unwrap();
        fs::remove_file(&new).unwrap();
        fs::write(&new, "b: 1").unwrap();
        assert!(scan(folder.path(), &known, RecentWrites::Wait).renamed.is_empty());
        drop(kept);
    }

    #[test]
    fn opens_only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), RecentWrites::Read);
        assert!(
            matches!(&scan.files[&path], Seen::Read(Reading { text: Err(why), .. }) if why.contains("regular")),
            "{scan:?}"
        );
    }

    #[test]
    fn waits_for_files_written_in_place_and_not_for_replaced_ones() {
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
        let doubts = |recent_writes| match scan(folder.path(), &known, recent_writes).files.remove(&path) {
            Some(Seen::Read(reading)) => reading.unsettled_for.is_some(),
            other => panic!("{other:?}"),
        };
        write(&path, "a: 2\n# more\n");
        assert!(doubts(RecentWrites::Wait) && !doubts(RecentWrites::Read));
        write(&folder.path().join("new"), "a: 3\n");
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(!doubts(RecentWrites::Wait));
    }

    #[test]
    fn a_file_whose_content_does_not_come_is_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RWXU).unwrap();
        let _writer = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::File::create(&path).unwrap().set_len(MAX_TEXT as u64 + 1).unwrap();
        let scan = scan(folder.path(), &BTreeMap::new(), RecentWrites::Read);
        assert!(
            matches!(&scan.files[&path], Seen::Read(Reading { text: Err(why), .. }) if why.contains("3 MiB")),
            "{scan:?}"
        );
    }
}
