//! Checks that links lead to existing pages and headings.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::pages::{Page, all, root};

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let pages = all();
    let headings: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.name.as_str(), headings(page))).collect();
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|page| links(page).into_iter().filter_map(|link| broken(page, &link, &headings)))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_page_of_the_book_stands_in_its_summary_once() {
    let pages = all();
    let summary = pages.iter().find(|page| page.name == SUMMARY).unwrap();
    let mut listed = links(summary);
    listed.sort();
    let mut there: Vec<String> = pages
        .iter()
        .filter_map(|page| page.name.strip_prefix("docs/"))
        .filter(|name| *name != "SUMMARY.md")
        .map(str::to_owned)
        .collect();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn the_numbers_of_differences_have_no_gap_and_every_page_names_one_that_is_there() {
    let pages = all();
    let table = pages.iter().find(|page| page.name == "docs/nginx-differences.md").unwrap();
    let rows =
        table.text.lines().filter_map(|line| line.strip_prefix("| M-")?.split(' ').next()?.parse().ok());
    let numbers: Vec<usize> = rows.collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    for page in &pages {
        for cited in page.text.split("M-").skip(1).filter_map(|rest| rest.get(..2)?.parse::<usize>().ok()) {
            assert!(numbers.contains(&cited), "{}: M-{cited} is not in {}", page.name, table.name);
        }
    }
}

/// Returns the problem of a link, if there is one.
fn broken(page: &Page, link: &str, headings: &BTreeMap<&str, BTreeSet<String>>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let wrong = |why: &str| Some(format!("{}: ({link}): {why}", page.name));
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.name.clone() } else { joined(&page.name, path) };
    if page.is_in_book() && !target.starts_with("docs/") {
        return wrong("leads out of the book, where it is broken; name the file instead");
    }
    if page.is_in_book() && page.name != SUMMARY && target.ends_with("README.md") {
        return wrong("mdBook calls it index.html; call the page index.md");
    }
    let is_folder = root().join(&target).is_dir();
    if page.is_in_book() && is_folder {
        return wrong("leads to a folder");
    }
    if !root().join(&target).exists() {
        return wrong("is not there");
    }
    match headings.get(target.as_str()) {
        Some(known) if !anchor.is_empty() && !known.contains(anchor) => wrong("has no such heading"),
        _ => None,
    }
}

/// Resolves a path relative to a page.
fn joined(page: &str, path: &str) -> String {
    let mut segments: Vec<&str> = page.split('/').collect();
    segments.pop();
    for segment in path.split('/') {
        match segment {
            "." | "" => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    segments.join("/")
}

fn links(page: &Page) -> Vec<String> {
    let parser = Parser::new_ext(&page.text, Options::ENABLE_TABLES);
    let target = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    };
    parser.filter_map(target).collect()
}

/// Returns the anchors of a page as GitHub and mdBook create them.
fn headings(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut title: Option<String> = None;
    for event in Parser::new_ext(&page.text, Options::ENABLE_TABLES) {
        match (event, &mut title) {
            (Event::Start(Tag::Heading { .. }), _) => title = Some(String::new()),
            (Event::Text(text) | Event::Code(text), Some(title)) => title.push_str(&text),
            (Event::End(TagEnd::Heading(_)), _) => {
                let anchor = slug(&title.take().unwrap_or_default());
                let count = counts.entry(anchor.clone()).or_default();
                anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                *count += 1;
            }
            _ => {}
        }
    }
    anchors
}

fn slug(title: &str) -> String {
    let kept = title.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => c.to_lowercase().next(),
        _ => None,
    });
    kept.collect()
}

/// The book's table of contents.
const SUMMARY: &str = "docs/SUMMARY.md";
