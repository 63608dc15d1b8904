//! The commands of the pages are run, and print what the pages show.
//!
//! The words behind the fence of a block (```` ```console cluster ````) say how; they are not seen in what is rendered:
//!
//! | word | the block |
//! | --- | --- |
//! | none | is run, in a folder of the page's own with `crds`, `deploy`, `charts` and `examples` in it |
//! | `cluster` | is run with kubectl and mailgress before a real API server, which is the page's own |
//! | `elsewhere=WHAT` | needs WHAT, one of [`ELSEWHERE`], and is not run |
//! | `fails` | is to end with another exit status than 0 |
//! | `ready=PORT` | runs until the end of the page; the next block waits until that port is open |
//! | `file=NAME` | is written to that file (any language) |
//!
//! In a `console` block, a command begins with `$ `, and what it prints follows. There, `...` alone in a line stands for
//! any lines, `…` in a word for anything, and ages and times are those of the day on which it was written. What a reader
//! has done elsewhere stands in a comment that begins with `<!-- sh` and such words.
//!
//! Each page has a network of its own (`unshare`), so that it can have the ports that it names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::control_plane::ControlPlane;
use crate::pages::{self, Block, Page, root};
use crate::shell::{Ran, Shell};
use crate::support::wait;

#[test]
fn every_command_of_the_pages_runs_and_prints_what_it_says() {
    let mut failed = Vec::new();
    for page in pages::all().iter().filter(|page| steps(page).iter().any(is_run)) {
        let output = inside(&page.name);
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            failed.push(format!("{}{}", text, String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_is_not_run_here_is_little_and_says_why() {
    let all: Vec<Block> = pages::all().iter().flat_map(steps).collect();
    let left: Vec<&Block> = all.iter().filter(|block| block.word("elsewhere").is_some()).collect();
    for block in &left {
        let what = block.word("elsewhere").unwrap();
        assert!(ELSEWHERE.contains(&what), "{}: {what} is none of {ELSEWHERE:?}", block.place);
        println!("{}: needs {what}: {}", block.place, block.text.lines().next().unwrap_or_default());
    }
    assert!(left.len() <= MOST_ELSEWHERE, "{} blocks are not run", left.len());
}

#[test]
fn words_behind_a_fence_are_known() {
    for block in pages::all().iter().flat_map(Page::blocks) {
        for word in &block.words {
            let name = word.split('=').next().unwrap_or_default();
            assert!(WORDS.contains(&name), "{}: {word}", block.place);
        }
        assert!(LANGUAGES.contains(&block.language.as_str()), "{}: {:?}", block.place, block.language);
    }
}

/// Runs [`page_inside_of_its_own_network`] for a page.
fn inside(page: &str) -> std::process::Output {
    let user = if crate::support::process::we_are_root() { "" } else { "--map-root-user" };
    let network = "ip link set lo up && ip address add 192.0.2.1/24 dev lo && \
                   ip route add default via 192.0.2.2 dev lo && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args([user].iter().filter(|flag| !flag.is_empty()));
    command.args(["sh", "-c", network, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "commands::page_inside_of_its_own_network"]);
    command.env(PAGE, page).output().unwrap()
}

#[test]
#[ignore = "run by another test, in a network of its own"]
fn page_inside_of_its_own_network() {
    let Ok(name) = std::env::var(PAGE) else { return };
    let page = pages::all().into_iter().find(|page| page.name == name).unwrap();
    let steps = steps(&page);
    let plane = if steps.iter().any(|block| block.has("cluster")) {
        match ControlPlane::start() {
            Ok(plane) => Some(plane),
            Err(why) => {
                eprintln!("SKIPPED the commands of {name} that need a cluster: {why}");
                None
            }
        }
    } else {
        None
    };
    let folder = tempfile::Builder::new().prefix("mailgress-docs-").tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    furnish(folder.path(), programs.path(), plane.as_ref());
    let kubeconfig = plane.as_ref().map(ControlPlane::kubeconfig);
    let environment: Vec<(&str, &Path)> = kubeconfig
        .iter()
        .flat_map(|file| [("KUBECONFIG", file.as_path()), ("MAILGRESS_KUBECONFIG", file.as_path())])
        .collect();
    let mut shell = Shell::start(folder.path(), programs.path(), &environment);
    for block in steps.iter().filter(|block| plane.is_some() || !block.has("cluster")) {
        if let Some(file) = block.word("file") {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &block.text).unwrap();
        } else if is_run(block) {
            play(&mut shell, block);
        }
    }
}

fn furnish(folder: &Path, programs: &Path, plane: Option<&ControlPlane>) {
    // Copies: kubectl does not follow a link to a folder.
    for name in ["charts", "crds", "deploy", "examples"].map(|name| root().join(name)) {
        if name.is_dir() {
            assert!(Command::new("cp").arg("-r").arg(&name).arg(folder).status().unwrap().success());
        }
    }
    symlink(env!("CARGO_BIN_EXE_mailgress"), programs.join("mailgress")).unwrap();
    let Some(plane) = plane else { return };
    let command = plane.kubectl();
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let kubectl = programs.join("kubectl");
    fs::write(&kubectl, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
}

fn play(shell: &mut Shell, block: &Block) {
    if let Some(port) = block.word("ready") {
        let output = shell.begin(&without_prompt(&block.text));
        let address = format!("127.0.0.1:{port}");
        wait::within(STARTS, &format!("{}: {address} is open", block.place), || {
            let log = fs::read_to_string(&output).unwrap_or_default();
            assert!(!log.contains("mailgress: "), "{}: {log}", block.place);
            std::net::TcpStream::connect(&address).ok()
        });
        return;
    }
    if block.language == "sh" {
        let ran = shell.run(&format!("set -e -o pipefail\n{}\nset +e", block.text));
        check_status(block, &block.text, &ran);
        return;
    }
    for (command, expected) in commands(&block.text) {
        let ran = shell.run(&command);
        check_status(block, &command, &ran);
        if let Err(difference) = compare(&expected, &ran.output) {
            panic!("{}: $ {command}\n{difference}\nAll that it printed:\n{}", block.place, ran.output);
        }
    }
}

fn check_status(block: &Block, command: &str, ran: &Ran) {
    let well = match ran.status {
        Some(status) => (status == 0) != block.has("fails"),
        None => false,
    };
    assert!(well, "{}: exit status {:?}:\n{command}\n{}", block.place, ran.status, ran.output);
}

fn without_prompt(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Commands and what each prints.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), Vec::new())),
            (None, Some((command, _))) if command.ends_with('\\') => {
                command.push('\n');
                command.push_str(line);
            }
            (None, Some((_, output))) => output.push(line.to_owned()),
            (None, None) => {}
        }
    }
    found
}

/// Whether what was printed is what the page shows; a page may show nothing.
fn compare(expected: &[String], printed: &str) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let mut lines = printed.lines().filter(|line| !line.trim().is_empty());
    let mut skipping = false;
    for wanted in expected.iter().filter(|line| !line.trim().is_empty()) {
        if wanted.trim() == "..." {
            skipping = true;
            continue;
        }
        loop {
            let Some(line) = lines.next() else { return Err(format!("is not printed: {wanted}")) };
            if is_like(wanted, line) {
                break;
            }
            if !skipping {
                return Err(format!("the page says: {wanted}\nit prints:     {line}"));
            }
        }
        skipping = false;
    }
    match lines.next() {
        Some(line) if !skipping => Err(format!("the page does not say: {line}")),
        _ => Ok(()),
    }
}

fn is_like(wanted: &str, line: &str) -> bool {
    let (wanted, line): (Vec<&str>, Vec<&str>) =
        (wanted.split_whitespace().collect(), line.split_whitespace().collect());
    wanted.len() == line.len() && wanted.iter().zip(&line).all(|(wanted, word)| is_word_like(wanted, word))
}

fn is_word_like(wanted: &str, word: &str) -> bool {
    if let Some((before, after)) = wanted.split_once('…') {
        return word.len() + '…'.len_utf8() >= wanted.len()
            && word.starts_with(before)
            && word.ends_with(after);
    }
    let passes = |word: &str| is_age(word) || word.parse::<jiff::Timestamp>().is_ok();
    wanted == word || (passes(wanted) && passes(word))
}

/// `4s`, `2m10s`, `0.2s`, as kubectl and people write it.
fn is_age(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || "smhdu.µ".contains(c);
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(is_part)
}

fn is_run(block: &Block) -> bool {
    matches!(block.language.as_str(), "sh" | "console")
        && block.word("elsewhere").is_none()
        && block.word("file").is_none()
}

/// The blocks that matter here in their order, with those in comments.
fn steps(page: &Page) -> Vec<Block> {
    let text = page.text.lines().scan(false, |hidden, line| {
        let begins = line.strip_prefix("<!-- sh");
        let line = match (begins, *hidden && line.trim() == "-->") {
            (Some(words), _) => {
                *hidden = true;
                format!("```sh{words}")
            }
            (None, true) => {
                *hidden = false;
                "```".to_owned()
            }
            (None, false) => line.to_owned(),
        };
        Some(line + "\n")
    });
    let page = Page { name: page.name.clone(), text: text.collect() };
    let matters =
        |block: &Block| block.word("file").is_some() || matches!(block.language.as_str(), "sh" | "console");
    page.blocks().into_iter().filter(matters).collect()
}

#[test]
fn what_is_printed_is_compared_word_by_word() {
    let same = |expected: &str, printed: &str| {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        compare(&expected, printed).is_ok()
    };
    assert!(same("NAME  AGE\nx     4s", "NAME AGE\nx    21s\n"));
    assert!(same("a\n...\nz", "a\nb\nc\nz\n"));
    assert!(same("id f…a ok", "id f6a3a ok"));
    assert!(!same("a\nb", "a\n"));
    assert!(!same("a", "a\nb\n"));
    assert!(!same("x True 4s", "x False 4s"));
}

/// What a machine with nothing but the project's own tools does not have.
const ELSEWHERE: [&str; 5] = ["kind", "helm", "nodes", "make", "site"];
/// So many blocks may say that.
const MOST_ELSEWHERE: usize = 30;
const WORDS: [&str; 6] = ["cluster", "elsewhere", "fails", "ready", "file", "values"];
const LANGUAGES: [&str; 9] = ["sh", "console", "yaml", "text", "json", "lua", "nginx", "conf", "promql"];
/// For what runs until the end of the page.
const STARTS: Duration = Duration::from_secs(60);
/// The page, for the test inside.
const PAGE: &str = "MAILGRESS_DOCS_PAGE";
