//! Writes YAML that YAML 1.1 and YAML 1.2 read in the same way.
//!
//! kubectl reads YAML 1.1, where a bare `Off` or `yes` is a boolean. serde_yaml writes YAML 1.2, where it is a string.

use serde::Serialize;

/// Returns a document that ends with a line break.
///
/// # Errors
///
/// Fails if the value cannot be converted to YAML.
pub fn to_string(value: &impl Serialize) -> Result<String, serde_yaml::Error> {
    let text = serde_yaml::to_string(value)?;
    let mut quoted = String::with_capacity(text.len());
    let mut block: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|outer| indent > outer || line.is_empty()) {
            quoted.push_str(line);
        } else {
            let starts_block =
                [" |", " |-", " |+", " >", " >-", " >+"].iter().any(|mark| line.ends_with(mark));
            block = starts_block.then_some(indent);
            quoted.push_str(&quote(line));
        }
        quoted.push('\n');
    }
    Ok(quoted)
}

/// Tells whether a bare word is a boolean in YAML 1.1 but not in YAML 1.2.
#[must_use]
pub fn is_old_boolean(word: &str) -> bool {
    const WORDS: [&str; 16] =
        ["y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"];
    WORDS.contains(&word)
}

/// Adds quotes if the value or element in a line is such a word.
fn quote(line: &str) -> String {
    let start = line.rfind(": ").or_else(|| line.rfind("- ")).map_or(0, |index| index + 2);
    let (head, word) = line.split_at(start);
    if is_old_boolean(word) { format!("{head}'{word}'") } else { line.to_owned() }
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
