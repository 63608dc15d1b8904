//! A TCP server with one thread per connection. Dropping it ends all connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A listening socket with a handler.
pub struct Acceptor {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    accepted: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Acceptor {
    /// Accepts on its own port on 127.0.0.1.
    pub fn start(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), handler)
    }

    /// Accepts on its own port on this local address.
    pub fn start_on(ip: IpAddr, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        // Another test process may have taken the port meanwhile.
        let bind = || TcpListener::bind((ip, super::ports::free()));
        let listener = std::iter::repeat_with(bind).take(BINDS).find_map(Result::ok).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (ours, handler) = (Arc::clone(&shared), Arc::new(handler));
        std::thread::spawn(move || accept(&listener, &ours, &handler));
        Self { address, shared }
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

const BINDS: usize = 10;

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    handler: &Arc<impl Fn(TcpStream) + Send + Sync + 'static>,
) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let Ok(copy) = stream.try_clone() else { continue };
        shared.open.lock().unwrap().insert(number, copy);
        let (shared, handler) = (Arc::clone(shared), Arc::clone(handler));
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            handler(stream);
            // Shut it down, because the copy would keep the connection open.
            if let Some(copy) = shared.open.lock().unwrap().remove(&number) {
                let _ = copy.shutdown(Shutdown::Both);
            }
        });
    }
}
