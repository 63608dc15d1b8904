//! Fixtures of `tests/it` that are needed here too.

#[path = "../it/support/acceptor.rs"]
pub mod acceptor;
#[path = "../it/support/auth_service.rs"]
pub mod auth_service;
#[path = "../it/support/backend.rs"]
pub mod backend;
#[path = "../it/support/mailboxes.rs"]
pub mod mailboxes;
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
#[path = "../it/support/talk.rs"]
pub mod talk;
#[path = "../it/support/tokens.rs"]
pub mod tokens;
#[path = "../it/support/wait.rs"]
pub mod wait;
#[path = "../it/support/wire.rs"]
pub mod wire;
