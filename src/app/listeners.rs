//! Opens the sockets of the admin server, and serves each of them its pages.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Pages, Server};

use super::RunOptions;

/// The sockets of the admin server.
pub(super) struct Listeners {
    admin: TcpListener,
    status: Status,
}

/// Where the status page is.
enum Status {
    /// At the address of the admin server, with all other pages.
    WithAdmin,
    At(TcpListener),
    /// Its address cannot be used.
    Nowhere,
}

impl Listeners {
    /// Returns the port of the status page; that of the admin server if there is no page.
    pub(super) fn status_port(&self) -> io::Result<u16> {
        let listener = match &self.status {
            Status::At(listener) => listener,
            Status::WithAdmin | Status::Nowhere => &self.admin,
        };
        Ok(listener.local_addr()?.port())
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(self, server: Server, shutdown: CancellationToken) -> io::Result<()> {
        match self.status {
            Status::WithAdmin => server.serve(self.admin, Pages::All, shutdown).await,
            Status::Nowhere => server.serve(self.admin, Pages::Health, shutdown).await,
            Status::At(status) => {
                let status = server.clone().serve(status, Pages::Status, shutdown.clone());
                tokio::try_join!(server.serve(self.admin, Pages::Health, shutdown), status).map(drop)
            }
        }
    }
}

/// Opens the sockets of the admin server.
pub(super) fn listen(options: &RunOptions) -> anyhow::Result<Listeners> {
    let admin = listen_at(options.admin_address, "--admin-address")?;
    info!(address = %admin.local_addr()?, "the admin server listens");
    if options.admin_address == options.status_address {
        return Ok(Listeners { admin, status: Status::WithAdmin });
    }
    let status = match listen_at(options.status_address, "--status-address") {
        Ok(listener) => {
            info!(address = %listener.local_addr()?, "the status page is at this address");
            Status::At(listener)
        }
        // Mail does not depend on the page.
        Err(error) => {
            warn!("there is no status page: {error:#}");
            Status::Nowhere
        }
    };
    Ok(Listeners { admin, status })
}

fn listen_at(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of a process that has just ended may still occupy the address.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| {
        format!(
            "cannot listen on {flag} {address}; if another process uses it (`ss -ltnp` shows which), choose another \
             address or port"
        )
    })
}

/// Length of the accept queue. If the queue is full, the kernel drops the first packet of a probe, which delays the
/// probe by a second.
const BACKLOG: u32 = 4096;
