//! Finds the field that was probably intended by an unknown one.

use std::collections::VecDeque;

use serde_json::Value;

/// Returns the remedy for an unknown field of a block: the same field elsewhere, or the most similar one.
pub(super) fn meant(name: &str, block: &Value, spec: &Value) -> String {
    let typo = nearest(name, block);
    if let Some((0 | 1, field)) = typo {
        return format!("did you mean {field}?");
    }
    if let Some(path) = below(name, block) {
        return format!("did you mean {path}?");
    }
    match (typo, below(name, spec)) {
        (_, Some(path)) => format!("did you mean spec.{path}?"),
        (Some((distance, field)), None) if distance <= 1 + name.len() / 3 => format!("did you mean {field}?"),
        _ => "remove it, or correct its name".to_owned(),
    }
}

/// Returns the most similar field of a block.
fn nearest<'b>(name: &str, block: &'b Value) -> Option<(usize, &'b String)> {
    let fields = block["properties"].as_object().into_iter().flatten().map(|(field, _)| field);
    fields.map(|field| (distance(name, field), field)).min()
}

/// Returns the path of a field with exactly this name, the outermost first: `tls.mode`, `listeners[].port`.
fn below(name: &str, block: &Value) -> Option<String> {
    let mut open = VecDeque::from([(String::new(), block)]);
    while let Some((path, block)) = open.pop_front() {
        for (field, child) in block["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            if field == name {
                return Some(path);
            }
            match child.get("items") {
                Some(items) => open.push_back((format!("{path}[]"), items)),
                None => open.push_back((path, child)),
            }
        }
    }
    None
}

/// Returns the Levenshtein distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_ascii_lowercase().chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
