//! nginx's HTTP auth protocol: a GET whose headers ask, and a reply whose headers answer.

mod certificate;
mod client;
mod connect;
mod exchange;
mod head;
mod pace;
mod pool;
mod quota;
mod reply;
mod request;
mod service;
#[cfg(test)]
mod tests;

pub use client::AuthClient;
pub use quota::Quota;
pub use reply::ReplyError;
