//! Who may have how many of the process's file descriptors.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What the limit of open files is divided into. The rest is for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// For mail sessions, with their connections to backends and auth services.
    pub sessions: usize,
    /// For connections to the admin server.
    pub admin: usize,
}

impl Descriptors {
    /// As the process's limit is now, for this number of workers.
    #[must_use]
    pub fn of_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self::of(limit.unwrap_or(usize::MAX), workers)
    }

    /// A quarter of the limit is not for sessions: at most [`RESERVE`], or what an idle process has open and the admin
    /// server may have if that is more; and never less than the admin server needs. The admin server has most of what an
    /// idle process leaves of it.
    fn of(limit: usize, workers: usize) -> Self {
        let own = OWN.saturating_add(workers.max(1).saturating_mul(OF_WORKER));
        let most = RESERVE.max(own.saturating_add(ADMIN_MOST * 4 / 3));
        let reserve = most.min(limit / 4).max(own.saturating_add(ADMIN_LEAST));
        let spare = reserve.saturating_sub(own);
        Self {
            sessions: limit.saturating_sub(reserve),
            admin: (spare * 3 / 4).clamp(ADMIN_LEAST, ADMIN_MOST),
        }
    }
}

/// Whether descriptors ran out: our own limit, nobody else's fault.
#[must_use]
pub fn has_no_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Descriptors for listeners, event queues, files, name servers and the admin server.
const RESERVE: usize = 256;

/// Those of them that an idle process with a few listeners has or needs for a moment, without its workers.
const OWN: usize = 28;

/// Event queue, wakers and a signal pipe of one worker.
const OF_WORKER: usize = 4;

/// The admin server's, where the limit is low.
const ADMIN_LEAST: usize = 8;

/// The admin server's, where there are enough.
const ADMIN_MOST: usize = 81;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_server_fits_in_what_sessions_leave() {
        for limit in [64, 128, 256, 512, 1024, 65_536, usize::MAX] {
            for workers in [1, 2, 16, 100] {
                let Descriptors { sessions, admin } = Descriptors::of(limit, workers);
                let own = OWN + workers * OF_WORKER;
                assert!(sessions == 0 || sessions + admin + own <= limit, "{limit}, {workers}");
            }
        }
        assert_eq!(Descriptors::of(256, 2), Descriptors { sessions: 192, admin: 21 });
        assert_eq!(Descriptors::of(1024, 2), Descriptors { sessions: 768, admin: ADMIN_MOST });
        assert_eq!(Descriptors::of(65_536, 100).admin, ADMIN_MOST);
    }
}
