//! Runs the fuzz targets with the committed corpora and with the seeds, without a fuzzer. `fuzz/README.md` says how the
//! corpora are made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole crate is a test: to panic is how it fails"
)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

/// One test for each target.
macro_rules! replayed {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        /// The targets that are replayed here.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! {
    imap_client pop3_client smtp_client imap_backend pop3_backend smtp_backend sieve_client
    sieve_backend follow_imap follow_smtp follow_sieve sasl proxy_header auth_answer certificates nginx manifests served users
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(name).into_iter();
    let corpus = corpus.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()));
    let seeds = targets::seeds(name);
    assert!(!seeds.is_empty(), "no seeds for {name}");
    let seeds = seeds.into_iter().enumerate();
    let seeds = seeds.map(|(index, seed)| (format!("seed {index}: {}", seed.escape_ascii()), seed));
    let failed: Vec<String> =
        corpus.chain(seeds).filter(|(_, data)| !holds(target, data)).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "{name} fails with {}", failed.join("\n"));
}

fn holds(target: &Target, data: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_ok()
}

/// Returns the files of a corpus.
fn corpus(name: &str) -> Vec<PathBuf> {
    files(&targets::repository().join("fuzz/corpus").join(name))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stems(folder: &str) -> BTreeSet<String> {
    let files = files(&targets::repository().join("fuzz").join(folder));
    files.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn each_target_is_replayed_and_run_by_libfuzzer() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names, REPLAYED.iter().map(|name| (*name).to_owned()).collect(), "replayed! in tests/fuzz.rs");
    assert_eq!(names, stems("fuzz_targets"), "fuzz/fuzz_targets");
    assert!(stems("corpus").is_subset(&names), "fuzz/corpus");
    let manifest = std::fs::read_to_string(targets::repository().join("fuzz/Cargo.toml")).unwrap();
    let binaries = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let binaries = binaries.map(|rest| rest.trim_end_matches(".rs\"").to_owned()).collect();
    assert_eq!(names, binaries, "fuzz/Cargo.toml");
}

/// Whoever clones the repository gets the corpora too.
#[test]
fn the_corpora_are_small() {
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    let sum: u64 = TARGETS.iter().flat_map(|target| corpus(target.name)).map(|path| size(&path)).sum();
    assert!(sum < 300 * 1024, "{sum} bytes in fuzz/corpus");
}
