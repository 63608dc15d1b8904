//! The intended differences: `differences.txt` has one paragraph for each.
//!
//! ```text
//! [Q-31] tests/transcripts/imap/id.txt replies
//! nginx: c BAD invalid command
//! mailgress: * ID NIL
//! mailgress: c OK completed
//! ```
//!
//! `MAILGRESS_GENERATE=1 cargo test --test differential` writes the file. A new difference gets `[?]`, and the test
//! fails until a person has replaced this with a register number. `make generate` does not change this file, because
//! each difference is a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use crate::support::generated::is_written;

use super::observed::Observed;

/// One difference between nginx and Mailgress.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The scenario, and which of its partners (client, auth service, backend) saw the difference.
    place: String,
    nginx: Vec<String>,
    mailgress: Vec<String>,
}

/// The content of the file.
pub struct Listed {
    /// With the register number of each.
    differences: BTreeMap<Difference, String>,
}

impl Difference {
    /// Returns the differences between two observations of a scenario.
    pub fn between(name: &str, nginx: &Observed, mailgress: &Observed) -> Vec<Self> {
        let partners = [
            ("replies", &nginx.replies, &mailgress.replies),
            ("auth", &nginx.requests, &mailgress.requests),
            ("backend", &nginx.backend, &mailgress.backend),
        ];
        let differing = partners.into_iter().filter(|(_, nginx, mailgress)| nginx != mailgress);
        differing
            .map(|(partner, nginx, mailgress)| {
                let same = nginx.iter().zip(mailgress).take_while(|(a, b)| a == b).count();
                let (nginx, mailgress) = (&nginx[same..], &mailgress[same..]);
                let tail = nginx.iter().rev().zip(mailgress.iter().rev()).take_while(|(a, b)| a == b).count();
                Self {
                    place: format!("{name} {partner}"),
                    nginx: nginx[..nginx.len() - tail].to_vec(),
                    mailgress: mailgress[..mailgress.len() - tail].to_vec(),
                }
            })
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.place)?;
        self.nginx.iter().try_for_each(|line| writeln!(f, "nginx: {line}"))?;
        self.mailgress.iter().try_for_each(|line| writeln!(f, "mailgress: {line}"))
    }
}

impl Listed {
    /// Reads the file.
    pub fn read() -> Self {
        let text = std::fs::read_to_string(path()).unwrap_or_default();
        let mut differences = BTreeMap::new();
        for paragraph in text.split("\n\n") {
            let lines: Vec<&str> = paragraph.lines().filter(|line| !line.starts_with('#')).collect();
            let Some((head, rest)) = lines.split_first() else { continue };
            let (number, place) = head.split_once("] ").unwrap_or_else(|| panic!("not a heading: {head}"));
            let side = |name: &str| {
                rest.iter().filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect()
            };
            let found = Difference {
                place: place.to_owned(),
                nginx: side("nginx: "),
                mailgress: side("mailgress: "),
            };
            differences.insert(found, number.trim_start_matches('[').to_owned());
        }
        let documented = std::fs::read_to_string(in_repository("docs/nginx-differences.md")).unwrap();
        for (difference, number) in differences.iter().filter(|(_, number)| *number != "?") {
            let is_documented = documented.contains(&format!("\n| {number} |"));
            assert!(is_documented, "{number} is not in docs/nginx-differences.md: {difference}");
        }
        Self { differences }
    }

    /// Fails for each difference that is not listed, and for each listed one that was not found.
    pub fn check(&self, found: Vec<Difference>) {
        let found: BTreeSet<Difference> = found.into_iter().collect();
        if is_written() {
            self.write(&found);
        }
        let is_numbered =
            |difference: &&Difference| self.differences.get(difference).is_some_and(|id| id != "?");
        let unlisted: Vec<String> =
            found.iter().filter(|difference| !is_numbered(difference)).map(ToString::to_string).collect();
        let gone: Vec<String> = self
            .differences
            .keys()
            .filter(|difference| !found.contains(difference))
            .map(ToString::to_string)
            .collect();
        assert!(
            unlisted.is_empty() && gone.is_empty(),
            "{} differences are not listed in tests/differential/differences.txt:\n\n{}\n{} that are listed are not there:\n\n{}",
            unlisted.len(),
            unlisted.join("\n"),
            gone.len(),
            gone.join("\n")
        );
    }

    fn write(&self, found: &BTreeSet<Difference>) {
        let old = std::fs::read_to_string(path()).unwrap_or_default();
        let mut text: String =
            old.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        for difference in found {
            let number = self.differences.get(difference).map_or("?", String::as_str);
            text.push_str(&format!("\n[{number}] {difference}"));
        }
        std::fs::write(path(), text).unwrap();
    }
}

fn path() -> PathBuf {
    in_repository("tests/differential/differences.txt")
}

fn in_repository(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}
