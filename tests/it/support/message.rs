//! Messages that are difficult to transport, how to wait for them, and how to compare them.

use std::path::Path;

use super::servers::{PASSWORD, servers};
use super::wait;
use super::wire::Wire;

/// A message that is difficult to transport: dots at the start of lines, a From line, trailing spaces, bytes above 127,
/// empty lines at the end.
pub fn message(user: &str, body: &str) -> Vec<u8> {
    format!(
        "From: <{user}>\r\nTo: <{user}>\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\
         Date: Sat, 01 Mar 2025 12:00:00 +0000\r\nMessage-Id: <{user}.1>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A body for [`message`].
pub const AWKWARD: &str = ".\r\n..\r\n.leading dot\r\nFrom the beginning\r\ntrailing space \r\n\ttab\r\n\
                           Zażółć gęślą jaźń\r\n\r\n--\r\n\r\n\r\n";

/// Checks that the received file ends with the sent message. Servers may only add header lines before it, which are
/// returned.
pub fn ends_with(file: &Path, message: &[u8], how: &str) -> String {
    let received = std::fs::read(file).unwrap();
    assert!(received.ends_with(message), "{how}: {} bytes were sent, others were read", message.len());
    let added = &received[..received.len() - message.len()];
    let added = String::from_utf8_lossy(added).into_owned();
    assert!(added.starts_with("Return-Path: <") && added.len() < 2000, "{added}");
    added
}

/// Waits until Dovecot, queried directly, has a message for the user.
pub fn wait_for_mail(user: &str) {
    let mut wire = Wire::connect(servers().dovecot.imap()).unwrap();
    wire.line().unwrap();
    wire.imap("a", &format!("LOGIN {user} {PASSWORD}")).unwrap();
    wait::eventually("the mail is delivered", || {
        let lines = wire.imap("b", "STATUS INBOX (MESSAGES)").unwrap();
        lines.iter().any(|line| line.contains("MESSAGES 1")).then_some(())
    });
}
