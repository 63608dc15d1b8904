//! Configurations of nginx for `mailgress import nginx`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mailgress::controller::manifest::Content;
use mailgress::import::{Bundle, Inspected, Source, nginx};

use super::manifests::parsed;

/// Invariants:
/// * the same result each time;
/// * a refusal says why, and names a line of the file;
/// * the manifests are YAML that Mailgress reads again, and valid.
pub(super) fn target(data: &[u8]) {
    let import = || nginx(Path::new("nginx.conf"), None, &Files(data));
    match import() {
        Ok(imported) => {
            let texts: Vec<String> = imported
                .manifests
                .iter()
                .map(|manifest| {
                    let document = manifest.document().expect("a manifest that YAML can represent");
                    serde_yaml::to_string(&document).expect("a manifest that can be written")
                })
                .collect();
            let again = import().expect("the same result");
            assert_eq!(imported.notes, again.notes);
            texts.iter().for_each(|text| check(text));
        }
        Err(refused) => {
            assert!(!refused.problems.is_empty(), "refused without a reason");
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            for problem in &refused.problems {
                let line = usize::try_from(problem.place.line).unwrap_or(usize::MAX);
                assert!((1..=lines).contains(&line), "{problem}");
            }
        }
    }
}

fn check(text: &str) {
    let parsed = parsed(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(parsed.broken.is_empty(), "{:?}: {text}", parsed.broken);
    assert_eq!(parsed.manifests.len(), 1, "{text}");
    for manifest in &parsed.manifests {
        if let Content::Server(server) = &manifest.content {
            assert!(server.spec.is_ok(), "{:?}: {text}", server.spec);
        }
    }
}

/// The configuration, without any other file.
struct Files<'a>(&'a [u8]);

impl Source for Files<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("nginx.conf") => Ok(self.0.to_vec()),
            Some("tls.pem") => Ok(b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    fn resolve(&self, host: &str) -> Vec<IpAddr> {
        if host == "localhost" { vec![[127, 0, 0, 1].into()] } else { Vec::new() }
    }

    fn inspect(&self, _: &str, _: &[u8], _: &[u8]) -> Vec<Inspected> {
        Vec::new()
    }

    fn inspect_bundle(&self, _: Bundle, _: &[u8]) -> Option<String> {
        None
    }
}
