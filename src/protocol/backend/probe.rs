//! The state machine of a health check: reads the greeting, sends a command without effect, and says goodbye.

use crate::protocol::Protocol;
use crate::protocol::input::Input;

use super::reply::{sieve_lines, take_line, take_response, take_sieve, take_smtp, unexpected};
use super::{BackendError, GREETING};

/// The state of a health check. It does not log in.
#[derive(Debug)]
pub struct Probe {
    protocol: Protocol,
    waits_for: Reply,
}

/// The result of [`Probe::receive`].
#[derive(Debug)]
pub enum ProbeStep {
    /// Read more bytes into the input.
    Read(Probe),
    /// The backend speaks the protocol. The goodbye is in the output.
    Healthy,
    /// The backend gave a wrong reply, or accepts nobody at present.
    Unhealthy(BackendError),
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Greeting,
    Noop,
}

impl Probe {
    /// Creates a probe for a new connection, after implicit TLS.
    #[must_use]
    pub const fn new(protocol: Protocol) -> Self {
        Self { protocol, waits_for: Reply::Greeting }
    }

    /// Takes replies from `input` and appends the next command to `out`.
    #[must_use]
    pub fn receive(self, input: &mut Input, out: &mut Vec<u8>) -> ProbeStep {
        let next = match self.protocol {
            Protocol::Imap => self.imap(input, out),
            Protocol::Pop3 => self.pop3(input, out),
            Protocol::Smtp => self.smtp(input, out),
            Protocol::Sieve => self.sieve(input, out),
        };
        next.unwrap_or_else(ProbeStep::Unhealthy)
    }

    fn imap(self, input: &mut Input, out: &mut Vec<u8>) -> Result<ProbeStep, BackendError> {
        while let Some(reply) = take_response(input, self.step())? {
            match self.waits_for {
                Reply::Greeting if reply.starts_with(b"* OK") || reply.starts_with(b"* PREAUTH") => {
                    out.extend_from_slice(b"mailgress NOOP\r\n");
                    return Self { waits_for: Reply::Noop, ..self }.imap(input, out);
                }
                Reply::Noop if reply.starts_with(b"mailgress OK") => {
                    out.extend_from_slice(b"mailgress LOGOUT\r\n");
                    return Ok(ProbeStep::Healthy);
                }
                Reply::Noop if reply.starts_with(b"* ") && !reply.starts_with(b"* BYE") => {}
                Reply::Greeting | Reply::Noop => return Err(unexpected(self.step(), reply)),
            }
        }
        Ok(ProbeStep::Read(self))
    }

    /// POP3 allows NOOP only after the login (RFC 1939 section 5).
    fn pop3(self, input: &mut Input, out: &mut Vec<u8>) -> Result<ProbeStep, BackendError> {
        let Some(reply) = take_line(input, self.step())? else { return Ok(ProbeStep::Read(self)) };
        if !reply.starts_with(b"+OK") {
            return Err(unexpected(self.step(), reply));
        }
        out.extend_from_slice(b"QUIT\r\n");
        Ok(ProbeStep::Healthy)
    }

    fn smtp(self, input: &mut Input, out: &mut Vec<u8>) -> Result<ProbeStep, BackendError> {
        let Some(reply) = take_smtp(input, self.step())? else { return Ok(ProbeStep::Read(self)) };
        match (self.waits_for, reply.code) {
            (Reply::Greeting, 220) => {
                out.extend_from_slice(b"NOOP\r\n");
                Self { waits_for: Reply::Noop, ..self }.smtp(input, out)
            }
            (Reply::Noop, 250) => {
                out.extend_from_slice(b"QUIT\r\n");
                Ok(ProbeStep::Healthy)
            }
            (Reply::Greeting | Reply::Noop, _) => Err(unexpected(self.step(), reply.lines)),
        }
    }

    fn sieve(self, input: &mut Input, out: &mut Vec<u8>) -> Result<ProbeStep, BackendError> {
        let Some(reply) = take_sieve(input, self.step())? else { return Ok(ProbeStep::Read(self)) };
        let accepts = sieve_lines(&reply).last().is_some_and(|line| line.starts_with(b"OK"));
        match self.waits_for {
            Reply::Greeting if accepts => {
                out.extend_from_slice(b"NOOP\r\n");
                Self { waits_for: Reply::Noop, ..self }.sieve(input, out)
            }
            Reply::Noop if accepts => {
                out.extend_from_slice(b"LOGOUT\r\n");
                Ok(ProbeStep::Healthy)
            }
            Reply::Greeting | Reply::Noop => Err(unexpected(self.step(), reply)),
        }
    }

    fn step(&self) -> &'static str {
        match self.waits_for {
            Reply::Greeting => GREETING,
            Reply::Noop => "NOOP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all sent bytes and the result. Checks that they are the same for any chunk size.
    fn check(protocol: Protocol, replies: &[u8]) -> (String, String) {
        let outcomes = [replies.len().max(1), 1, 3].map(|size| {
            let (mut input, mut out) = (Input::new(64), Vec::new());
            let mut probe = Probe::new(protocol);
            for chunk in replies.chunks(size) {
                input.append(chunk).unwrap();
                match probe.receive(&mut input, &mut out) {
                    ProbeStep::Read(same) => probe = same,
                    ProbeStep::Healthy => return (out, "healthy".to_owned()),
                    ProbeStep::Unhealthy(error) => return (out, error.to_string()),
                }
            }
            (out, "waits".to_owned())
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        let [(out, end), ..] = outcomes;
        (String::from_utf8(out).unwrap(), end)
    }

    #[test]
    fn a_backend_that_greets_and_answers_is_healthy() {
        let healthy = |sent: &str| (sent.to_owned(), "healthy".to_owned());
        let imap = b"* OK hi\r\n* OK still here\r\nmailgress OK done\r\n";
        assert_eq!(check(Protocol::Imap, imap), healthy("mailgress NOOP\r\nmailgress LOGOUT\r\n"));
        assert_eq!(check(Protocol::Pop3, b"+OK <1.2@a>\r\n"), healthy("QUIT\r\n"));
        assert_eq!(check(Protocol::Smtp, b"220-a\r\n220 b\r\n250 OK\r\n"), healthy("NOOP\r\nQUIT\r\n"));
        let sieve = b"\"SASL\" \"PLAIN\"\r\nOK \"hi\"\r\nOK \"done\"\r\n";
        assert_eq!(check(Protocol::Sieve, sieve), healthy("NOOP\r\nLOGOUT\r\n"));
    }

    #[test]
    fn what_is_said_instead_is_the_reason() {
        for (protocol, replies, step) in [
            (Protocol::Imap, &b"* BYE full\r\n"[..], "the connection with \"* BYE full\""),
            (Protocol::Imap, b"* OK hi\r\n* BYE going\r\n", "NOOP with \"* BYE going\""),
            (Protocol::Pop3, b"-ERR busy\r\n", "the connection with \"-ERR busy\""),
            (Protocol::Smtp, b"421 later\r\n", "the connection with \"421 later\""),
            (Protocol::Smtp, b"220 a\r\n502 what\r\n", "NOOP with \"502 what\""),
            (Protocol::Sieve, b"BYE full\r\n", "the connection with \"BYE full\""),
            (Protocol::Sieve, b"* OK hi\r\n", "the connection with \"* OK hi\""),
        ] {
            assert_eq!(check(protocol, replies).1, format!("the backend answered {step}"));
        }
        assert!(check(Protocol::Pop3, &[b'x'; 64]).1.contains("does not fit"));
        assert_eq!(check(Protocol::Imap, b"* OK hi").1, "waits");
    }
}
