//! Free ports, each returned only once, to one of all test processes that run at the same time.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// Returns a TCP port that nobody listens on, on both loopback addresses. It is below the range of ports for outgoing
/// connections, so that it stays free until it is bound.
pub fn free() -> u16 {
    static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { claims: Vec::new(), next: 0, end: 0 });
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner).free()
}

/// The blocks of ports that this process has claimed.
struct Blocks {
    /// A UDP socket on the first port of each block. While it is open, no other test process can claim the block.
    claims: Vec<UdpSocket>,
    /// The next port to return, and the end of its block.
    next: u16,
    end: u16,
}

impl Blocks {
    fn free(&mut self) -> u16 {
        loop {
            while self.next < self.end {
                let port = self.next;
                self.next += 1;
                if nobody_listens(port) {
                    return port;
                }
            }
            self.claim();
        }
    }

    /// Claims another block. Parallel processes begin their search at different blocks.
    fn claim(&mut self) {
        let blocks = (LAST - FIRST) / BLOCK;
        let start = u16::try_from(std::process::id() % u32::from(blocks)).unwrap();
        let claimed = (0..blocks).find_map(|index| {
            let first = FIRST + (start + index) % blocks * BLOCK;
            let claim = UdpSocket::bind(SocketAddr::from((CLAIMS, first))).ok()?;
            Some((claim, first))
        });
        let (claim, first) = claimed.expect("a block of ports that no test process has claimed");
        self.claims.push(claim);
        (self.next, self.end) = (first, first + BLOCK);
    }
}

fn nobody_listens(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
}

const FIRST: u16 = 18_000;
const LAST: u16 = 32_000;
const BLOCK: u16 = 100;

/// An address that no test uses for UDP.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 255, 0, 1);
