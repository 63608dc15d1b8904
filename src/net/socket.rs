//! Listening sockets, with options that the standard library cannot set.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::Serialize;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::address::ListenAddress;

/// The options of a listening socket. [`tune`] can change some of them; the others need a new socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketOptions {
    /// Length of the accept queue, in connections.
    pub backlog: u32,
    /// `SO_RCVBUF`, in bytes.
    pub receive_buffer: Option<u32>,
    /// `SO_SNDBUF`, in bytes.
    pub send_buffer: Option<u32>,
    /// `IPV6_V6ONLY`: an IPv6 wildcard does not accept IPv4.
    pub ipv6_only: bool,
    /// One socket for each worker (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Multipath TCP, if the kernel supports it; see [`Listening::is_multipath`].
    pub multipath: bool,
    /// TCP keepalive; `None` is the kernel's default.
    pub keepalive: Option<Keepalive>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 511,
            receive_buffer: None,
            send_buffer: None,
            ipv6_only: true,
            reuse_port: false,
            multipath: false,
            keepalive: None,
        }
    }
}

/// TCP keepalive; an absent field is the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Keepalive {
    /// `TCP_KEEPIDLE`: time before the first probe.
    #[serde(serialize_with = "duration::optional::serialize")]
    pub idle: Option<Duration>,
    /// `TCP_KEEPINTVL`: time between probes.
    #[serde(serialize_with = "duration::optional::serialize")]
    pub interval: Option<Duration>,
    /// `TCP_KEEPCNT`: unanswered probes before the connection is closed.
    pub probes: Option<u32>,
}

/// A listening socket in non-blocking mode.
#[derive(Debug)]
pub enum Listening {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A UNIX socket with its file.
    Unix(UnixListening),
}

impl Listening {
    /// Returns the bound address; `None` for UNIX sockets.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Tells whether the socket accepts Multipath TCP. It also accepts clients without it.
    #[must_use]
    pub fn is_multipath(&self) -> bool {
        SockRef::from(self).protocol().is_ok_and(|protocol| protocol == Some(Protocol::MPTCP))
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(unix) => unix.listener.as_fd(),
        }
    }
}

/// A bound UNIX socket. Dropping `file` removes the file, also after the parts are separated.
#[derive(Debug)]
pub struct UnixListening {
    /// The socket.
    pub listener: UnixListener,
    /// The guard of its file.
    pub file: SocketFile,
}

/// Removes the socket's file on drop, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode);
        if ours {
            // If the file cannot be removed, the next bind treats it as stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `address` and listens. `*` creates a socket for each family of the host, or one for both with `ipv6_only` off.
/// With `reuse_port`, each further call binds an additional socket.
///
/// # Errors
/// The message has the cause and the remedy; the kind is that of the system's error.
pub fn bind(address: &ListenAddress, options: &SocketOptions) -> io::Result<Vec<Listening>> {
    let bound = match address {
        ListenAddress::Any { port } => bind_any(*port, options),
        ListenAddress::Ip(ip) => bind_tcp(*ip, options).map(|listener| vec![Listening::Tcp(listener)]),
        ListenAddress::Unix(path) => bind_unix(path, options, OF_ALL).map(|unix| vec![Listening::Unix(unix)]),
    };
    bound.map_err(|error| explain(address, &error))
}

/// Binds a UNIX socket to which only root and the user of this process can connect.
///
/// # Errors
/// As [`bind`].
pub fn bind_private(path: &Path) -> io::Result<UnixListening> {
    let bound = bind_unix(path, &SocketOptions::default(), OF_THE_USER);
    bound.map_err(|error| explain(&ListenAddress::Unix(path.to_owned()), &error))
}

/// Changes the options that an open socket can change: backlog, buffers and keepalive. They apply to new connections.
/// An option that is no longer set keeps its value until the socket is bound again.
///
/// # Errors
/// The system's error.
pub fn tune(listening: &Listening, options: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(listening);
    set_buffers(SockRef::from(listening), options)?;
    if let (Some(keepalive), Listening::Tcp(_)) = (&options.keepalive, listening) {
        socket.set_tcp_keepalive(&keepalive_of(keepalive))?;
    }
    socket.listen(backlog_of(options))
}

fn bind_any(port: u16, options: &SocketOptions) -> io::Result<Vec<Listening>> {
    let v6 = bind_tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), options);
    if !options.ipv6_only && v6.as_ref().err().is_none_or(|error| !is_missing_family(error)) {
        return Ok(vec![Listening::Tcp(v6?)]);
    }
    let v4 = bind_tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), options);
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => Ok(vec![Listening::Tcp(v4), Listening::Tcp(v6)]),
        (Ok(one), Err(other)) | (Err(other), Ok(one)) if is_missing_family(&other) => {
            Ok(vec![Listening::Tcp(one)])
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Tells whether the host does not support the address family.
fn is_missing_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Linux's error number; the standard library has no kind for it.
const EAFNOSUPPORT: i32 = 97;

fn bind_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let plain = || tcp_socket(address, Protocol::TCP, options);
    let socket = match options.multipath {
        // Fall back to TCP if the kernel has no Multipath TCP, or if its Multipath TCP lacks a requested option.
        true => tcp_socket(address, Protocol::MPTCP, options).or_else(|_| plain())?,
        false => plain()?,
    };
    socket.bind(&address.into())?;
    socket.listen(backlog_of(options))?;
    Ok(socket.into())
}

fn tcp_socket(address: SocketAddr, protocol: Protocol, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6_only)?;
    }
    // Accepted sockets inherit these options.
    socket.set_tcp_nodelay(true)?;
    set_buffers(SockRef::from(&socket), options)?;
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(&keepalive_of(keepalive))?;
    }
    Ok(socket)
}

fn set_buffers(socket: SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    Ok(())
}

fn keepalive_of(keepalive: &Keepalive) -> TcpKeepalive {
    let mut options = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        options = options.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    options
}

fn backlog_of(options: &SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn bind_unix(path: &Path, options: &SocketOptions, mode: u32) -> io::Result<UnixListening> {
    let address = SockAddr::unix(path)?;
    remove_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    set_buffers(SockRef::from(&socket), options)?;
    let socket = File::from(OwnedFd::from(socket));
    // Linux creates the file with the mode of the socket, so nobody else can connect before the mode is set.
    socket.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&address)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
    // The process's umask may have removed permissions.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog_of(options))?;
    Ok(UnixListening { listener: socket.into(), file })
}

/// As nginx does: access is controlled by the directory.
const OF_ALL: u32 = 0o666;
/// Only the user of the process, and root.
const OF_THE_USER: u32 = 0o600;

/// Removes the file of a socket without a listener, left by a process that ended without cleaning up.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Do not wait for an owner whose queue is full.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Replaces the system's error by a message for the author of the manifest.
fn explain(address: &ListenAddress, error: &io::Error) -> io::Error {
    let unix = matches!(address, ListenAddress::Unix(_));
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse if unix => {
            "another process listens there; stop it or choose another path".to_owned()
        }
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop what listens there or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host does not have the address; use \"*\" or one of the host's own".to_owned()
        }
        io::ErrorKind::AlreadyExists if unix => {
            "the path is taken by something that is not a socket; remove it or choose another path".to_owned()
        }
        io::ErrorKind::NotFound if unix => "its directory does not exist; create it".to_owned(),
        io::ErrorKind::PermissionDenied if unix => {
            "permission denied; give the process write access to the directory".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE \
            or a lower net.ipv4.ip_unprivileged_port_start"
            .to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    fn loopback() -> ListenAddress {
        ListenAddress::Ip("127.0.0.1:0".parse().unwrap())
    }

    fn only_tcp(mut bound: Vec<Listening>) -> TcpListener {
        match (bound.pop(), bound.is_empty()) {
            (Some(Listening::Tcp(listener)), true) => listener,
            other => panic!("expected one TCP listener, got {other:?}"),
        }
    }

    #[test]
    fn accepted_connections_inherit_keepalive_and_buffers() {
        let keepalive = Keepalive {
            idle: Some(Duration::from_secs(77)),
            interval: Some(Duration::from_secs(11)),
            probes: Some(4),
        };
        let options = SocketOptions {
            keepalive: Some(keepalive),
            receive_buffer: Some(32 * 1024),
            ..SocketOptions::default()
        };
        let listener = only_tcp(bind(&loopback(), &options).unwrap());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        let served = Socket::from(served);
        assert!(served.keepalive().unwrap());
        assert_eq!(served.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(served.tcp_keepalive_retries().unwrap(), 4);
        // The kernel doubles the requested size.
        assert_eq!(served.recv_buffer_size().unwrap(), 64 * 1024);
    }

    /// Binds all addresses on a port that was free a moment ago. If another test has taken it meanwhile, tries another
    /// one.
    fn bind_any_port(options: &SocketOptions) -> (u16, Vec<Listening>) {
        let attempt = || {
            let probe = only_tcp(bind(&loopback(), &SocketOptions::default()).unwrap());
            let port = probe.local_addr().unwrap().port();
            drop(probe);
            bind(&ListenAddress::Any { port }, options).map(|bound| (port, bound))
        };
        let in_use = |tried: &io::Result<_>| matches!(tried, Err(e) if e.kind() == io::ErrorKind::AddrInUse);
        std::iter::repeat_with(attempt).take(PORTS_TRIED).find(|tried| !in_use(tried)).unwrap().unwrap()
    }

    const PORTS_TRIED: usize = 50;

    #[test]
    fn any_is_both_families_or_one_dual_stack_socket() {
        let reach = |address: &str, port| TcpStream::connect((address, port)).is_ok();
        let (port, both) = bind_any_port(&SocketOptions::default());
        assert!(!both.is_empty() && reach("127.0.0.1", port));
        let dual = SocketOptions { ipv6_only: false, ..SocketOptions::default() };
        let (port, one) = bind_any_port(&dual);
        let _one = only_tcp(one);
        assert!(reach("127.0.0.1", port));
    }

    #[test]
    fn a_multipath_listener_takes_plain_tcp_too_and_is_multipath_where_the_kernel_has_it() {
        let keepalive = Keepalive { idle: Some(Duration::from_secs(77)), ..Keepalive::default() };
        let options =
            SocketOptions { multipath: true, keepalive: Some(keepalive), ..SocketOptions::default() };
        let bound = bind(&loopback(), &options).unwrap();
        let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
        let kernel_has_it = enabled.trim() == "1"
            && tcp_socket("127.0.0.1:0".parse().unwrap(), Protocol::MPTCP, &options).is_ok();
        assert_eq!(bound[0].is_multipath(), kernel_has_it);
        let listener = only_tcp(bound);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        let plain = bind(&loopback(), &SocketOptions::default()).unwrap();
        assert!(!plain[0].is_multipath());
    }

    #[test]
    fn a_port_in_use_is_named_with_its_remedy() {
        let first = only_tcp(bind(&loopback(), &SocketOptions::default()).unwrap());
        let address = ListenAddress::Ip(first.local_addr().unwrap());
        let error = bind(&address, &SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn reuse_port_binds_one_socket_for_each_worker() {
        let options = SocketOptions { reuse_port: true, ..SocketOptions::default() };
        let first = only_tcp(bind(&loopback(), &options).unwrap());
        let address = ListenAddress::Ip(first.local_addr().unwrap());
        assert!(bind(&address, &options).is_ok());
    }

    #[test]
    fn privileged_ports_name_the_sysctl() {
        let address = ListenAddress::Any { port: 143 };
        let error = explain(&address, &io::ErrorKind::PermissionDenied.into());
        assert!(error.to_string().contains("net.ipv4.ip_unprivileged_port_start"), "{error}");
    }

    #[test]
    fn replaces_a_stale_unix_socket_and_removes_its_own_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imap.sock");
        let address = ListenAddress::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");

        let mut bound = bind(&address, &SocketOptions::default()).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        let error = bind(&address, &SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "a live socket is left alone: {error}");

        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        bound.clear();
        assert!(path.exists(), "not our file any more");
    }

    #[test]
    fn a_private_socket_is_the_users_alone_and_one_of_a_living_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let bound = bind_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bind_private(&path).unwrap_err();
        assert!(error.to_string().contains("another process listens there"), "{error}");
        assert!(UnixStream::connect(&path).is_ok());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn removes_the_unix_socket_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imap.sock");
        drop(bind(&ListenAddress::Unix(path.clone()), &SocketOptions::default()).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn never_removes_what_is_not_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.txt");
        fs::write(&path, "precious").unwrap();
        let error = bind(&ListenAddress::Unix(path.clone()), &SocketOptions::default()).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
