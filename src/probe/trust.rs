//! Judges a certificate by the requested strictness. Pure.

use crate::model::tls::expiry_alarms;
use crate::tls::observe::{Distrust, Observed};
use crate::words::{counted, plural};

use super::report::{Finding, Outcome, Step, day, days_left};
use super::{ProbeRequest, Strictness};

/// Returns the finding about the certificate, and whether a password may be sent.
pub(super) fn judge(request: &ProbeRequest, observed: &Observed) -> (Finding, bool) {
    let finding = |outcome, message, remedy: &str| Finding::new(Step::Certificate, outcome, message, remedy);
    let refused = observed.verdict.as_ref().err();
    let unknown =
        |why: &Distrust| matches!(why, Distrust::UnknownIssuer | Distrust::SelfSigned | Distrust::NoRoots(_));
    match (refused, request.strictness) {
        (None, _) => {}
        (Some(Distrust::OtherName(_)), Strictness::Known { name: false, .. }) => {}
        (Some(why), Strictness::None) => {
            return (finding(Outcome::Warning, format!("{why}; accepted because of --no-verify"), ""), true);
        }
        (Some(why), Strictness::Known { issuer: false, .. }) if unknown(why) => {
            let message = format!("{}{why}", expiry(request.now, observed).unwrap_or_default());
            return (finding(Outcome::Warning, message, UNKNOWN), false);
        }
        (Some(why), _) => return (finding(Outcome::Failed, why.to_string(), remedy(why)), false),
    }
    let Some(leaf) = observed.chain.first() else {
        return (finding(Outcome::Failed, "the server sent no certificate".to_owned(), ""), false);
    };
    let [month, ..] = expiry_alarms(leaf.not_before, leaf.not_after);
    let left = days_left(leaf.not_after, request.now);
    let message = format!("accepted for {left} more {}, until {}", plural(left, "day"), day(leaf.not_after));
    if request.now >= month {
        return (finding(Outcome::Warning, message, "renew it"), true);
    }
    (finding(Outcome::Ok, message, ""), true)
}

fn expiry(now: i64, observed: &Observed) -> Option<String> {
    let leaf = observed.chain.first()?;
    Some(format!("expires in {}; ", counted(days_left(leaf.not_after, now), "day")))
}

const fn remedy(why: &Distrust) -> &'static str {
    match why {
        Distrust::Expired => "renew it",
        Distrust::NotYetValid => "check the clocks of the server and of this host",
        Distrust::UnknownIssuer | Distrust::SelfSigned => {
            "pass the issuer with --ca, and check that the server sends its whole chain"
        }
        Distrust::OtherName(_) => {
            "set another name with --server-name, or configure a certificate for this name"
        }
        Distrust::NoRoots(_) => "pass the issuer with --ca",
        Distrust::Other(_) => "",
    }
}

const UNKNOWN: &str = "pass the issuer with --ca to verify it";
