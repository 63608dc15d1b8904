//! `-f`: reads files, folders, patterns and standard input like the folder source, and renders them once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use crate::api;
use crate::controller::folder::scan::{Reading, RecentWrites, Scan, Seen, read_stream, scan};
use crate::controller::folder::{Loaded, Store};
use crate::controller::index::Index;
use crate::controller::render::{Completeness, Environment, Locality, Renderer};
use crate::controller::validate::Validator;
use crate::words::shown;

/// The manifests to read.
#[derive(Debug, Args)]
pub struct Files {
    /// Files, folders or patterns in quotes ("mail/*.yaml") with manifests, or - for standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub paths: Vec<PathBuf>,
    /// Read MailServers of this class.
    #[arg(long, value_name = "NAME", default_value = api::DEFAULT_CLASS, env = "MAILGRESS_CLASS")]
    pub class: String,
}

/// The manifests and their rendering.
#[derive(Debug)]
pub struct Input {
    /// The objects.
    pub loaded: Loaded,
    /// The result of rendering them.
    pub renderer: Renderer,
    /// The texts of sources that cannot be read twice: standard input and pipes.
    pub streams: BTreeMap<PathBuf, String>,
}

impl Files {
    /// Reads and renders the manifests, as if there were no other objects.
    ///
    /// # Errors
    ///
    /// Fails if a path does not exist or standard input cannot be read.
    pub fn render(&self) -> anyhow::Result<(Loaded, Renderer)> {
        let Input { loaded, renderer, .. } = self.read(Completeness::Whole)?;
        Ok((loaded, renderer))
    }

    /// Reads and renders the manifests.
    ///
    /// # Errors
    ///
    /// Fails if a path does not exist or standard input cannot be read.
    pub fn read(&self, completeness: Completeness) -> anyhow::Result<Input> {
        let validator = Validator::new()?;
        let mut found = Found::default();
        for path in &self.paths {
            found.add(path)?;
        }
        let mut store = Store::default();
        store.apply(found.scan, &validator);
        let loaded = store.load();
        let environment = Environment {
            class: self.class.clone(),
            hostname: crate::app::hostname(),
            now: jiff::Timestamp::now().as_second(),
            locality: Locality::default(),
            trusted_peers: Vec::new(),
            completeness,
            lacks_replicas: false,
        };
        let (mut index, mut renderer) = (Index::default(), Renderer::default());
        index.replace(&loaded.objects);
        renderer.render(&mut index, &environment);
        Ok(Input { loaded, renderer, streams: found.streams })
    }
}

/// The files and streams, each once.
#[derive(Default)]
struct Found {
    scan: Scan,
    streams: BTreeMap<PathBuf, String>,
    files: BTreeSet<PathBuf>,
}

impl Found {
    fn add(&mut self, path: &Path) -> anyhow::Result<()> {
        if path == Path::new(STDIN) {
            self.add_stream(Path::new(STDIN_SHOWN), io::stdin().lock());
            return Ok(());
        }
        if let Ok(metadata) = fs::metadata(path) {
            let kind = metadata.file_type();
            if kind.is_fifo() || kind.is_char_device() {
                self.add_stream(path, fs::File::open(path)?);
            } else {
                self.add_tree(path);
            }
            return Ok(());
        }
        let pattern = path.to_string_lossy();
        if !pattern.contains(['*', '?', '[']) {
            bail!("{}: there is no such file or folder", shown(path));
        }
        let matches = glob::glob(&pattern)?.flatten().filter(|path| path.is_dir() || is_manifest(path));
        let matches: Vec<PathBuf> = matches.collect();
        if matches.is_empty() {
            bail!("{}: no folder and no .yaml, .yml or .json file matches", shown(path));
        }
        matches.iter().for_each(|path| self.add_tree(path));
        Ok(())
    }

    fn add_tree(&mut self, path: &Path) {
        let Scan { files, unreadable, .. } = scan(path, &BTreeMap::new(), RecentWrites::Read);
        for (path, seen) in files {
            if self.files.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                self.scan.files.insert(path, seen);
            }
        }
        self.scan.unreadable.extend(unreadable);
    }

    fn add_stream(&mut self, shown: &Path, stream: impl io::Read) {
        if self.scan.files.contains_key(shown) {
            return;
        }
        let text = read_stream(stream).map_err(|error| error.to_string());
        if let Ok(text) = &text {
            self.streams.insert(shown.to_owned(), text.clone());
        }
        self.scan.files.insert(shown.to_owned(), Seen::Read(Reading::from(text)));
    }
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

/// The name of standard input on the command line.
pub const STDIN: &str = "-";
/// The name of standard input in messages.
pub const STDIN_SHOWN: &str = "<stdin>";
