//! Counts what a login allocates, so that a change which makes it cost more is seen. `make bench` measures CPU time, but not
//! in the tests: it depends on the machine. These numbers do not.
//!
//! The whole process runs within this test, under an allocator that counts. The client, the backend and the auth service
//! use the same allocator, so they allocate nothing while it is read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "to panic is how a test fails")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use mailgress::cli::Cli;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations of one plain IMAP login, from the accept to the end of the session. A debug build makes
/// some more than a release.
const MAX_ALLOCATIONS: usize = 72;

/// The bytes of these.
const MAX_BYTES: usize = 18 * 1024;

#[test]
fn a_plain_login_allocates_little() {
    let (backend, auth) = (listen(), listen());
    let answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {}\r\n\r\n",
        backend.local_addr().unwrap().port()
    );
    let auth_port = auth.local_addr().unwrap().port();
    thread::spawn(move || serve_auth(&auth, answer.as_bytes()));
    thread::spawn(move || serve_imap(&backend));
    let (port, admin) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.yaml"), manifest(port, auth_port)).unwrap();
    start(folder.path(), admin);
    wait_until_it_serves(port);
    log_in(port, WARM_UP);
    let region = Region::new(ALLOCATOR);
    log_in(port, LOGINS);
    let cost = region.change();
    let allocations = (cost.allocations + cost.reallocations) / LOGINS;
    let bytes = cost.bytes_allocated / LOGINS;
    println!("{allocations} allocations, {bytes} bytes for each login");
    assert!(allocations <= MAX_ALLOCATIONS, "{allocations} allocations for each login");
    assert!(bytes <= MAX_BYTES, "{bytes} bytes for each login");
}

/// Runs for the rest of the test's process, whose end is its end.
fn start(folder: &Path, admin: u16) {
    // The only provider of the process, as in `main`.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address = format!("127.0.0.1:{admin}");
    let addresses = ["--admin-address", &address, "--status-address", &address];
    let arguments = ["mailgress", "run", "--workers", "1", "--log", "warn"];
    let arguments = arguments.into_iter().chain(addresses).chain(["--manifests"]);
    let command = Cli::try_parse_from(arguments.map(Into::into).chain([folder.as_os_str().to_owned()]));
    let command = command.unwrap().command;
    thread::spawn(move || command.run().unwrap());
}

fn manifest(port: u16, auth_port: u16) -> String {
    serde_json::json!({
        "apiVersion": "mailgress.dev/v1alpha1", "kind": "MailServer",
        "metadata": { "name": "test", "namespace": "mail" },
        "spec": {
            "serverName": "mail.example.test",
            "auth": { "http": { "url": format!("http://127.0.0.1:{auth_port}/auth") } },
            "listeners": [{
                "name": "imap", "protocol": "IMAP", "address": "127.0.0.1", "port": port,
                "tls": { "mode": "Disabled" }, "backendAddress": "127.0.0.1:1",
            }],
        },
    })
    .to_string()
}

fn wait_until_it_serves(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "it does not serve");
        thread::sleep(Duration::from_millis(20));
    }
}

/// One session after another.
fn log_in(port: u16, count: usize) {
    for _ in 0..count {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        expect(&mut stream, b"* OK");
        stream.write_all(b"a LOGIN user@example.test secret\r\n").unwrap();
        expect(&mut stream, b"a OK");
        stream.write_all(b"b LOGOUT\r\n").unwrap();
        expect(&mut stream, b"* BYE");
        while stream.read(&mut [0; 64]).unwrap() > 0 {}
    }
}

fn expect(stream: &mut TcpStream, start: &[u8]) {
    let mut buffer = [0; 256];
    let line = read_line(stream, &mut buffer);
    assert!(line.starts_with(start), "{}", String::from_utf8_lossy(line));
}

/// Reads until a line is whole; empty at the end of the stream.
fn read_line<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> &'a [u8] {
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"\r\n") {
        match stream.read(&mut buffer[filled..]).unwrap() {
            0 => return b"",
            count => filled += count,
        }
    }
    &buffer[..filled]
}

/// Closes each connection, so that the next one can be served.
fn serve_auth(listener: &TcpListener, answer: &[u8]) {
    for stream in listener.incoming() {
        let (mut stream, mut buffer, mut filled) = (stream.unwrap(), [0; 1024], 0);
        while !buffer[..filled].ends_with(b"\r\n\r\n") {
            filled += stream.read(&mut buffer[filled..]).unwrap();
        }
        stream.write_all(answer).unwrap();
    }
}

fn serve_imap(listener: &TcpListener) {
    for stream in listener.incoming() {
        let (mut stream, mut buffer) = (stream.unwrap(), [0; 256]);
        stream.write_all(b"* OK ready\r\n").unwrap();
        let mut literals = 0;
        loop {
            let answer: &[u8] = match read_line(&mut stream, &mut buffer) {
                b"" => break,
                line if line.ends_with(b"}\r\n") => {
                    literals += 1;
                    b"+ OK\r\n"
                }
                _ if literals == 2 => {
                    literals = 0;
                    b"a OK logged in\r\n"
                }
                _ => {
                    stream.write_all(b"* BYE\r\nb OK bye\r\n").unwrap();
                    break;
                }
            };
            stream.write_all(answer).unwrap();
        }
    }
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn free_port() -> u16 {
    listen().local_addr().unwrap().port()
}

/// Sessions before the count: tables and buffers grow to their size.
const WARM_UP: usize = 50;

const LOGINS: usize = 200;

/// For everything that is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
