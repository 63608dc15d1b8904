//! Writes YAML that YAML 1.1 and YAML 1.2 read in the same way.
//!
//! kubectl reads YAML 1.1, where a bare `Off` or `yes` is a boolean. serde_yaml writes YAML 1.2, where it is a string.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::Serialize;
use serde::ser::Error;

/// Returns a document that ends with a line break.
///
/// # Errors
///
/// Fails if the value cannot be converted to YAML.
pub fn to_string(value: &impl Serialize) -> Result<String, serde_yaml::Error> {
    let text = serde_yaml::to_string(value)?;
    let mut quoted = String::with_capacity(text.len());
    let (mut rest, mut read) = (text.chars(), 0);
    for parsed in Parser::new_from_str(&text) {
        let (event, span) = parsed.map_err(serde_yaml::Error::custom)?;
        if let Event::Scalar(word, ScalarStyle::Plain, ..) = event
            && is_old_boolean(&word)
        {
            let start = span.start.index();
            quoted.extend(rest.by_ref().take(start.saturating_sub(read)));
            read = start.saturating_add(rest.by_ref().take(word.len()).count());
            quoted.extend(["'", &word, "'"]);
        }
    }
    quoted.extend(rest);
    Ok(quoted)
}

/// Tells whether a bare word is a boolean in YAML 1.1 but not in YAML 1.2.
#[must_use]
pub fn is_old_boolean(word: &str) -> bool {
    const WORDS: [&str; 16] =
        ["y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"];
    WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotes_what_kubectl_would_take_for_a_boolean() {
        let text =
            to_string(&json!({ "a": "Off", "b": ["NO", "Office", "y"], "c": { "d": "on" }, "e": true }));
        assert_eq!(text.unwrap(), "a: 'Off'\nb:\n- 'NO'\n- Office\n- 'y'\nc:\n  d: 'on'\ne: true\n");
        assert!(is_old_boolean("Yes") && !is_old_boolean("yEs") && !is_old_boolean(""));
    }

    #[test]
    fn leaves_texts_of_several_lines_alone() {
        let value = json!({ "a": "first\nb: Off\n", "c": "Off" });
        let text = to_string(&value).unwrap();
        assert_eq!(text, "a: |\n  first\n  b: Off\nc: 'Off'\n");
        assert_eq!(serde_yaml::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
