//! Checks `metadata.name` and `metadata.namespace` as the API server does.

use serde_json::Value;

use crate::controller::names::{is_label, is_subdomain};
use crate::controller::violation::Violation;

/// Returns the violations that the API server would report.
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

const SUBDOMAIN: &str = "use at most 253 lower-case letters, digits, hyphens and dots; begin and end each part between dots \
                         with a letter or digit";
const LABEL: &str =
    "use at most 63 lower-case letters, digits and hyphens; begin and end with a letter or digit";
/// The maximum number of characters of a name in a message.
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
