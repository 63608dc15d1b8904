//! The words for single causes of an end, which the log and the status page share.

use crate::protocol::CloseReason;
use crate::protocol::backend::RefusalCause;
use crate::protocol::follow::Interrupted;

pub(super) const fn refusal(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::Credentials | RefusalCause::Client => "refused the login",
        RefusalCause::Server => "cannot accept the login because of a problem of its own",
    }
}

pub(super) const fn interrupted(what: Interrupted) -> &'static str {
    match what {
        Interrupted::Message => "while the client was sending a message",
        Interrupted::Reply => "in the middle of a reply",
        Interrupted::Notice => "after an unsolicited 421",
        Interrupted::Delivery => "after a temporary refusal (4xx) of a message",
    }
}

pub(super) const fn rule(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Quit => "the client logged out before a login",
        CloseReason::TooManyErrors => "too many invalid commands (limits.maxErrors)",
        CloseReason::TooManyAuthFailures => "too many refused logins (limits.maxAuthFailures)",
        CloseReason::TooManyCommands => "too many commands before the login (limits.maxCommands)",
        CloseReason::TooLong => {
            "a command is longer than limits.clientBuffer, or a SASL response is longer than 12,288 bytes"
        }
        CloseReason::RefusedLiteral => {
            "a command was refused whose data the client sends without waiting (IMAP {n+}, SMTP BDAT)"
        }
        CloseReason::ControlCharacters => "the login or password contains NUL, CR or LF",
        CloseReason::SpeaksTls => "the client started TLS at once on a port that starts without TLS",
        CloseReason::DoubtfulCommand => {
            "the client sent XCLIENT, XFORWARD, STARTTLS, AUTH or BDAT where mail servers disagree whether the message has ended"
        }
    }
}
