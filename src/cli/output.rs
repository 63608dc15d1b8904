//! The output format of commands that people and scripts read.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// JSON.
    Json,
}

impl OutputFormat {
    /// Writes `value` as JSON, or calls `text`.
    pub(super) fn write<W: Write>(
        self,
        out: &mut W,
        value: &impl Serialize,
        text: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
            Self::Text => text(out)?,
        }
        Ok(())
    }
}
