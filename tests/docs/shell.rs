//! A shell that runs the commands of a page one after the other, as a reader would type them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::pages::root;

/// A bash process for one page: variables and folders persist, and background programs continue.
pub struct Shell {
    bash: Child,
    input: ChildStdin,
    /// The initial folder.
    pub folder: PathBuf,
    scratch: PathBuf,
    count: usize,
}

/// The result of a command.
pub struct Ran {
    /// Standard output and error in the order of a terminal.
    pub output: String,
    /// `None` if the command took too long or ended the shell.
    pub status: Option<i32>,
}

impl Shell {
    /// Starts in `folder`, with these programs first in the PATH, and this cluster for kubectl and mailgress. `enter`
    /// is a command that runs another one in a different environment.
    pub fn start(enter: &[String], folder: &Path, programs: &Path, kubeconfig: Option<&Path>) -> Self {
        let scratch = programs.join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut words = enter.to_vec();
        words.extend(["env", "-u", "KUBECONFIG", "LC_ALL=C.UTF-8"].map(str::to_owned));
        words.push(format!("PATH={}:{path}:/usr/sbin:/sbin", programs.display()));
        words.push(format!("HOME={}", folder.display()));
        let clusters = kubeconfig.into_iter().flat_map(|file| {
            ["KUBECONFIG", "MAILGRESS_KUBECONFIG"].map(|name| format!("{name}={}", file.display()))
        });
        words.extend(clusters);
        words.extend(["bash", "--noprofile", "--norc"].map(str::to_owned));
        let mut bash = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut input = bash.stdin.take().unwrap();
        // When the test ends, bash reads the end of its input, and ends everything that it started.
        writeln!(input, "trap 'trap - EXIT TERM; kill -TERM 0' EXIT; cd {}", folder.display()).unwrap();
        Self { bash, input, folder: folder.to_owned(), scratch, count: 0 }
    }

    /// Runs a command and waits for its end.
    pub fn run(&mut self, command: &str) -> Ran {
        let ([script, output, status], done) = self.files(command);
        writeln!(
            self.input,
            ". {script} >{output} 2>&1 </dev/null; echo $? >{status}; mv {status} {status}.done"
        )
        .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Ok(text) = fs::read_to_string(&done) {
                break text.trim().parse().ok();
            }
            if Instant::now() > deadline || self.bash.try_wait().unwrap().is_some() {
                break None;
            }
            std::thread::sleep(PAUSE);
        };
        Ran { output: fs::read_to_string(output).unwrap_or_default(), status }
    }

    /// Runs a command in the background. Returns the file with its output.
    pub fn begin(&mut self, command: &str) -> PathBuf {
        let ([script, output, _], _) = self.files(command);
        writeln!(self.input, "(. {script}) >{output} 2>&1 </dev/null &").unwrap();
        output.into()
    }

    fn files(&mut self, command: &str) -> ([String; 3], PathBuf) {
        self.count += 1;
        let file = |kind: &str| self.scratch.join(format!("{}.{kind}", self.count)).display().to_string();
        let script = file("sh");
        fs::write(&script, format!("{command}\n")).unwrap();
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

/// Copies the content of a clone to the folder, and installs the programs that pages name: mailgress and this kubectl.
pub fn furnish(folder: &Path, programs: &Path, kubectl: Option<Command>) {
    // Copies, because kubectl does not follow a link to a folder.
    for name in ["charts", "crds", "deploy", "examples"].map(|name| root().join(name)) {
        if name.is_dir() {
            assert!(Command::new("cp").arg("-r").arg(&name).arg(folder).status().unwrap().success());
        }
    }
    symlink(env!("CARGO_BIN_EXE_mailgress"), programs.join("mailgress")).unwrap();
    let Some(command) = kubectl else { return };
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let kubectl = programs.join("kubectl");
    fs::write(&kubectl, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Time limit of a command; Helm itself waits for five minutes.
const PATIENCE: Duration = Duration::from_secs(330);
const PAUSE: Duration = Duration::from_millis(10);
