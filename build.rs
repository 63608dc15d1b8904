//! Adds the commit and its date to `mailgress --version`.
//!
//! Nothing depends on the clock or the machine, so that the same source produces the same binary. Without a repository
//! (in a tarball or an image's build), `MAILGRESS_COMMIT` has the commit; otherwise it is unknown.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=MAILGRESS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let said = env::var("MAILGRESS_COMMIT").ok().map(short);
    let commit = said.or_else(of_repository).filter(|commit| !commit.is_empty());
    // Without the date, for the metric of the build.
    let name = commit.as_deref().and_then(|commit| commit.split(' ').next()).unwrap_or("unknown");
    println!("cargo::rustc-env=MAILGRESS_BUILD_COMMIT={name}");
    let suffix = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo::rustc-env=MAILGRESS_VERSION={version}{suffix}");
}

/// Shortens a full commit name for people, to the length that `of_repository` uses.
fn short(commit: String) -> String {
    let is_whole = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_whole { commit.chars().take(12).collect() } else { commit }
}

/// Returns the commit of this package's repository. A repository that contains this package is ignored.
fn of_repository() -> Option<String> {
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // git writes these files when HEAD changes.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["show", "--no-patch", "--abbrev=12", "--format=%h %cs", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
