//! The images: Mailgress as `make image` builds it, the mail servers from this machine's packages, and the pause image
//! that holds a pod's namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::mail::{DOVECOT, POSTFIX, dovecot_conf};
use crate::node::{PAUSE, succeed};
use crate::steps::say;

/// The pause image: a program that does nothing and holds a pod's namespaces.
pub fn pause() -> PathBuf {
    archive(PAUSE, PAUSE_SOURCE, "USER 65535:65535\nENTRYPOINT [\"/pause\"]\n", |rootfs| {
        std::fs::create_dir(rootfs).unwrap();
        let source = rootfs.with_extension("rs");
        std::fs::write(&source, PAUSE_SOURCE).unwrap();
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["-C", "target-feature=+crt-static", "-C", "strip=symbols", "--target"]);
        rustc.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
        succeed(rustc.arg("-o").arg(rootfs.join("pause")).arg(source));
    })
}

/// Dovecot, Postfix and curl, with a shell to start them.
pub fn mail() -> PathBuf {
    archive(MAIL, &packages(), "ENTRYPOINT [\"/bin/sh\"]\n", from_packages)
}

fn from_packages(rootfs: &Path) {
    succeed(Command::new(root().join("tests/e2e/images/debian.sh")).arg(rootfs).args(PACKAGES));
}

/// Returns the packages and versions that images are created from.
fn packages() -> String {
    let mut versions = Command::new("dpkg-query");
    let versions = succeed(versions.args(["--show"]).args(PACKAGES)).stdout;
    String::from_utf8(versions).unwrap() + include_str!("images/debian.sh")
}

/// Creates an archive below `target/` with the files that `make` writes. It is created once for each `state`.
fn archive(name: &str, state: &str, stage: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = root().join("target/e2e");
    let short = name.rsplit('/').next().unwrap().replace(':', "-");
    let (done, stamp) = (folder.join(format!("{short}.tar")), folder.join(format!("{short}.stamp")));
    if done.exists() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == state) {
        return done;
    }
    std::fs::create_dir_all(&folder).unwrap();
    // Another test run may create the same archive.
    let work = tempfile::tempdir_in(&folder).unwrap();
    let (rootfs, dockerfile) = (work.path().join(&short), work.path().join("Dockerfile"));
    make(&rootfs);
    std::fs::write(&dockerfile, format!("FROM scratch\n{stage}")).unwrap();
    let new = work.path().join("archive.tar");
    succeed(&mut archiver(&rootfs, &dockerfile, name, &new));
    std::fs::rename(new, &done).unwrap();
    std::fs::write(stamp, state).unwrap();
    done
}

/// The tutorial's backend under its name in the registry, with the same ports and account: Postfix and Dovecot in one
/// container.
pub fn greenmail() -> PathBuf {
    let dovecot = dovecot_conf("secret")
        .replace("port = 143\n    haproxy = yes", "port = 3143")
        .replace("%u", "%n")
        .replace("%{user}", "%{user|username}");
    let main = include_str!("mail/main.cf")
        .replace("dovecot.@NAMESPACE@.svc.cluster.local", "127.0.0.1")
        .replace("example.test", "example.com")
        .replace("/dev/stdout", "/var/log/postfix.log");
    let master = include_str!("mail/master.cf").replace("587 inet", "3025 inet");
    // The daemon whose open port shows that both are ready starts last.
    let start = format!("{POSTFIX}\n{DOVECOT}\n").replace("exec postfix start-fg", "postfix start");
    let files = [("dovecot.conf", dovecot), ("main.cf", main), ("master.cf", master), ("start.sh", start)];
    let stage = "ENTRYPOINT [\"/bin/sh\", \"/files/start.sh\"]\n";
    archive(GREENMAIL, &format!("{}{files:?}", packages()), stage, |rootfs| {
        from_packages(rootfs);
        let folder = rootfs.join("files");
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in &files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        std::fs::create_dir_all(rootfs.join("var/log")).unwrap();
    })
}

/// Builds Mailgress's image with this name in this folder, as `make image` does.
pub fn mailgress(name: &str, folder: &Path) -> PathBuf {
    let (_, tag) = name.split_once(':').unwrap();
    let archive = folder.join(format!("mailgress-{tag}.tar"));
    let mut command = archiver(rootfs(), &root().join("Dockerfile"), name, &archive);
    succeed(command.args([&format!("VERSION={tag}"), "REVISION=unknown"]));
    archive
}

/// Returns Mailgress's files, built as in the Dockerfile, with Cargo's profile `dev` or that of
/// `MAILGRESS_E2E_PROFILE`.
pub fn rootfs() -> &'static Path {
    static ROOTFS: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = root().join("target/image");
        std::fs::create_dir_all(&folder).unwrap();
        forget_old(&folder);
        let rootfs = folder.join(format!("rootfs.{}", std::process::id()));
        let profile = std::env::var("MAILGRESS_E2E_PROFILE").unwrap_or_else(|_| "dev".to_owned());
        if !folder.join(".rustc_info.json").exists() {
            let _ = say("building the image's binary; the first time this takes some minutes");
        }
        succeed(Command::new(root().join("deploy/image/rootfs.sh")).arg(&rootfs).env("PROFILE", profile));
        rootfs
    });
    &ROOTFS
}

/// Removes files of ended test runs: at the end of a test process, only what a watcher holds is removed.
fn forget_old(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("rootfs."));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs deploy/image/archive.sh for this machine.
pub fn archiver(rootfs: &Path, dockerfile: &Path, name: &str, archive: &Path) -> Command {
    let mut command = Command::new(root().join("deploy/image/archive.sh"));
    command.arg(rootfs).arg(dockerfile).args([name, ARCHITECTURE]).arg(archive);
    command
}

/// The repository's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The architecture as in images.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// The image with the mail servers.
pub const MAIL: &str = "docker.io/mailgress-e2e/mail:1";
/// The tutorial's backend.
pub const GREENMAIL: &str = "docker.io/greenmail/standalone:2.1.3";
/// Mailgress's image, without the tag.
pub const MAILGRESS: &str = "docker.io/mailgress-e2e/mailgress";
const PAUSE_SOURCE: &str = "fn main() {\n    loop {\n        std::thread::park();\n    }\n}\n";
const PACKAGES: [&str; 11] = [
    "dash",
    "coreutils",
    "sed",
    "grep",
    "findutils",
    "dovecot-core",
    "dovecot-imapd",
    "dovecot-pop3d",
    "dovecot-lmtpd",
    "postfix",
    "curl",
];
