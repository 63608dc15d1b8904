//! A forwarder between Mailgress and the API server that can fail.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::{Mutex, MutexGuard};

/// Forwards TCP connections until it is told otherwise.
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    refuses: AtomicBool,
    /// A connection hangs after a client has sent this.
    stalls: Option<String>,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    ends: [TcpStream; 2],
    hangs: Arc<AtomicBool>,
}

impl Forwarder {
    /// Forwards to this address.
    pub fn start(to: SocketAddr) -> Self {
        Self::start_with(to, Shared::default())
    }

    /// Forwards to this address with plain HTTP. GET requests that contain this text are never answered.
    pub fn stalling(to: SocketAddr, request: &str) -> Self {
        Self::start_with(to, Shared { stalls: Some(request.to_owned()), ..Shared::default() })
    }

    fn start_with(to: SocketAddr, shared: Shared) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(shared);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !accepting.refuses.load(Ordering::Relaxed) {
                    accepting.join(client, to);
                }
            }
        });
        Self { address, shared }
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for connection in self.shared.connections().drain(..) {
            for end in &connection.ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Sets whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Makes existing connections hang silently. New ones work.
    pub fn hang(&self) {
        for connection in self.shared.connections().iter() {
            connection.hangs.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock()
    }

    fn join(&self, client: TcpStream, to: SocketAddr) {
        // If the server is not available, the connection is closed.
        let Ok(server) = TcpStream::connect(to) else { return };
        let hangs = Arc::new(AtomicBool::new(false));
        for (from, into) in [(&client, &server), (&server, &client)] {
            let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
            let (hangs, stalls) = (Arc::clone(&hangs), self.stalls.clone());
            thread::spawn(move || copy(from, into, &hangs, stalls.as_deref()));
        }
        self.connections().push(Connection { ends: [client, server], hangs });
    }
}

fn copy(mut from: TcpStream, mut into: TcpStream, hangs: &AtomicBool, stalls: Option<&str>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        // The head of a request arrives in one piece.
        let head = String::from_utf8_lossy(&buffer[..read]);
        if stalls.is_some_and(|text| head.starts_with("GET ") && head.contains(text)) {
            hangs.store(true, Ordering::Relaxed);
        }
        if hangs.load(Ordering::Relaxed) {
            // Drop all bytes, and the end too.
            if read == 0 {
                return;
            }
            continue;
        }
        if read == 0 || into.write_all(&buffer[..read]).is_err() {
            let _ = into.shutdown(Shutdown::Both);
            return;
        }
    }
}
