//! Finds out whether an address belongs to this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Tells whether the address belongs to this machine: it is a loopback address, or the kernel uses the same address as
/// the source. (For 127.0.0.2 it uses 127.0.0.1.) Connecting a UDP socket sends no packet. If the kernel gives no
/// answer, the result is true, because callers refuse own addresses.
#[must_use]
pub fn is_ours(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || source_for(ip).map_or(true, |source| source == ip)
}

fn source_for(ip: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

/// The port of the discard service; any port would do.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_machines_addresses_from_others() {
        for ours in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.2"] {
            assert!(is_ours(ours.parse().unwrap()), "{ours}");
        }
        // TEST-NET-1: no machine has such an address. Without a route, the kernel gives no answer.
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert_eq!(is_ours(elsewhere), source_for(elsewhere).is_err());
    }
}
