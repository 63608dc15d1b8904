//! Tests `deploy/examples/fail2ban` with `fail2ban-regex`.

use std::path::Path;
use std::process::Command;

use super::{FORGED, GUESSERS, in_a_container, log_of_guesses};

#[test]
fn fail2ban_finds_those_who_guess_and_nobody_else() {
    for arguments in [&[][..], &["--log-format", "json"]] {
        let log = log_of_guesses(arguments);
        for text in [in_a_container(&log), log] {
            assert_eq!(found(&text), GUESSERS, "{arguments:?}, in\n{text}");
        }
    }
}

#[test]
fn the_readme_tries_each_log_file_of_the_jail_by_itself() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/fail2ban");
    let jail = std::fs::read_to_string(example.join("jail.d/mailgress.conf")).unwrap();
    let files = jail.lines().find_map(|line| line.strip_prefix("logpath = ")).unwrap();
    let readme = std::fs::read_to_string(example.join("README.md")).unwrap();
    let tried = format!("for log in {files}; do fail2ban-regex \"$log\" mailgress; done\n");
    assert!(readme.contains(&tried), "{readme}");
}

/// Returns the addresses that the filter finds in a log.
fn found(log: &str) -> Vec<String> {
    assert!(log.contains(FORGED));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unpacked = root.join("target/unpacked/fail2ban");
    assert!(unpacked.is_dir(), "fail2ban is missing: run tests/install-packages.sh test");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), log).unwrap();
    let output = Command::new("python3")
        .arg(unpacked.join("usr/bin/fail2ban-regex"))
        .args(["--out", "ip"])
        .arg(file.path())
        .arg(root.join("deploy/examples/fail2ban/filter.d/mailgress.conf"))
        .env("PYTHONPATH", unpacked.join("usr/lib/python3/dist-packages"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
