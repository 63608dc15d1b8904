//! `--color`: colours on terminals. By default, there are none in a pipe or with NO_COLOR.

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};

/// The option for colours.
#[derive(Args, Clone, Copy, Debug)]
pub struct Colour {
    /// When to use colours: `auto` (on a terminal, unless NO_COLOR is set), `always` or `never`.
    #[arg(long = "color", value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub when: When,
}

/// When to use colours.
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
    /// Returns standard output. It removes colours if they are not wanted.
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

/// A good result.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// A warning.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// A failure.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Less important text.
pub const FAINT: Style = Style::new().dimmed();
/// Important text.
pub const STRONG: Style = Style::new().bold();
