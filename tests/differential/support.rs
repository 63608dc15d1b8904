//! Fixtures of `tests/it` that are needed here too.

#[path = "../it/support/acceptor.rs"]
pub mod acceptor;
#[path = "../it/support/generated.rs"]
pub mod generated;
#[path = "../it/support/mailgress.rs"]
pub mod mailgress;
#[path = "../it/support/manifest.rs"]
pub mod manifest;
#[path = "../it/support/pki.rs"]
pub mod pki;
#[path = "../it/support/ports.rs"]
pub mod ports;
#[path = "../it/support/process.rs"]
pub mod process;
#[path = "../it/support/wait.rs"]
pub mod wait;
