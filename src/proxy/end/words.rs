//! The words for single causes of an end, which the log and the status page share.

use crate::protocol::CloseReason;
use crate::protocol::backend::RefusalCause;
use crate::protocol::follow::Interrupted;

pub(super) const fn refusal(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::Credentials | RefusalCause::Client => "refused the login",
        RefusalCause::Server => "does not take this login, by its own fault",
    }
}

pub(super) const fn interrupted(what: Interrupted) -> &'static str {
    match what {
        Interrupted::Message => "while the client sent a message",
        Interrupted::Reply => "before it had sent a whole reply",
        Interrupted::Notice => "after an unsolicited 421",
        Interrupted::Delivery => "after a temporary refusal (4xx) of a message",
    }
}

pub(super) const fn rule(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Quit => "the client left before a login",
        CloseReason::TooManyErrors => "limits.maxErrors invalid commands",
        CloseReason::TooManyAuthFailures => "limits.maxAuthFailures refused logins",
        CloseReason::TooManyCommands => "more than limits.maxCommands commands before the login",
        CloseReason::TooLong => {
            "a command longer than limits.clientBuffer, or a SASL response longer than 12,288 bytes"
        }
        CloseReason::RefusedLiteral => {
            "a refused command whose content the client sends without waiting (IMAP's {n+}, SMTP's BDAT)"
        }
        CloseReason::ControlCharacters => "a login or password with NUL, CR or LF",
        CloseReason::SpeaksTls => "a TLS handshake on a port that begins in clear",
        CloseReason::DoubtfulCommand => {
            "XCLIENT, XFORWARD, STARTTLS, AUTH or BDAT at a place where mail servers disagree whether the message has ended"
        }
    }
}
