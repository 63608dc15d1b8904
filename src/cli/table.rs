//! Writes tables like those of kubectl. A table that is too wide for the terminal is written as blocks of lines.
//!
//! Cells have only ASCII characters, so one byte is one column.

use std::io::{self, IsTerminal, Write};

use anstyle::Style;

use super::colour::STRONG;

/// Columns and rows.
#[derive(Debug)]
pub struct Table<const N: usize> {
    headers: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

/// A text with a style.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Creates a cell with a style.
    #[must_use]
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

/// An empty text becomes a dash, as in kubectl.
impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text: String = text.into();
        let text = if text.is_empty() { "-".to_owned() } else { text };
        Self { text, style: Style::new() }
    }
}

impl<const N: usize> Table<N> {
    /// Creates a table without rows.
    #[must_use]
    pub fn new(headers: [&'static str; N]) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// Tells whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table, or blocks of lines if it is wider than `width`. Without a `width`, there is no limit.
    ///
    /// # Errors
    ///
    /// Returns the error of the output.
    pub fn write(&self, out: &mut impl Write, width: Option<usize>) -> io::Result<()> {
        let widths = self.widths();
        let whole = widths.iter().map(|width| width.saturating_add(GAP.len())).sum::<usize>();
        if width.is_some_and(|width| whole.saturating_sub(GAP.len()) > width) {
            return self.write_blocks(out);
        }
        let headers = self.headers.map(|header| Cell::styled(header, STRONG));
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut pending = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let Cell { text, style } = cell;
                write!(out, "{pending}{style}{text}{style:#}")?;
                // No blanks are written after the last cell.
                pending = format!("{:1$}{GAP}", "", width.saturating_sub(text.len()));
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_blocks(&self, out: &mut impl Write) -> io::Result<()> {
        let widest = self.headers.iter().map(|header| header.len()).max().unwrap_or_default();
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            for (header, Cell { text, style }) in self.headers.iter().zip(row) {
                writeln!(out, "{STRONG}{header:widest$}{STRONG:#}{GAP}{style}{text}{style:#}")?;
            }
        }
        Ok(())
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.headers.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.len());
            }
        }
        widths
    }
}

/// Returns the width of the terminal, if standard output is one.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::colour::BAD;

    fn shown(width: Option<usize>) -> String {
        let mut table = Table::new(["NAME", "READY", "WHERE"]);
        table.push(["imaps".into(), "True".into(), "*:993".into()]);
        table.push(["mx".into(), Cell::styled("False", BAD), "".into()]);
        let mut out = anstream::StripStream::new(Vec::new());
        table.write(&mut out, width).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn a_table_is_aligned_without_blanks_at_the_end() {
        assert_eq!(shown(None), "NAME   READY  WHERE\nimaps  True   *:993\nmx     False  -\n");
        assert_eq!(shown(Some(19)), shown(None));
    }

    #[test]
    fn rows_that_are_too_wide_become_blocks() {
        assert_eq!(
            shown(Some(18)),
            "NAME   imaps\nREADY  True\nWHERE  *:993\n\nNAME   mx\nREADY  False\nWHERE  -\n"
        );
    }
}
