//! The code in `src`, without tests.

use std::path::Path;

use proc_macro2::TokenStream;

use crate::pages::root;

/// Returns each file's name with its code.
pub fn production() -> Vec<(String, TokenStream)> {
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found
}

fn walk(folder: &Path, found: &mut Vec<(String, TokenStream)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push((name, code.parse().unwrap()));
        }
    }
}
