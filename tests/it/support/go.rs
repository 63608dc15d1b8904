//! Programs that come as Go modules: built once from a folder with a go.mod, into `target/`, and again when that changes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder below `tests/` that holds a Go module, and what is built from it.
pub struct Module<'a> {
    /// Below `tests/`.
    pub source: &'a str,
    /// The folder below `target/` that the programs go to.
    pub target: &'a str,
    /// What tells one state of the source from another.
    pub files: &'a [&'a str],
    /// What `go build` is asked for: `.`, or `tool` for all tools of the module.
    pub package: &'a str,
    /// For the linker, beside what makes programs small.
    pub link: &'a [String],
    /// For a person who waits.
    pub notice: &'a str,
}

impl Module<'_> {
    /// The folder with the programs; or why there can be none here. A build that fails is a failure of the tests.
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
        // Other tests, of this process or of another, may want the same: one builds, the rest wait for it.
        let lock = std::fs::File::create(root.join(format!("target/{}.lock", self.target))).unwrap();
        lock.lock().unwrap();
        if is_built() {
            return Ok(target);
        }
        // To the terminal, also when the test passes.
        let _ = writeln!(std::io::stderr(), "{}", self.notice);
        let new = root.join(format!("target/{}.{}", self.target, std::process::id()));
        std::fs::create_dir_all(&new).unwrap();
        let link = ["-s", "-w"].into_iter().chain(self.link.iter().map(String::as_str)).collect::<Vec<_>>();
        let mut command = Command::new("go");
        command.current_dir(&source).args(["build", "-trimpath", "-buildvcs=false", "-ldflags"]);
        command.arg(link.join(" ")).arg("-o").arg(format!("{}/", new.display())).arg(self.package);
        if std::env::var_os("GOTOOLCHAIN").is_none() {
            // Some distributions keep theirs from getting a newer one.
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

/// Says why Go cannot be used here. Since 1.21, Go gets the version that a module asks for by itself.
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
