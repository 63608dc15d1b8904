//! `metadata.name` and `metadata.namespace`, as the API server takes them.

use serde_json::Value;

use super::super::violation::Violation;

/// What the API server refuses.
pub(super) fn violations(metadata: &Value) -> Vec<Violation> {
    let of = |field: &str, is_valid: fn(&str) -> bool, remedy: &str| {
        let value = metadata[field].as_str().filter(|name| !is_valid(name))?;
        let shown: String = value.chars().take(SHOWN).collect();
        let problem = format!("{shown:?} is not a valid {field}");
        Some(Violation::invalid(&format!("metadata.{field}"), problem, remedy))
    };
    let name = of("name", is_subdomain, SUBDOMAIN);
    name.into_iter().chain(of("namespace", is_label, LABEL)).collect()
}

/// RFC 1123 labels with dots between them.
fn is_subdomain(name: &str) -> bool {
    name.len() <= LONGEST_SUBDOMAIN && name.split('.').all(has_form)
}

/// One RFC 1123 label.
fn is_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && has_form(name)
}

fn has_form(label: &str) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let mut bytes = label.bytes();
    is_edge(label.bytes().next())
        && is_edge(label.bytes().next_back())
        && bytes.all(|b| b == b'-' || is_edge(Some(b)))
}

const SUBDOMAIN: &str = "use at most 253 lower-case letters, digits, hyphens and dots; begin and end each part between dots \
                         with a letter or digit";
const LABEL: &str =
    "use at most 63 lower-case letters, digits and hyphens; begin and end with a letter or digit";
const LONGEST_SUBDOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Characters of a name in a message.
const SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_valid_as_in_the_api_server() {
        let are_valid = |name: &str, namespace: &str| {
            violations(&json!({ "name": name, "namespace": namespace })).is_empty()
        };
        let long = "a".repeat(63);
        for (name, namespace) in [("a", "a"), ("0-a.b", "0"), (&[&*long; 3].join("."), &long)] {
            assert!(are_valid(name, namespace), "{name} {namespace}");
        }
        for name in ["A", "a_b", "-a", "a-", "a..b", ".a", "a.-b", "\u{e4}", "a b", &"a".repeat(254)] {
            assert!(!are_valid(name, "a"), "{name}");
        }
        for namespace in ["A", "a_b", "a.b", "-a", "", &"a".repeat(64)] {
            assert!(!are_valid("a", namespace), "{namespace}");
        }
    }
}
