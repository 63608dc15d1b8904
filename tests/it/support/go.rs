//! Builds programs from Go modules into `target/`, once, and again if the source changes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Go module in a folder below `tests/`, and the programs to build from it.
pub struct Module<'a> {
    /// Below `tests/`.
    pub source: &'a str,
    /// The folder below `target/` for the programs.
    pub target: &'a str,
    /// Files whose content identifies the version of the source.
    pub files: &'a [&'a str],
    /// The package for `go build`: `.`, or `tool` for all tools of the module.
    pub package: &'a str,
    /// Linker flags, in addition to those that reduce the size.
    pub link: &'a [String],
    /// A message for a person who waits.
    pub notice: &'a str,
}

impl Module<'_> {
    /// Builds if needed and returns the folder with the programs. The error says why Go cannot be used. A failed build
    /// fails the test.
    pub fn build(&self) -> Result<PathBuf, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (source, target) = (root.join("tests").join(self.source), root.join("target").join(self.target));
        let stamp = target.join("stamp");
        let read = |name: &&str| std::fs::read_to_string(source.join(name)).unwrap();
        let wanted = self.files.iter().map(read).chain(self.link.iter().cloned()).collect::<String>();
        let is_built = || std::fs::read_to_string(&stamp).is_ok_and(|built| built == wanted);
        if is_built() {
            return Ok(target);
        }
        check_go()?;
        std::fs::create_dir_all(root.join("target")).unwrap();
        // Other tests, also in other processes, may need the same programs: one builds, and the others wait.
        let lock = std::fs::File::create(root.join(format!("target/{}.lock", self.target))).unwrap();
        lock.lock().unwrap();
        if is_built() {
            return Ok(target);
        }
        // Print to the terminal even if the test passes.
        let _ = writeln!(std::io::stderr(), "{}", self.notice);
        let new = root.join(format!("target/{}.{}", self.target, std::process::id()));
        std::fs::create_dir_all(&new).unwrap();
        let link = ["-s", "-w"].into_iter().chain(self.link.iter().map(String::as_str)).collect::<Vec<_>>();
        let mut command = Command::new("go");
        command.current_dir(&source).args(["build", "-trimpath", "-buildvcs=false", "-ldflags"]);
        command.arg(link.join(" ")).arg("-o").arg(format!("{}/", new.display())).arg(self.package);
        if std::env::var_os("GOTOOLCHAIN").is_none() {
            // Some distributions disable the download of a newer version.
            command.env("GOTOOLCHAIN", "auto");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/{} cannot be built:\n{text}", self.source);
        std::fs::write(new.join("stamp"), wanted).unwrap();
        let _ = std::fs::remove_dir_all(&target);
        std::fs::rename(&new, &target).unwrap();
        Ok(target)
    }
}

/// Returns why Go cannot be used. Since 1.21, Go downloads the version that a module needs.
pub fn check_go() -> Result<(), String> {
    let found = Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok();
    let found = found.filter(|output| output.status.success());
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let minor = |version: &str| version.strip_prefix("go1.")?.split('.').next()?.parse::<u32>().ok();
    if found.as_deref().and_then(minor).is_some_and(|minor| minor >= 21) {
        return Ok(());
    }
    let found = found.as_deref().unwrap_or("no Go").to_owned();
    Err(format!(
        "Go 1.21 or newer is needed (https://go.dev/dl) to build what these tests use; found: {found}"
    ))
}
