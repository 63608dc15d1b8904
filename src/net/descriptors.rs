//! Divides the process's limit of open files between its parts.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// The shares of the limit. The rest is for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// For sessions, with their connections to backends and auth services.
    pub sessions: usize,
    /// For connections to the admin server.
    pub admin: usize,
}

impl Descriptors {
    /// Divides the process's current limit. Each worker needs some descriptors for itself.
    #[must_use]
    pub fn of_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self::of(limit.unwrap_or(usize::MAX), workers)
    }

    /// Reserves a quarter of the limit, but at most [`RESERVE`] (or more, if an idle process and the admin server's
    /// maximum need more), and at least the admin server's minimum. The admin server gets most of the reserve that an
    /// idle process does not need.
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

/// Tells whether the error means that file descriptors ran out, of this process or of the system.
#[must_use]
pub fn has_no_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Descriptors for listeners, event queues, files, name servers and the admin server.
const RESERVE: usize = 256;

/// Descriptors that an idle process with a few listeners needs, without its workers.
const OWN: usize = 28;

/// An event queue, wakers and a signal pipe for each worker.
const OF_WORKER: usize = 4;

/// Minimum for the admin server, with a low limit.
const ADMIN_LEAST: usize = 8;

/// Maximum for the admin server.
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
