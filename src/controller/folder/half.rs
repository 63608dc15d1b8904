//! Decides whether a text may be only the first part of a file: it ends within a line, or lacks something of the
//! previous content. Pure.

use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use crate::controller::manifest::{Content, Manifest};

/// Tells whether the last line is complete.
pub(super) fn ends_cleanly(text: &str) -> bool {
    text.is_empty() || text.ends_with('\n') || text.trim_end().ends_with(['}', ']'])
}

/// Tells whether an object, a listener, a block of settings, or a key of an object's data is missing.
pub(super) fn lacks_any(old: &[Manifest], new: &[Manifest]) -> bool {
    old.iter().any(|old| {
        let is_it = |new: &&Manifest| new.kind == old.kind && new.key == old.key;
        new.iter().find(is_it).is_none_or(|new| content_lacks(&old.content, &new.content))
    })
}

fn content_lacks(old: &Content, new: &Content) -> bool {
    match (old, new) {
        (Content::Server(old), Content::Server(new)) => lacks(&old.written, &new.written),
        (Content::Listener(old), Content::Listener(new)) => lacks(&old.written, &new.written),
        (Content::Secret(old), Content::Secret(new)) => {
            old.data.keys().any(|key| !new.data.contains_key(key))
        }
        (Content::ConfigMap(old), Content::ConfigMap(new)) => old.keys().any(|key| !new.contains_key(key)),
        (Content::Service(old), Content::Service(new)) => ports(new) < ports(old),
        (Content::Slice(old), Content::Slice(new)) => new.endpoints.len() < old.endpoints.len(),
        (Content::Namespace(old), Content::Namespace(new)) => old.keys().any(|key| !new.contains_key(key)),
        (Content::LeavingPod | Content::Other, Content::LeavingPod | Content::Other) => false,
        _ => true,
    }
}

fn ports(service: &Service) -> usize {
    service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).map_or(0, Vec::len)
}

/// Tells whether a block of settings, a listener, or a block of a listener is missing. Missing fields within a block
/// are a normal change.
fn lacks(old: &Value, new: &Value) -> bool {
    let (Value::Object(fields), Value::Object(_)) = (old, new) else { return lacks_keys(old, new) };
    lacks_keys(old, new) || fields.iter().any(|(name, old)| lacks_elements(old, &new[name]))
}

fn lacks_keys(old: &Value, new: &Value) -> bool {
    old.as_object().into_iter().flatten().any(|(name, old)| !old.is_null() && new[name].is_null())
}

/// The same for the elements of a list, which are found by their names.
fn lacks_elements(old: &Value, new: &Value) -> bool {
    let new = new.as_array().map_or(&[][..], Vec::as_slice);
    let named = |old: &&Value| old["name"].is_string();
    old.as_array()
        .into_iter()
        .flatten()
        .filter(named)
        .any(|old| new.iter().find(|new| new["name"] == old["name"]).is_none_or(|new| lacks_keys(old, new)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incomplete_line_is_not_the_end() {
        assert!(
            ends_cleanly("")
                && ends_cleanly("a: b\n")
                && ends_cleanly("{\"a\": 1}")
                && ends_cleanly("a: [1] ")
        );
        assert!(!ends_cleanly("port: 14") && !ends_cleanly("a:"));
    }

    #[test]
    fn reports_missing_parts_and_not_changed_ones() {
        let old = json!({ "tls": { "mode": "Disabled" }, "listeners": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }] });
        let other = json!({ "tls": {}, "x": 1,
            "listeners": [{ "name": "b", "port": 3 }, { "name": "a", "port": 1 }] });
        assert!(!lacks(&old, &old) && !lacks(&old, &other));
        for new in [
            json!({ "listeners": old["listeners"] }),
            json!({ "tls": null, "listeners": old["listeners"] }),
            json!({ "tls": old["tls"], "listeners": [{ "name": "a", "port": 1 }] }),
            json!({ "tls": old["tls"], "listeners": [{ "name": "a", "port": 1 }, { "name": "c", "port": 2 }] }),
            json!({ "tls": old["tls"], "listeners": [{ "name": "a", "port": 1 }, { "name": "b" }] }),
        ] {
            assert!(lacks(&old, &new), "{new}");
        }
    }
}
