//! Addresses, sockets and streams for the layers above; independent of mail protocols.

pub mod address;
pub mod backoff;
pub mod capped;
pub mod connect;
pub mod descriptors;
pub mod local;
pub mod roots;
pub mod socket;
pub mod stream;
pub mod tls_names;

pub use address::{BackendAddress, ClientAddress, ListenAddress, network};
pub use backoff::Backoff;
pub use capped::{CapReached, Capped};
pub use connect::connect_tcp;
pub use descriptors::{Descriptors, has_no_descriptor};
pub use local::is_ours;
pub use socket::{Keepalive, Listening, SocketOptions, bind};
pub use stream::{Arrived, Socket, Stream};
