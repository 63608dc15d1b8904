//! Runs the blocks of a page in a shell, like a reader, and compares the output with what the page shows.

use std::fs;
use std::time::Duration;

use crate::pages::Block;
use crate::shell::{Ran, Shell};
use crate::support::wait;

/// Does what the block's words say.
pub fn play(shell: &mut Shell, block: &Block) {
    if let Some(file) = block.word("file") {
        let path = shell.folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &block.text).unwrap();
        return;
    }
    if let Some(port) = block.word("ready") {
        let output = shell.begin(&without_prompt(&block.text));
        wait::within(STARTS, &format!("{}: port {port} is open", block.place), || {
            let log = fs::read_to_string(&output).unwrap_or_default();
            assert!(!log.contains("mailgress: "), "{}: {log}", block.place);
            let open = shell.run(&format!("(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null"));
            (open.status == Some(0)).then_some(())
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

/// Returns the commands with their expected output.
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

/// Compares the output with what the page shows. A page may show nothing.
pub fn compare(expected: &[String], printed: &str) -> Result<(), String> {
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

/// Tells whether a word is an age such as `4s`, `2m10s` or `0.2s`.
fn is_age(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || "smhdu.µ".contains(c);
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(is_part)
}

/// Time limit for programs that run until the end of the page to open their port.
const STARTS: Duration = Duration::from_secs(60);
