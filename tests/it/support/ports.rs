//! Free ports, each returned only once.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Returns a TCP port that nobody listens on, on both loopback addresses. It is below the range of ports for outgoing
/// connections, so that it stays free until it is bound.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..SPAN {
        // Parallel test processes start at different ports.
        let start = u16::try_from(std::process::id() % u32::from(SPAN)).unwrap();
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
        {
            return port;
        }
    }
    panic!("no free port");
}

const FIRST: u16 = 18_000;
const SPAN: u16 = 14_000;
