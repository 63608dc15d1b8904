//! Formats numbers with their nouns, for all texts that people read.

use std::fmt::Display;

/// Formats `1 listener`, `2 listeners`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    format!("{number} {}", plural(number, noun))
}

/// Returns the noun in the form that matches the number.
#[must_use]
pub fn plural<N: PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_and_many_are_plural() {
        assert_eq!(
            [0_usize, 1, 2].map(|number| counted(number, "listener")),
            ["0 listeners", "1 listener", "2 listeners"]
        );
        assert_eq!(
            (plural(1_usize, "object"), counted(-1_i64, "day")),
            ("object".to_owned(), "-1 days".to_owned())
        );
    }
}
