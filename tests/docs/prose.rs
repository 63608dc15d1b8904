//! Texts outside of the pages have none of the phrases that `tests/prose` forbids: the string literals of `src` (errors, log
//! lines, conditions, the status page) and the files of the chart and of `deploy`. Harper checks the pages.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::pages::root;
use crate::source::production;

#[test]
fn texts_in_the_code_have_no_weak_phrase() {
    let phrases = phrases();
    let mut found = Vec::new();
    for (file, code) in production() {
        let mut texts = Vec::new();
        literals(code, &mut texts);
        for text in texts {
            found.extend(weak(&text, &phrases).map(|phrase| format!("{file}: {phrase:?} in {text:?}")));
        }
    }
    assert!(found.is_empty(), "name who does what, in ordinary words:\n{}", found.join("\n"));
}

#[test]
fn texts_of_the_chart_and_of_deploy_have_no_weak_phrase() {
    let phrases = phrases();
    let mut files = Vec::new();
    for folder in ["charts", "deploy"] {
        walk(&root().join(folder), &mut files);
    }
    let found: Vec<String> = files
        .iter()
        .flat_map(|(file, text)| weak(text, &phrases).map(move |phrase| format!("{file}: {phrase:?}")))
        .collect();
    assert!(found.is_empty(), "name who does what, in ordinary words:\n{}", found.join("\n"));
}

#[test]
fn finds_a_phrase_only_as_whole_words_and_across_lines() {
    let phrases = ["served on".to_owned()];
    let found = |text: &str| weak(text, &phrases).next().is_some();
    assert!(found("It is Served\n  # on, and"));
    assert!(!found("observed one"));
    let mut texts = Vec::new();
    literals(
        r##"/// a comment
        fn f() { g("first \"text\" \
            of two lines", 'c', r"second", 3) }"##
            .parse()
            .unwrap(),
        &mut texts,
    );
    assert_eq!(texts, [r#"first \"text\" of two lines"#, "second"]);
}

/// Reads the phrases from the rule for Harper.
fn phrases() -> Vec<String> {
    let rule = std::fs::read_to_string(root().join("tests/prose/WeakPhrases.weir")).unwrap();
    let list = rule.lines().find_map(|line| line.strip_prefix("expr main [")?.strip_suffix(']')).unwrap();
    let phrases: Vec<String> =
        list.split(", ").map(|phrase| phrase.trim_matches(['(', ')']).to_owned()).collect();
    let is_plain =
        |phrase: &String| phrase.chars().all(|letter| letter == ' ' || letter.is_ascii_lowercase());
    assert!(phrases.len() > 10 && phrases.iter().all(is_plain), "{phrases:?}");
    phrases
}

fn weak<'a>(text: &str, phrases: &'a [String]) -> impl Iterator<Item = &'a String> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // A line of a comment begins with `#` or `//`.
    let words = text.split_whitespace().filter(|word| !matches!(*word, "#" | "//" | "--"));
    let text = words.collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    phrases.iter().filter(move |phrase| {
        text.match_indices(phrase.as_str()).any(|(start, _)| {
            let (before, after) = (&text[..start], &text[start + phrase.len()..]);
            !before.ends_with(is_letter) && !after.starts_with(is_letter)
        })
    })
}

/// Adds the string literals, without comments.
fn literals(code: TokenStream, found: &mut Vec<String>) {
    for token in code {
        match token {
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Some((_, text)) = text.split_once('"') {
                    let text = text.trim_end_matches(['"', '#']).replace("\\\n", "");
                    found.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            }
            TokenTree::Group(group) => {
                let is_comment =
                    group.stream().into_iter().next().is_some_and(|first| first.to_string() == "doc");
                if !is_comment {
                    literals(group.stream(), found);
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
        }
    }
}
