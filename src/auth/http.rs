//! nginx's HTTP auth protocol: a GET request with the login in its headers, and a reply with the decision in its
//! headers.

mod certificate;
mod client;
mod connect;
mod exchange;
pub mod head;
pub mod headers;
mod pace;
mod pool;
mod quota;
pub mod reply;
mod request;
mod service;
#[cfg(test)]
mod tests;

pub use client::AuthClient;
pub use quota::Quota;
pub use reply::ReplyError;
