//! `--color`: for people, and never in a pipe or against NO_COLOR.

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};

/// Whether the output has colours.
#[derive(Args, Clone, Copy, Debug)]
pub struct Colour {
    /// Use colours; `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long = "color", value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub when: When,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Standard output, which drops the colours that are written to it where there are to be none.
    #[must_use]
    pub fn stdout(self) -> anstream::AutoStream<std::io::StdoutLock<'static>> {
        let choice = match self.when {
            When::Auto => anstream::AutoStream::choice(&std::io::stdout()),
            When::Always => anstream::ColorChoice::Always,
            When::Never => anstream::ColorChoice::Never,
        };
        anstream::AutoStream::new(std::io::stdout().lock(), choice)
    }
}

/// What works.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What works well enough.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What does not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is read second.
pub const FAINT: Style = Style::new().dimmed();
/// What is read first.
pub const STRONG: Style = Style::new().bold();
