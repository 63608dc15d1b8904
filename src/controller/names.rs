//! The forms of names in Kubernetes (RFC 1123), and of conditions' reasons.

/// Tells whether an object can have this name: labels, separated by dots, with at most 253 characters.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= LONGEST_SUBDOMAIN && name.split('.').all(has_form)
}

/// Tells whether a namespace can have this name: one label of at most 63 characters.
pub(super) fn is_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && has_form(name)
}

/// Tells whether a condition can have this reason: the pattern and the length in the API.
pub(super) fn is_reason(reason: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = reason.as_bytes();
    bytes.len() <= LONGEST_REASON
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| is_word(*last))
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b',' | b':'))
}

fn has_form(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    let ends_are_plain =
        [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(|end| is_plain(*end)));
    ends_are_plain && bytes.iter().all(|byte| is_plain(*byte) || *byte == b'-')
}

const LONGEST_SUBDOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;
const LONGEST_REASON: usize = 1024;
