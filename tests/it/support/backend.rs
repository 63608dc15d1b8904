//! Scripted backends, for behaviour that real servers do not show on demand.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::acceptor::Acceptor;
use super::mailboxes::Mailboxes;

/// A backend that accepts all logins and then sends its name, except with the passwords [`WRONG`] and [`LATER`].
pub struct Backend {
    acceptor: Acceptor,
}

/// The password that all scripted backends refuse.
pub const WRONG: &str = "wrong";

/// The password that makes scripted backends report a temporary failure.
pub const LATER: &str = "later";

impl Backend {
    /// IMAP: answers a login with `OK <name>`.
    pub fn imap(name: &str) -> Self {
        Self::imap_on(Ipv4Addr::LOCALHOST.into(), name)
    }

    /// As [`Self::imap`]. While `is_well` is false, it accepts logins but refuses NOOP.
    pub fn imap_while(name: &str, is_well: Arc<AtomicBool>) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| imap(session, &name, &|_| is_well.load(Ordering::SeqCst)))
    }

    /// As [`Self::imap`], on this local address.
    pub fn imap_on(ip: IpAddr, name: &str) -> Self {
        let name: Arc<str> = name.into();
        Self::new_on(ip, move |session| imap(session, &name, &|_| true))
    }

    /// As [`Self::imap`]. Passes each line at the position of a command to `heard`.
    pub fn imap_heard(name: &str, heard: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let name: Arc<str> = name.into();
        let heard = move |line: &str| {
            heard(line);
            true
        };
        Self::new(move |session| imap(session, &name, &heard))
    }

    /// POP3: answers `PASS` with `+OK <name>`.
    pub fn pop3(name: &str) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| pop3(session, &name))
    }

    /// SMTP: answers AUTH with `235 2.7.0 <name>`.
    pub fn smtp(name: &str) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| smtp(session, &name, &|_| ()))
    }

    /// SMTP: answers every recipient with `reply`. A 421 ends the session.
    pub fn smtp_answering_rcpt(reply: &'static str) -> Self {
        Self::new(move |session| {
            session.say("220 scripted ESMTP")?;
            while let Some(line) = session.line()? {
                if !line.starts_with("RCPT") {
                    session.say("250 scripted")?;
                    continue;
                }
                session.say(reply)?;
                if reply.starts_with("421") {
                    break;
                }
            }
            Ok(())
        })
    }

    /// SMTP that accepts mail for everybody, and passes each line to `heard`. MAIL after this number of messages on one
    /// connection ends it.
    pub fn smtp_receiving(name: &str, messages: usize, heard: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::smtp_until_quit(name, messages, heard, |session| session.say("221 2.0.0 bye"))
    }

    /// As [`Self::smtp_receiving`], but does not answer QUIT and waits until the client closes the connection.
    pub fn smtp_silent_at_quit(name: &str, heard: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::smtp_until_quit(name, usize::MAX, heard, Session::drain)
    }

    fn smtp_until_quit(
        name: &str,
        messages: usize,
        heard: impl Fn(&str) + Send + Sync + 'static,
        quit: impl Fn(&mut Session) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| {
            let (mut left, mut is_text) = (messages, false);
            session.say("220 scripted ESMTP")?;
            while let Some(line) = session.line()? {
                heard(&line);
                if is_text {
                    if line == "." {
                        is_text = false;
                        session.say(&format!("250 2.0.0 queued by {name}"))?;
                    }
                    continue;
                }
                match line.split(' ').next().unwrap_or_default() {
                    "EHLO" => session.say("250-scripted\r\n250 XCLIENT ADDR")?,
                    "XCLIENT" => session.say("220 scripted ESMTP")?,
                    "MAIL" if left == 0 => return session.say("421 4.7.0 too many messages"),
                    "RCPT" => session.say(&format!("250 2.1.5 {name}"))?,
                    "DATA" => {
                        (left, is_text) = (left.saturating_sub(1), true);
                        session.say("354 go")?;
                    }
                    "QUIT" => return quit(session),
                    _ => session.say("250 2.0.0 OK")?,
                }
            }
            Ok(())
        })
    }

    /// SMTP with STARTTLS, and without AUTH before TLS.
    pub fn smtp_hiding_auth() -> Self {
        Self::new(move |session| {
            session.say("220 scripted ESMTP")?;
            while let Some(line) = session.line()? {
                session.say(if line.starts_with("EHLO") {
                    "250-scripted\r\n250 STARTTLS"
                } else {
                    "530 5.7.0 Must issue a STARTTLS command first"
                })?;
            }
            Ok(())
        })
    }

    /// SMTP that passes every XCLIENT command to `seen`.
    pub fn smtp_after_xclient(name: &str, seen: impl Fn(String) + Send + Sync + 'static) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| smtp(session, &name, &seen))
    }

    /// IMAP after a PROXY version 1 header, which it passes to `header`.
    pub fn imap_behind_proxy(name: &str, header: impl Fn(String) + Send + Sync + 'static) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| {
            header(session.line()?.unwrap_or_default());
            imap(session, &name, &|_| true)
        })
    }

    /// IMAP after a PROXY version 2 header, which it passes to `header`.
    pub fn imap_behind_proxy_v2(name: &str, header: impl Fn(Vec<u8>) + Send + Sync + 'static) -> Self {
        let name: Arc<str> = name.into();
        Self::new(move |session| {
            let mut bytes = vec![0; 16];
            session.reader.read_exact(&mut bytes)?;
            let mut rest = vec![0; usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))];
            session.reader.read_exact(&mut rest)?;
            bytes.extend(rest);
            header(bytes);
            imap(session, &name, &|_| true)
        })
    }

    /// IMAP up to the login. Then `relay` gets the connection, with no bytes read ahead.
    pub fn imap_then(relay: impl Fn(&mut TcpStream) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::new(move |session| {
            session.say("* OK scripted")?;
            loop {
                let words = match session.line()? {
                    Some(line) => session.imap_arguments(line)?,
                    None => return Ok(()),
                };
                let verb = words.get(1).cloned().unwrap_or_default();
                session.say(&format!("{} OK done", words.first().map_or("*", String::as_str)))?;
                if verb == "LOGIN" {
                    return relay(&mut session.stream);
                }
            }
        })
    }

    /// POP3 up to the login. Then `relay` gets the connection, with no bytes read ahead.
    pub fn pop3_then(relay: impl Fn(&mut TcpStream) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::new(move |session| {
            session.say("+OK scripted")?;
            while let Some(line) = session.line()? {
                session.say("+OK")?;
                if line.starts_with("PASS ") {
                    return relay(&mut session.stream);
                }
            }
            Ok(())
        })
    }

    /// IMAP on this local address: records the session of each login, and answers it with `OK <name>`.
    pub fn imap_of_users(ip: IpAddr, name: &str, mailboxes: &Mailboxes) -> Self {
        let (name, mailboxes) = (name.to_owned(), mailboxes.clone());
        Self::new_on(ip, move |session| {
            session.say("* OK scripted")?;
            let mut open = None;
            while let Some(line) = session.line()? {
                let words = session.imap_arguments(line)?;
                let word = |index: usize| words.get(index).map_or("", String::as_str);
                if word(1).eq_ignore_ascii_case("LOGIN") {
                    open = Some(mailboxes.open(&word(2).to_lowercase(), &name));
                    session.say(&format!("{} OK {name}", word(0)))?;
                } else {
                    session.say(&format!("{} OK done", word(0)))?;
                }
            }
            drop(open);
            Ok(())
        })
    }

    /// POP3: records the session of each login, and answers it with `+OK <name>`.
    pub fn pop3_of_users(name: &str, mailboxes: &Mailboxes) -> Self {
        let (name, mailboxes) = (name.to_owned(), mailboxes.clone());
        Self::new(move |session| {
            session.say("+OK scripted")?;
            let (mut user, mut open) = (String::new(), None);
            while let Some(line) = session.line()? {
                if let Some(login) = line.strip_prefix("USER ") {
                    user = login.to_lowercase();
                }
                if line.starts_with("PASS ") {
                    open = Some(mailboxes.open(&user, &name));
                    session.say(&format!("+OK {name}"))?;
                } else {
                    session.say("+OK")?;
                }
            }
            drop(open);
            Ok(())
        })
    }

    /// SMTP: records the session of each login, answers it with `235 2.7.0 <name>`, and accepts mail for everybody.
    pub fn smtp_of_users(name: &str, mailboxes: &Mailboxes) -> Self {
        let (name, mailboxes) = (name.to_owned(), mailboxes.clone());
        Self::new(move |session| {
            session.say("220 scripted ESMTP")?;
            let (mut open, mut is_text) = (None, false);
            while let Some(line) = session.line()? {
                let words: Vec<&str> = line.split(' ').collect();
                match words[0] {
                    "." if is_text => {
                        is_text = false;
                        session.say(&format!("250 2.0.0 queued by {name}"))?;
                    }
                    _ if is_text => {}
                    "EHLO" => session.say("250-scripted\r\n250 AUTH PLAIN")?,
                    "AUTH" => {
                        let initial = words.get(2).map(ToString::to_string);
                        let response = initial_or_next(session, initial.as_ref(), "334 ")?;
                        open = Some(mailboxes.open(&plain(&response, 1).to_lowercase(), &name));
                        session.say(&format!("235 2.7.0 {name}"))?;
                    }
                    "DATA" => {
                        is_text = true;
                        session.say("354 go")?;
                    }
                    _ => session.say("250 2.0.0 OK")?,
                }
            }
            drop(open);
            Ok(())
        })
    }

    /// Accepts connections and sends nothing.
    pub fn hanging() -> Self {
        Self::new(|session| session.drain())
    }

    /// Sends these bytes and closes.
    pub fn saying(bytes: &'static [u8]) -> Self {
        Self::new(move |session| session.stream.write_all(bytes))
    }

    /// Sends this greeting and nothing else.
    pub fn greeting(bytes: &'static [u8]) -> Self {
        Self::new(move |session| {
            session.stream.write_all(bytes)?;
            session.drain()
        })
    }

    fn new(serve: impl Fn(&mut Session) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::new_on(Ipv4Addr::LOCALHOST.into(), serve)
    }

    fn new_on(ip: IpAddr, serve: impl Fn(&mut Session) -> Result<()> + Send + Sync + 'static) -> Self {
        let acceptor = Acceptor::start_on(ip, move |stream| {
            let Ok(copy) = stream.try_clone() else { return };
            // A peer that disconnects ends only its own session.
            let _ = serve(&mut Session { reader: BufReader::new(copy), stream });
        });
        Self { acceptor }
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.acceptor.accepted()
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.acceptor.open()
    }
}

struct Session {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Session {
    fn say(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes())
    }

    /// Reads a line without its end; `None` at the end of the session.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let bounded = &mut (&mut self.reader).take(LONGEST_LINE);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn drain(&mut self) -> Result<()> {
        std::io::copy(&mut self.reader, &mut std::io::sink()).map(drop)
    }

    /// Returns the command's arguments, with literals read and quotes removed.
    fn imap_arguments(&mut self, mut line: String) -> Result<Vec<String>> {
        let mut arguments = Vec::new();
        loop {
            let literal =
                line.rsplit_once('{').and_then(|(_, size)| size.strip_suffix('}')).map(str::to_owned);
            let text = line.split_once('{').map_or(line.as_str(), |(before, _)| before);
            arguments.extend(text.split_whitespace().map(|word| word.trim_matches('"').to_owned()));
            let Some(size) = literal else { return Ok(arguments) };
            if !size.ends_with('+') {
                self.say("+ OK")?;
            }
            let size = size.trim_end_matches('+').parse().unwrap_or(0);
            let mut bytes = vec![0; size];
            self.reader.read_exact(&mut bytes)?;
            arguments.push(String::from_utf8_lossy(&bytes).into_owned());
            line = self.line()?.unwrap_or_default();
        }
    }
}

/// Passes each line to `heard`, which returns whether the backend is healthy.
fn imap(session: &mut Session, name: &str, heard: &dyn Fn(&str) -> bool) -> Result<()> {
    session.say("* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] scripted")?;
    while let Some(line) = session.line()? {
        let is_well = heard(&line);
        let words = session.imap_arguments(line)?;
        let word = |index: usize| words.get(index).map_or("", String::as_str);
        let (tag, verb) = (word(0).to_owned(), word(1).to_ascii_uppercase());
        let login = |session: &mut Session, password: &str| match password {
            WRONG => session.say(&format!("{tag} NO [AUTHENTICATIONFAILED] refused by {name}")),
            LATER => session.say(&format!("{tag} NO [UNAVAILABLE] put off by {name}")),
            _ => session.say(&format!("{tag} OK {name}")),
        };
        match verb.as_str() {
            "CAPABILITY" => {
                session.say("* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN")?;
                session.say(&format!("{tag} OK done"))?;
            }
            "LOGIN" => login(session, word(3))?,
            "AUTHENTICATE" => {
                let response = initial_or_next(session, words.get(3), "+ ")?;
                login(session, &plain_password(&response))?;
            }
            "LOGOUT" => {
                session.say("* BYE")?;
                return session.say(&format!("{tag} OK done"));
            }
            _ if !is_well => session.say(&format!("{tag} NO {name} is sick"))?,
            _ => session.say(&format!("{tag} OK {verb}"))?,
        }
    }
    Ok(())
}

fn pop3(session: &mut Session, name: &str) -> Result<()> {
    session.say("+OK scripted")?;
    let answer = |session: &mut Session, password: &str| match password {
        WRONG => session.say(&format!("-ERR [AUTH] refused by {name}")),
        LATER => session.say(&format!("-ERR [SYS/TEMP] put off by {name}")),
        _ => session.say(&format!("+OK {name}")),
    };
    while let Some(line) = session.line()? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0].to_ascii_uppercase().as_str() {
            "CAPA" => session.say("+OK\r\nUSER\r\nSASL PLAIN\r\n.")?,
            "PASS" => answer(session, words.get(1).unwrap_or(&""))?,
            "AUTH" => {
                let initial = words.get(2).map(ToString::to_string);
                let response = initial_or_next(session, initial.as_ref(), "+ ")?;
                answer(session, &plain_password(&response))?;
            }
            "QUIT" => return session.say("+OK bye"),
            _ => session.say("+OK")?,
        }
    }
    Ok(())
}

fn smtp(session: &mut Session, name: &str, xclient: &impl Fn(String)) -> Result<()> {
    session.say("220 scripted ESMTP")?;
    while let Some(line) = session.line()? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0].to_ascii_uppercase().as_str() {
            "EHLO" => session.say("250-scripted\r\n250-XCLIENT NAME ADDR LOGIN\r\n250 AUTH PLAIN")?,
            "XCLIENT" => {
                xclient(line.clone());
                session.say("220 scripted ESMTP")?;
            }
            "AUTH" => {
                let initial = words.get(2).map(ToString::to_string);
                let response = initial_or_next(session, initial.as_ref(), "334 ")?;
                match plain_password(&response).as_str() {
                    WRONG => session.say(&format!("535 5.7.8 refused by {name}"))?,
                    LATER => session.say(&format!("454 4.7.0 put off by {name}"))?,
                    _ => session.say(&format!("235 2.7.0 {name}"))?,
                }
            }
            "QUIT" => return session.say("221 2.0.0 bye"),
            _ => session.say("250 2.0.0 OK")?,
        }
    }
    Ok(())
}

fn initial_or_next(session: &mut Session, initial: Option<&String>, challenge: &str) -> Result<String> {
    if let Some(response) = initial {
        return Ok(response.clone());
    }
    session.say(challenge)?;
    Ok(session.line()?.unwrap_or_default())
}

/// Returns the password in a PLAIN response; empty if it is invalid.
fn plain_password(response: &str) -> String {
    plain(response, 2)
}

/// Returns a part of a PLAIN response: the authorization identity, the login or the password.
fn plain(response: &str, part: usize) -> String {
    let bytes = STANDARD.decode(response).unwrap_or_default();
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).nth(part).unwrap_or_default()).into_owned()
}

const LONGEST_LINE: u64 = 64 * 1024;
