//! Fixtures of `tests/it` that are needed here too.

#[path = "../it/support/generated.rs"]
pub mod generated;
#[path = "../it/support/go.rs"]
pub mod go;
#[path = "../it/support/pki.rs"]
pub mod pki;
#[path = "../it/support/ports.rs"]
pub mod ports;
#[path = "../it/support/process.rs"]
pub mod process;
#[path = "../it/support/wait.rs"]
pub mod wait;
