//! Opens TCP connections. The event that ends the wait also tells whether the connection failed, so that a successful
//! one needs no further system call.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Connects to `address`.
///
/// # Errors
/// The system's error.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        // The kernel goes on connecting after a signal.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from_std(StdTcpStream::from(socket))?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if (ready.is_error() || ready.is_write_closed())
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn connects_over_both_families() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local).await else { continue };
            let mut stream = connect_tcp(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, from) = listener.accept().await.unwrap();
            assert_eq!(from, stream.local_addr().unwrap());
            stream.write_all(b"ping").await.unwrap();
            let mut heard = [0; 4];
            peer.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ping");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect_tcp(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
