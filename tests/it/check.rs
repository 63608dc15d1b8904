//! `mailgress check` and `import nginx` with other input than one file: standard input, pipes, patterns, folders.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn mailgress(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mailgress"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn server(name: &str, port: &str) -> String {
    format!(
        "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {{name: {name}}}\nspec:\n  auth: {{passthrough: {{}}}}\n  \
         listeners: [{{name: a, protocol: SMTP, {port}, smtp: {{authMethods: [NONE]}}, backendAddress: 'b:1'}}]\n"
    )
}

#[test]
fn check_reads_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let output = mailgress(folder.path(), &["check", "-f", "-"], &server("a", "prt: 25"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).starts_with("<stdin>:6:41: MailServer default/a: spec.listeners[a].prt: UnknownField: "),
        "{}",
        out(&output)
    );
    let output = mailgress(folder.path(), &["check", "-f", "-", "-o", "text"], &server("a", "prt: 25"));
    assert!(out(&output).contains("--> <stdin>:6:41") && out(&output).contains("^^^"), "{}", out(&output));
    let output = mailgress(folder.path(), &["check", "-f", "/dev/stdin"], &server("a", "port: 25"));
    assert_eq!(out(&output), "1 object with 1 listener is valid\n");
}

#[test]
fn check_takes_folders_patterns_and_several_files_and_reads_each_once() {
    let folder = tempfile::tempdir().unwrap();
    for (file, name, port) in [("m/a.yaml", "a", 25), ("m/b.yml", "b", 26), ("n/c.json", "c", 27)] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, server(name, &format!("port: {port}"))).unwrap();
    }
    std::fs::write(folder.path().join("m/README.md"), "# Mail\n").unwrap();
    for (arguments, said) in [
        (&["m"][..], "2 objects with 2 listeners are valid\n"),
        (&["m/*"], "2 objects with 2 listeners are valid\n"),
        (&["m/a.y*"], "1 object with 1 listener is valid\n"),
        (&["**/*.json"], "1 object with 1 listener is valid\n"),
        (&["m", "-f", "./m/a.yaml", "-f", "n/c.json"], "3 objects with 3 listeners are valid\n"),
        (&["m/a.yaml", "m/b.yml"], "2 objects with 2 listeners are valid\n"),
        (&["?"], "3 objects with 3 listeners are valid\n"),
    ] {
        let all: Vec<&str> = ["check", "-f"].iter().chain(arguments).copied().collect();
        let output = mailgress(folder.path(), &all, "");
        assert_eq!((out(&output).as_str(), output.status.code()), (said, Some(0)), "{arguments:?}");
    }
    for nothing in ["x.yaml", "m/*.json"] {
        let output = mailgress(folder.path(), &["check", "-f", nothing], "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(nothing), "{said}");
    }
}

#[test]
fn strict_makes_warnings_errors() {
    let folder = tempfile::tempdir().unwrap();
    let text = server("a", "port: 25").replace("backendAddress: 'b:1'", "backendRef: {name: d, port: smtp}");
    let lenient = mailgress(folder.path(), &["check", "-f", "-"], &text);
    assert_eq!(lenient.status.code(), Some(0), "{}", out(&lenient));
    assert!(
        out(&lenient).contains("warning: ") && out(&lenient).ends_with("1 object with 1 listener is valid\n")
    );
    let strict = mailgress(folder.path(), &["check", "--strict", "-f", "-"], &text);
    assert_eq!(strict.status.code(), Some(1), "{}", out(&strict));
    assert!(!out(&strict).contains("warning: ") && !out(&strict).contains("valid"));
}

#[test]
fn every_example_is_valid_as_it_is_in_git() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let folders = std::fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    assert!(folders.len() >= 7, "{folders:?}");
    for folder in folders {
        let output = mailgress(&examples, &["check", "-f", folder.to_str().unwrap()], "");
        assert_eq!(output.status.code(), Some(0), "{}: {}", folder.display(), out(&output));
        // Only the certificate is missing, and cert-manager will create it.
        for line in out(&output).lines().filter(|line| line.contains("warning: ")) {
            let is_expected = line.contains("Secret mail/mail-tls is in none of the files")
                || line.contains("there is no MailServer of class mailgress");
            assert!(is_expected && !folder.ends_with("cert-manager"), "{line}");
        }
    }
}

#[test]
fn import_reads_standard_input_and_includes_from_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("imap.conf"), "server { listen 127.0.0.1:1143; protocol imap; }\n")
        .unwrap();
    let text = "events {}\nmail {\n auth_http 127.0.0.1:9000/auth;\n include imap.conf;\n}\n";
    let output = mailgress(folder.path(), &["import", "nginx", "-"], text);
    assert!(output.status.success() && out(&output).contains("port: 1143"), "{output:?}");
    let output = mailgress(folder.path(), &["import", "nginx", "-"], "events {}\nmail {\n nonsense on;\n}\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("<stdin>:3"), "{said}");
}
