//! `mailgress kick`: ends sessions of an instance.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::model::SessionId;
use crate::model::sessions::SessionFilter;
use crate::words::counted;

use super::control::Socket;

/// `mailgress kick`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Kick {
    /// Which sessions to end.
    #[command(flatten)]
    which: Which,

    /// The control socket.
    #[command(flatten)]
    socket: Socket,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// End all sessions with this login name. The case of its domain is ignored.
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,

    /// End all sessions with this backend: the endpoint as ADDRESS or ADDRESS:PORT, the name of its Pod, or its Service as
    /// NAMESPACE/NAME.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// End this session. `mailgress sessions` and the log show the IDs.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
}

impl Kick {
    /// Ends the sessions and prints their number.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let Which { user, backend, session } = &self.which;
        let filter = SessionFilter {
            user: user.clone(),
            backend: backend.clone(),
            session: *session,
            ..SessionFilter::default()
        };
        let ended = self.socket.kick(&filter)?.ended;
        let mut out = io::stdout().lock();
        if ended == 0 {
            writeln!(out, "No session matches.")?;
            return Ok(ExitCode::FAILURE);
        }
        writeln!(out, "Ended {}.", counted(ended, "session"))?;
        Ok(ExitCode::SUCCESS)
    }
}

const AFTER_HELP: &str = "\
Ends sessions of one replica: those that are logged in, and those that send mail without a login. A client gets the closing \
message of its protocol where one can be sent, and may connect again. To keep a user out, lock the account first. A login \
that is being decided is not ended; run the command again after a moment.

Exit status: 0 sessions were ended, 1 no session matches or no instance answers, 2 usage error.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        _kick: Kick,
    }

    #[test]
    fn exactly_one_kind_of_selection_is_needed() {
        let parsed = |arguments: &[&str]| Line::try_parse_from([&["kick"], arguments].concat());
        for good in [["--user", "u"], ["--backend", "b"], ["--session", "0000000000001-2"]] {
            assert!(parsed(&good).is_ok(), "{good:?}");
        }
        let refused: [&[&str]; 3] = [&[], &["--user", "u", "--backend", "b"], &["--session", "x"]];
        for wrong in refused {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        let error = parsed(&["--session", "x"]).unwrap_err().to_string();
        assert!(error.contains("not the ID of a session"), "{error}");
    }
}
