//! Remembers recent failures, so that sessions do not wait for them again. Pure: time is an argument.
//!
//! There are two kinds. A question that failed is not asked again for some seconds. And if no name server answered
//! during a whole lookup (a silence), names of clients are not looked up until one answers: they are only
//! informational, and a greeting must not wait for each of them. `silence` finds out when a name server answers again.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::DnsError;
use super::silence::Silent;

/// Maximum number of remembered questions.
const MAX_FAILURES: usize = 1024;

/// How long the address of a backend or an auth service is not asked for again. Logins fail during this time.
const ADDRESSES_TTL: Duration = Duration::from_secs(2);

/// How long the name of a client is not asked for again. RFC 2308 section 7 allows five minutes.
const CLIENT_TTL: Duration = Duration::from_secs(10);

/// How long a silence is remembered after its last use.
const SILENCE_TTL: Duration = Duration::from_secs(3600);

/// A lookup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The addresses of a backend or an auth service.
    Addresses(String),
    /// The name of a client.
    Pointer(IpAddr),
    /// Whether a client's name resolves to its address.
    LeadsBack(String),
}

impl Question {
    /// Returns the name or address in question.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Addresses(host) | Self::LeadsBack(host) => host.clone(),
            Self::Pointer(client) => client.to_string(),
        }
    }

    fn is_about_a_client(&self) -> bool {
        matches!(self, Self::Pointer(_) | Self::LeadsBack(_))
    }
}

/// Recent failures of one set of name servers.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<FailureState>);

#[derive(Debug, Default)]
struct FailureState {
    failed: HashMap<Question, (DnsError, Instant)>,
    /// The same questions, oldest first. A question that has failed again is contained twice.
    order: VecDeque<(Question, Instant)>,
    silence: Option<Silence>,
}

/// No name server answered during a whole lookup.
#[derive(Debug)]
struct Silence {
    /// The number of answers at that time.
    answers: u64,
    error: DnsError,
    /// The last time that it replaced a lookup.
    used: Instant,
    /// Set when the silence has been reported.
    silent: Option<Silent>,
}

impl Failures {
    /// Returns the error if the question must not be asked now. `answers` is the number of answers from the name
    /// servers.
    pub(super) fn known(&self, question: &Question, answers: u64, now: Instant) -> Option<DnsError> {
        let mut state = self.state();
        if let Some((error, until)) = state.failed.get(question)
            && *until > now
        {
            return Some(error.clone());
        }
        if state.silence.as_ref().is_some_and(|silence| silence.answers != answers) {
            state.silence = None;
        }
        let silence = state.silence.as_mut().filter(|_| question.is_about_a_client())?;
        silence.used = now;
        Some(silence.error.clone())
    }

    /// Records a failed question. `answers` has the number of answers before and after the lookup. Returns true if a
    /// silence begins, which the caller must have watched.
    #[must_use]
    pub(super) fn add(&self, question: Question, error: &DnsError, answers: Answers, now: Instant) -> bool {
        let mut state = self.state();
        let is_known = state.silence.as_ref().is_some_and(|silence| silence.answers == answers.now);
        let begins = answers.before == answers.now && !is_known;
        if begins {
            let error = error.clone();
            state.silence = Some(Silence { answers: answers.now, error, used: now, silent: None });
        }
        state.expire(now, MAX_FAILURES - 1);
        let until = now + if question.is_about_a_client() { CLIENT_TTL } else { ADDRESSES_TTL };
        state.order.push_back((question.clone(), until));
        state.failed.insert(question, (error.clone(), until));
        begins
    }

    /// Tells whether the silence that began at `began_at` answers continues, now that there are `answers`. Reports it
    /// if this has not been done. It ends if it has not been used for [`SILENCE_TTL`].
    pub(super) fn stay_silent(
        &self,
        began_at: u64,
        answers: u64,
        now: Instant,
        tell: impl FnOnce() -> Silent,
    ) -> bool {
        let mut state = self.state();
        let Some(silence) = state.silence.as_mut().filter(|silence| silence.answers == began_at) else {
            return false;
        };
        if answers != began_at || now.saturating_duration_since(silence.used) > SILENCE_TTL {
            state.silence = None;
            return false;
        }
        silence.silent.get_or_insert_with(tell);
        true
    }

    fn state(&self) -> MutexGuard<'_, FailureState> {
        self.0.lock()
    }
}

/// The number of answers from name servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    /// Before the lookup.
    pub(super) before: u64,
    /// After the lookup.
    pub(super) now: u64,
}

impl FailureState {
    /// Removes expired entries, and the oldest ones beyond `most`.
    fn expire(&mut self, now: Instant, most: usize) {
        while self.order.len() > most || self.order.front().is_some_and(|(_, until)| *until <= now) {
            let Some((question, until)) = self.order.pop_front() else { return };
            if self.failed.get(&question).is_some_and(|(_, last)| *last == until) {
                self.failed.remove(&question);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Answers = Answers { before: 1, now: 2 };
    const SILENT: Answers = Answers { before: 2, now: 2 };

    fn name(host: &str) -> Question {
        Question::Addresses(host.to_owned())
    }

    fn client(last: u8) -> Question {
        Question::Pointer([192, 0, 2, last].into())
    }

    fn error() -> DnsError {
        DnsError::Timeout { host: "x.test".to_owned(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn a_question_that_failed_is_not_asked_again_for_a_moment() {
        let (failures, now) = (Failures::default(), Instant::now());
        assert!(failures.known(&name("a"), 2, now).is_none());
        assert!(!failures.add(name("a"), &error(), HEARD, now));
        assert!(failures.known(&name("a"), 2, now + ADDRESSES_TTL / 2).is_some());
        assert!(failures.known(&name("b"), 2, now).is_none());
        assert!(failures.known(&Question::LeadsBack("a".to_owned()), 2, now).is_none());
        assert!(failures.known(&name("a"), 2, now + ADDRESSES_TTL).is_none());
        assert!(!failures.add(client(1), &error(), HEARD, now));
        assert!(failures.known(&client(1), 2, now + CLIENT_TTL / 2).is_some());
        assert!(failures.known(&client(1), 2, now + CLIENT_TTL).is_none());
    }

    #[test]
    fn a_bounded_number_of_questions_is_remembered() {
        let (failures, now) = (Failures::default(), Instant::now());
        for count in 0..3 * MAX_FAILURES {
            assert!(!failures.add(name(&count.to_string()), &error(), HEARD, now));
            assert!(!failures.add(name("again"), &error(), HEARD, now));
        }
        let state = failures.state();
        assert!(state.failed.len() <= MAX_FAILURES && state.order.len() == MAX_FAILURES);
        assert!(state.failed.contains_key(&name("again")) && !state.failed.contains_key(&name("0")));
        drop(state);
        assert!(!failures.add(name("later"), &error(), HEARD, now + ADDRESSES_TTL));
        assert_eq!(failures.state().failed.len(), 1);
    }

    #[test]
    fn while_no_name_server_answers_no_clients_name_is_looked_up() {
        let (failures, now) = (Failures::default(), Instant::now());
        assert!(failures.add(client(1), &error(), SILENT, now));
        assert!(!failures.add(client(1), &error(), SILENT, now), "it is known");
        assert!(failures.known(&client(2), 2, now).is_some());
        assert!(failures.known(&name("backend"), 2, now).is_none(), "a login needs the address");
        let later = now + SILENCE_TTL / 2;
        assert!(failures.known(&client(3), 2, later).is_some(), "no session probes");
        assert!(failures.known(&client(3), 3, later).is_none(), "a name server has answered");
        assert!(failures.known(&client(4), 3, later).is_none());
    }

    #[test]
    fn a_silence_ends_with_an_answer_or_when_nobody_asks() {
        let (failures, now) = (Failures::default(), Instant::now());
        let tell = || -> Silent { panic!("it is over") };
        assert!(failures.add(client(1), &error(), SILENT, now));
        assert!(!failures.stay_silent(2, 3, now, tell), "an answer");
        assert!(failures.known(&client(2), 3, now).is_none());
        let silent = Answers { before: 3, now: 3 };
        assert!(failures.add(client(3), &error(), silent, now));
        assert!(!failures.stay_silent(2, 3, now, tell), "another silence");
        assert!(!failures.stay_silent(3, 3, now + SILENCE_TTL + Duration::from_secs(1), tell), "unused");
        assert!(failures.known(&client(4), 3, now).is_none());
    }

    #[test]
    fn a_failure_beside_answers_is_no_silence() {
        let (failures, now) = (Failures::default(), Instant::now());
        assert!(!failures.add(client(1), &error(), HEARD, now));
        assert!(failures.known(&client(2), 2, now).is_none());
    }
}
