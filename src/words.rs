//! Formats numbers with their nouns, and paths, for all texts that people read.

use std::fmt::Display;
use std::path::Path;

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

/// Returns the path as text. Control characters are escaped, because whoever may create files must not be able to control
/// the terminal of a person who reads their names.
#[must_use]
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_debug());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_control_characters() {
        for (path, text) in [
            ("mail/a b.yaml", "mail/a b.yaml"),
            ("höf'\"\\.yaml", "höf'\"\\.yaml"),
            ("a\u{1b}[2J\nb\r\u{9b}.yaml", "a\\u{1b}[2J\\nb\\r\\u{9b}.yaml"),
        ] {
            assert_eq!(shown(Path::new(path)), text);
        }
    }

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
