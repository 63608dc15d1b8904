//! Processes that end with the test in any case: a panic, an interrupt, a killed test run.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait;

/// A daemon with child processes and a directory. A shell watches a pipe that only the test process holds open. When it
/// closes, even because the test was killed, the shell ends the daemon and removes the directory.
pub struct Daemon {
    watcher: Child,
    lifeline: Option<ChildStdin>,
}

impl Daemon {
    /// Starts `start` in the background. `stop` is a shell command; if it is empty, the daemon gets SIGTERM.
    pub fn start(name: &str, directory: &Path, start: &[&OsStr], stop: &str, as_root: bool) -> Self {
        let script = format!(
            r#"dir=$1; shift; "$@" </dev/null >"$dir/{name}.out" 2>&1 & pid=$!; cat >/dev/null; {stop}; wait $pid; rm -rf "$dir""#,
            stop = if stop.is_empty() { "kill -TERM $pid" } else { stop }
        );
        let mut command = if as_root && !we_are_root() { root_command("sh") } else { Command::new("sh") };
        let mut watcher = command
            .args(["-c", &script, name])
            .arg(directory)
            .args(start)
            .stdin(Stdio::piped())
            // Ctrl-C goes only to the test process; the watcher notices its end.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { lifeline: watcher.stdin.take(), watcher }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.watcher.wait();
    }
}

/// A single process. It is killed on drop, and by the kernel when the thread that started it ends.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with standard output and error going to `log`.
    pub fn start(program: &OsStr, arguments: &[&OsStr], environment: &[(&str, &str)], log: PathBuf) -> Self {
        let output = File::create(&log).unwrap();
        let outputs = [output.try_clone().unwrap().into(), output.into()];
        Self::start_into(outputs, program, arguments, environment, log)
    }

    /// Starts `program` with this standard output and error. `log` is a file that it may write to.
    pub fn start_into(
        [output, error]: [Stdio; 2],
        program: &OsStr,
        arguments: &[&OsStr],
        environment: &[(&str, &str)],
        log: PathBuf,
    ) -> Self {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(error)
            .spawn()
            .unwrap_or_else(|error| panic!("setpriv, or {}: {error}", program.display()));
        Self { child, log }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        File::open(&self.log).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends a signal. The process may have ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Returns the exit status if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        wait::within(bound, "the process ends", || self.exit_status())
    }

    /// Returns the resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Returns the peak of resident memory in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells whether the test runs as root, which some daemons need.
pub fn we_are_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Creates a command that runs as root, directly or with sudo without a password.
pub fn root_command(program: &str) -> Command {
    if we_are_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Returns the names of our user and group.
pub fn our_names() -> (String, String) {
    let id = |flag: &str| {
        let output = Command::new("id").arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    (id("-un"), id("-gn"))
}

/// Creates a directory that daemons of other users can access. The caller must remove it.
pub fn open_directory(name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().prefix(&format!("mailgress-{name}-")).tempdir().unwrap().keep();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
