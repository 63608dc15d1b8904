//! Fixtures: servers, clients, certificates, manifests, and the process under test.

pub mod acceptor;
pub mod auth_service;
pub mod backend;
pub mod clients;
pub mod digests;
pub mod dovecot;
pub mod generated;
pub mod imported;
pub mod mailboxes;
pub mod mailgress;
pub mod manifest;
pub mod message;
pub mod name_server;
pub mod openssl;
pub mod pki;
pub mod ports;
pub mod postfix;
pub mod process;
pub mod servers;
pub mod talk;
pub mod tls_client;
pub mod tokens;
pub mod wait;
pub mod wire;
