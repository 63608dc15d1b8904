//! `-f`: files and folders, read as the folder source reads them, and rendered once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::api;
use crate::controller::folder::scan::{Patience, Scan, scan};
use crate::controller::folder::{Loaded, Store};
use crate::controller::render::{Environment, LastGood, Locality, Rendered, render};
use crate::controller::validate::Validator;

/// Which manifests.
#[derive(Debug, Args)]
pub struct Files {
    /// Files or folders with manifests; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub paths: Vec<PathBuf>,
    /// The class of the MailServers to look at.
    #[arg(long, value_name = "NAME", default_value = api::DEFAULT_CLASS, env = "MAILGRESS_CLASS")]
    pub class: String,
}

impl Files {
    /// What they hold, and what comes of it.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn render(&self) -> anyhow::Result<(Loaded, Rendered)> {
        let validator = Validator::new()?;
        let mut all = Scan::default();
        for path in &self.paths {
            if !path.exists() {
                bail!("{}: there is no such file or folder", path.display());
            }
            let Scan { files, unreadable } = scan(path, &BTreeMap::new(), Patience::Read);
            all.files.extend(files);
            all.unreadable.extend(unreadable);
        }
        let mut store = Store::default();
        store.apply(all, &validator);
        let loaded = store.load();
        let environment = Environment {
            class: self.class.clone(),
            hostname: hostname::get()?.to_string_lossy().into_owned(),
            now: jiff::Timestamp::now().as_second(),
            locality: Locality::default(),
            trusted_peers: Vec::new(),
        };
        let rendered = render(&loaded.objects, &LastGood::default(), &environment);
        Ok((loaded, rendered))
    }
}
