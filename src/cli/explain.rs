//! `mailgress explain`: prints the meaning of a condition's reason and the remedy, as in docs/reasons.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use crate::controller::reason::{Explanation, Reason};

/// `mailgress explain`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Explain {
    /// The reason of a condition, such as RefNotFound. Without it, lists all reasons.
    #[arg(value_name = "REASON")]
    reason: Option<String>,
}

impl Explain {
    /// Prints the explanation to standard output.
    ///
    /// # Errors
    ///
    /// Fails if the reason does not exist.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        let Some(wanted) = &self.reason else {
            for reason in Reason::ALL {
                writeln!(out, "{reason:<30} {}", reason.explanation().map(conditions).unwrap_or_default())?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let found = Reason::ALL.iter().find(|reason| reason.name().eq_ignore_ascii_case(wanted));
        let Some(explanation) = found.and_then(|reason| reason.explanation()) else {
            bail!("unknown reason {wanted:?}; run `mailgress explain` to list all reasons");
        };
        out.write_all(text(explanation).as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(explanation: &Explanation) -> String {
    let Explanation { reason, meaning, cause, remedy, .. } = explanation;
    let mut text = format!("{reason} ({})\n\n{}", conditions(explanation), wrapped(meaning));
    for (title, text_of_part) in [("Cause", cause), ("Remedy", remedy)] {
        if !text_of_part.is_empty() {
            text.push_str(&wrapped(&format!("\n{title}: {text_of_part}")));
        }
    }
    text.push_str(&format!("\n{}\n", reason.link()));
    text
}

/// Formats `Ready=False, Programmed=False`.
fn conditions(explanation: &Explanation) -> String {
    let parts = explanation.conditions.iter().map(|(type_, status)| format!("{type_}={status:?}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// Breaks lines at [`WIDTH`] columns.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count().saturating_add(word.chars().count()) >= WIDTH {
                lines.push_str(&line);
                lines.push('\n');
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

const WIDTH: usize = 80;

const AFTER_HELP: &str = "Exit status: 0 success, 1 unknown reason, 2 usage error.";

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST_WORD: usize = 80;

    #[test]
    fn a_reason_is_explained_in_lines_that_fit_a_terminal() {
        for reason in Reason::ALL {
            let text = text(reason.explanation().unwrap());
            assert!(text.contains(reason.name()) && text.contains(&reason.link()), "{text}");
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= WIDTH + LONGEST_WORD, "{text}");
        }
    }
}
