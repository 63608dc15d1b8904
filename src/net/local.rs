//! Which addresses are this machine's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether this machine has the address: then the kernel talks to it from the same address. Connecting a UDP socket sends
/// nothing. When the kernel gives no answer, the address counts as ours, since the callers refuse ours.
#[must_use]
pub fn is_ours(ip: IpAddr) -> bool {
    source_for(ip).map_or(true, |source| source == ip)
}

fn source_for(ip: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

/// The port of the discard service; any would do.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_machines_addresses_from_others() {
        assert!(is_ours(Ipv4Addr::LOCALHOST.into()));
        // TEST-NET-1: no machine has an address of it. Without any route there is no answer, either.
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert_eq!(is_ours(elsewhere), source_for(elsewhere).is_err());
    }
}
