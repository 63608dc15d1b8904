//! Clients that run during a change: IMAP sessions that stay open, and a stream of mail. Every attempt is recorded.

use std::collections::BTreeSet;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::mail::PASSWORD;
use crate::support::pki::AUTHORITY;
use crate::support::talk::{is_success, log_in};
use crate::support::wait;
use crate::support::wire::Wire;

/// Both kinds of clients.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    /// The number of answers for each session, then the number of accepted messages.
    done: Arc<Vec<AtomicUsize>>,
    sessions: Vec<JoinHandle<Sessions>>,
    stream: JoinHandle<Stream>,
}

/// The results of the sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Connections that were tried.
    pub attempts: usize,
    /// When and how logged-in sessions ended.
    pub ended: Vec<(Instant, String)>,
    /// When and why a session could not be opened.
    pub refused: Vec<(Instant, String)>,
    /// Answers within sessions.
    pub answers: usize,
}

/// The results of the stream of mail.
#[derive(Debug, Default)]
pub struct Stream {
    /// Connections that were tried, one for each message.
    pub attempts: usize,
    /// The ids of accepted messages.
    pub taken: BTreeSet<String>,
    /// When and why a message was not accepted.
    pub refused: Vec<(Instant, String)>,
}

/// The addresses for clients.
#[derive(Clone, Copy)]
pub struct Doors {
    /// IMAP with implicit TLS.
    pub imaps: SocketAddr,
    /// Submission with STARTTLS.
    pub submission: SocketAddr,
}

impl Traffic {
    /// Starts this number of sessions and the stream, and waits until all work. All message ids have the prefix.
    pub fn start(doors: Doors, sessions: usize, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done: Arc<Vec<AtomicUsize>> = Arc::new((0..=sessions).map(|_| AtomicUsize::new(0)).collect());
        let threads = (0..sessions).map(|each| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || stay(doors.imaps, &stop, &done[each]))
        });
        let (threads, prefix) = (threads.collect(), prefix.to_owned());
        let stream = std::thread::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            move || send_on(doors.submission, &prefix, &stop, &done[sessions])
        });
        let traffic = Self { stop, done, sessions: threads, stream };
        traffic.goes_on();
        traffic
    }

    /// Waits until every session has another answer and another message is accepted.
    pub fn goes_on(&self) {
        let done = || self.done.iter().map(|each| each.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = done();
        wait::eventually("all clients go on", || {
            done().iter().zip(&before).all(|(now, before)| now > before).then_some(())
        });
    }

    /// Stops the clients and returns the results.
    pub fn stop(self) -> (Sessions, Stream) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sessions::default();
        for session in self.sessions {
            let session = session.join().unwrap();
            all.attempts += session.attempts;
            all.answers += session.answers;
            all.ended.extend(session.ended);
            all.refused.extend(session.refused);
        }
        (all, self.stream.join().unwrap())
    }
}

/// A client that is logged out reconnects at once, as a mail program does.
fn stay(address: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) -> Sessions {
    let mut told = Sessions::default();
    while !stop.load(Ordering::Relaxed) {
        told.attempts += 1;
        let mut wire = match imap_session(address, USER) {
            Ok(wire) => wire,
            Err(error) => {
                told.refused.push((Instant::now(), error.to_string()));
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            match wire.imap("n", "NOOP") {
                Ok(_) => {
                    told.answers += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    told.ended.push((Instant::now(), error.to_string()));
                    break;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
    told
}

fn send_on(address: SocketAddr, prefix: &str, stop: &AtomicBool, done: &AtomicUsize) -> Stream {
    let mut told = Stream::default();
    while !stop.load(Ordering::Relaxed) {
        told.attempts += 1;
        let id = format!("{prefix}.{}@example.test", told.attempts);
        match send(address, USER, &id) {
            Ok(()) => {
                told.taken.insert(id);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => told.refused.push((Instant::now(), format!("{id}: {error}"))),
        }
        std::thread::sleep(PAUSE);
    }
    told
}

/// Connects with TLS and logs in.
pub fn imap_session(address: SocketAddr, user: &str) -> Result<Wire> {
    let mut wire = Wire::connect(address)?.handshake_as(AUTHORITY.client(), HOST)?;
    expect("greeting", wire.line()?, |line| line.starts_with("* OK"))?;
    let answer = log_in(&mut wire, "IMAP", user, PASSWORD)?;
    expect("login", answer, |line| is_success("IMAP", line))?;
    Ok(wire)
}

/// Sends a message with this id to the sender, with STARTTLS.
pub fn send(address: SocketAddr, user: &str, id: &str) -> Result<()> {
    let mut wire = Wire::connect(address)?;
    expect("greeting", wire.line()?, |line| line.starts_with("220 "))?;
    wire.smtp("EHLO client.example.test")?;
    expect("STARTTLS", wire.ask("STARTTLS")?, |line| line.starts_with("220 "))?;
    let mut wire = wire.handshake_as(AUTHORITY.client(), HOST)?;
    expect("login", log_in(&mut wire, "SMTP", user, PASSWORD)?, |line| is_success("SMTP", line))?;
    expect("MAIL", wire.ask(&format!("MAIL FROM:<{user}>"))?, |line| line.starts_with("250 "))?;
    expect("RCPT", wire.ask(&format!("RCPT TO:<{user}>"))?, |line| line.starts_with("250 "))?;
    expect("DATA", wire.ask("DATA")?, |line| line.starts_with("354 "))?;
    let message =
        format!("From: <{user}>\r\nTo: <{user}>\r\nSubject: e2e\r\nMessage-ID: <{id}>\r\n\r\n{id}\r\n.");
    expect("end of data", wire.ask(&message)?, |line| line.starts_with("250 "))?;
    // The message is accepted. How the session ends does not matter.
    let _ = wire.ask("QUIT");
    Ok(())
}

/// Returns the ids of all messages in a mailbox, in order.
pub fn read_all(address: SocketAddr, user: &str) -> Result<Vec<String>> {
    let mut wire = imap_session(address, user)?;
    wire.imap("s", "SELECT INBOX")?;
    let lines = wire.imap("f", "UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")?;
    let id = |line: &String| Some(line.split_once('<')?.1.split_once('>')?.0.to_owned());
    Ok(lines
        .iter()
        .filter(|line| line.to_ascii_lowercase().starts_with("message-id:"))
        .filter_map(id)
        .collect())
}

fn expect(what: &str, answer: String, good: impl Fn(&str) -> bool) -> Result<()> {
    if good(&answer) { Ok(()) } else { Err(Error::other(format!("{what}: {answer}"))) }
}

/// The user of the mailbox.
pub const USER: &str = "stream@example.test";
/// The host name in the certificate.
pub const HOST: &str = "mail.example.test";
/// Pause between two actions of a client.
const PAUSE: Duration = Duration::from_millis(150);
