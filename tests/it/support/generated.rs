//! Generated files that are committed. `make generate` writes them; all other runs compare them.

use std::path::Path;

/// Compares the committed file `name`, a path in the repository, with `text`. With `make generate`, writes the file.
///
/// # Panics
/// The file is out of date, or the test's name does not contain `generated`: `make generate` runs only such tests.
pub fn is_current(name: impl AsRef<Path>, text: &str) {
    let name = name.as_ref().display();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    assert!(test.contains("generated"), "make generate does not run {test}: put `generated` into its name");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name.to_string());
    if is_written() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let same = kept.lines().zip(text.lines()).take_while(|(kept, made)| kept == made).count();
    assert!(kept == text, "{name} is out of date from line {}; run `make generate`", same + 1);
}

/// Tells whether `make generate` is running.
pub fn is_written() -> bool {
    std::env::var_os("MAILGRESS_GENERATE").is_some()
}
