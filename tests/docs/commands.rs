//! Runs the commands of the pages, and compares their output with what the pages show.
//!
//! The words after the language of a block (```` ```console cluster ````) say how to run it. They are not rendered:
//!
//! | word | how the block is run |
//! | --- | --- |
//! | none | is run in a separate folder for the page, with `crds`, `deploy`, `charts` and `examples` in it |
//! | `cluster` | is run with kubectl and mailgress and a separate real API server for the page |
//! | `nodes` | is run by tests/e2e on a cluster with a node, where the pages follow one another; `cluster nodes`: on both |
//! | `elsewhere=WHAT` | needs WHAT, one of [`ELSEWHERE`], and is not run |
//! | `fails` | is to end with another exit status than 0 |
//! | `ready=PORT` | runs until the end of the page; the next block waits until that port is open |
//! | `file=NAME` | is written to that file (any language) |
//!
//! In a `console` block, a command starts with `$ `, and its output follows. In the output, a line with only `...`
//! stands for any lines, `…` in a word stands for any text, and ages and times may differ. Commands that a reader has
//! run elsewhere are in a comment that starts with `<!-- sh` and such words.
//!
//! Each page has its own network (`unshare`), so that it can use the ports that it names.

use std::process::Command;

use crate::control_plane::ControlPlane;
use crate::pages::{self, Block, Page};
use crate::play::{compare, play};
use crate::shell::{Shell, furnish};

#[test]
fn every_command_of_the_pages_runs_and_prints_what_it_says() {
    let mut failed = Vec::new();
    for page in pages::all().iter().filter(|page| page.steps().iter().any(is_run)) {
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
    let all: Vec<Block> = pages::all().iter().flat_map(Page::steps).collect();
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
        // The shell itself ends at the first failure in a block of `sh`.
        assert!(!block.has("fails") || block.language == "console", "{}: use console", block.place);
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
    let steps = page.steps();
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
    furnish(folder.path(), programs.path(), plane.as_ref().map(ControlPlane::kubectl));
    let kubeconfig = plane.as_ref().map(ControlPlane::kubeconfig);
    let mut shell = Shell::start(&[], folder.path(), programs.path(), kubeconfig.as_deref());
    for block in steps.iter().filter(|block| plane.is_some() || !block.has("cluster")) {
        if block.word("file").is_some() || is_run(block) {
            play(&mut shell, block);
        }
    }
}

fn is_run(block: &Block) -> bool {
    matches!(block.language.as_str(), "sh" | "console")
        && block.word("elsewhere").is_none()
        && block.word("file").is_none()
        && (block.has("cluster") || !block.has("nodes"))
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

/// What a machine with only the project's own tools does not have.
const ELSEWHERE: [&str; 3] = ["kind", "pod", "make"];
/// Maximum number of blocks with `elsewhere`.
const MOST_ELSEWHERE: usize = 7;
const WORDS: [&str; 7] = ["cluster", "nodes", "elsewhere", "fails", "ready", "file", "values"];
const LANGUAGES: [&str; 9] = ["sh", "console", "yaml", "text", "json", "lua", "nginx", "conf", "promql"];
/// The page for the test inside the network.
const PAGE: &str = "MAILGRESS_DOCS_PAGE";
