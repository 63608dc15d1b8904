//! A shell in which a page's commands are run, one after the other, as its reader would type them.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// A bash that lives as long as its page: variables and folders stay, and what was started in the background.
pub struct Shell {
    bash: Child,
    input: ChildStdin,
    scratch: PathBuf,
    count: usize,
}

/// What came of a command.
pub struct Ran {
    /// Both outputs, as a terminal would show them.
    pub output: String,
    /// `None` where it took too long, or ended the shell.
    pub status: Option<i32>,
}

impl Shell {
    /// Begins in `folder`, with these programs first in the PATH.
    pub fn start(folder: &Path, programs: &Path, environment: &[(&str, &Path)]) -> Self {
        let scratch = programs.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()))
            .env("HOME", folder)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("KUBECONFIG")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut input = bash.stdin.take().unwrap();
        // When we are gone it reads the end of its input, and takes all that it started with it.
        writeln!(input, "trap 'trap - EXIT TERM; kill -TERM 0' EXIT").unwrap();
        Self { bash, input, scratch, count: 0 }
    }

    /// Runs it and waits for its end.
    pub fn run(&mut self, command: &str) -> Ran {
        let ([script, output, status], done) = self.files(command);
        writeln!(
            self.input,
            ". {script} >{output} 2>&1 </dev/null; echo $? >{status}; mv {status} {status}.done"
        )
        .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Ok(text) = std::fs::read_to_string(&done) {
                break text.trim().parse().ok();
            }
            if Instant::now() > deadline || self.bash.try_wait().unwrap().is_some() {
                break None;
            }
            std::thread::sleep(PAUSE);
        };
        Ran { output: std::fs::read_to_string(output).unwrap_or_default(), status }
    }

    /// Runs it in the background; the file with what it prints.
    pub fn begin(&mut self, command: &str) -> PathBuf {
        let ([script, output, _], _) = self.files(command);
        writeln!(self.input, "(. {script}) >{output} 2>&1 </dev/null &").unwrap();
        output.into()
    }

    fn files(&mut self, command: &str) -> ([String; 3], PathBuf) {
        self.count += 1;
        let file = |kind: &str| self.scratch.join(format!("{}.{kind}", self.count)).display().to_string();
        let script = file("sh");
        std::fs::write(&script, format!("{command}\n")).unwrap();
        let done = PathBuf::from(file("status.done"));
        ([script, file("out"), file("status")], done)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.bash);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        let _ = self.bash.wait();
    }
}

/// For one command.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(10);
