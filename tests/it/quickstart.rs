//! examples/quickstart/run.sh: its message when a daemon ends while it runs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::mailgress::binary;

/// The running script. It and its daemons end on drop.
struct Quickstart {
    script: Child,
}

impl Quickstart {
    /// Starts the script and waits until it is ready.
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut script = Command::new(root.join("examples/quickstart/run.sh"))
            .env("MAILGRESS", binary())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(script.stdout.as_mut().unwrap()).lines();
        let stays_up = lines.any(|line| line.unwrap().contains("stays up until Ctrl-C"));
        let mut quickstart = Self { script };
        assert!(stays_up, "{}", quickstart.errors());
        quickstart
    }

    /// Sends a signal to the script's child with this name.
    fn signal(&self, signal: &str, child: &str) {
        let script = self.script.id().to_string();
        let sent = Command::new("pkill").args([signal, "-P", &script, "-x", child]).status().unwrap();
        assert!(sent.success(), "{child} is no child of the script");
    }

    /// Returns the standard error until the script ends.
    fn errors(&mut self) -> String {
        let stderr = BufReader::new(self.script.stderr.as_mut().unwrap());
        stderr.lines().map(|line| line.unwrap() + "\n").collect()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.script.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.script.wait();
    }
}

/// The cases run one after the other, because they share a folder.
#[test]
fn the_quickstart_names_the_daemon_that_ended_and_how() {
    for (signal, child, said) in [
        ("-KILL", "mailgress", "quickstart: Mailgress ended, by SIGKILL\n"),
        ("-TERM", "dovecot", "quickstart: Dovecot ended, with exit status 0\n"),
    ] {
        let mut quickstart = Quickstart::start();
        quickstart.signal(signal, child);
        let errors = quickstart.errors();
        assert!(errors.contains(said), "{errors}");
        assert!(errors.contains("The end of ") && errors.contains("mailgress.log:"), "{errors}");
    }
}
