//! Fixtures of `tests/it` that are needed here too.

#[path = "../it/support/go.rs"]
pub mod go;
