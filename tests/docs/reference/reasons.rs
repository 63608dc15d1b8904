//! `docs/reasons/index.md`: every reason of a condition, by condition and by name.

use std::fmt::Write;

use mailgress::api::status::ConditionStatus;
use mailgress::controller::reason::{EXPLANATIONS, Explanation, Reason};

use super::cell;

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| condition | reasons |\n| --- | --- |\n");
    for condition in CONDITIONS {
        for status in [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown] {
            page.push_str(&row(condition, status));
        }
    }
    for reason in Reason::ALL {
        page.push_str(&entry(reason.explanation().unwrap()));
    }
    page
}

/// The reasons that a condition can have, if there are any with that status.
fn row(condition: &str, status: ConditionStatus) -> String {
    let reasons =
        EXPLANATIONS.iter().filter(|explanation| explanation.conditions.contains(&(condition, status)));
    let links: Vec<String> = reasons
        .map(|explanation| explanation.reason.name())
        .map(|name| format!("[`{name}`](#{})", name.to_ascii_lowercase()))
        .collect();
    if links.is_empty() {
        return String::new();
    }
    format!("| `{condition}={status:?}` | {} |\n", links.join(", "))
}

fn entry(explanation: &Explanation) -> String {
    let Explanation { reason, conditions, meaning, cause, remedy } = explanation;
    let of: Vec<String> =
        conditions.iter().map(|(condition, status)| format!("`{condition}={status:?}`")).collect();
    let mut text = format!("\n## {reason}\n\n{}\n\n{}\n", of.join(", "), cell(meaning));
    for (title, said) in [("Cause", cause), ("Remedy", remedy)] {
        if !said.is_empty() {
            write!(text, "\n**{title}:** {}\n", cell(said)).unwrap();
        }
    }
    text
}

/// In the order in which an object shows them.
const CONDITIONS: [&str; 18] = [
    "Accepted",
    "ResolvedRefs",
    "Conflicted",
    "Programmed",
    "Ready",
    "Degraded",
    "BackendHealthy",
    "ClientIPPreserved",
    "CertificateExpired",
    "CertificateExpiring",
    "CertificateUnusual",
    "HostnameNotCovered",
    "BackendNotAllowed",
    "IntroductionNotAllowed",
    "NoReadyEndpoints",
    "ImplicitTLSExpected",
    "ClearText",
    "CapabilityIgnored",
];

const HEAD: &str = "# Conditions and reasons

<!-- Made from the code: MAILGRESS_WRITE_DOCS=1 cargo test --test docs reference -->

Every `MailServer` and `MailListener` says in `status.conditions` how it is, and a `MailServer` says it of each listener
in `status.listeners[].conditions`. Each condition has a reason; where it is not well, its message names the field and the
remedy, and ends with a link to the reason's entry here. `mailgress explain REASON` prints the same.

| condition | what it says | there |
| --- | --- | --- |
| `Accepted` | the manifest is valid | always |
| `ResolvedRefs` | what it refers to is there, may be read and can be used | always |
| `Conflicted` | another listener wants the same socket or name | on listeners, and True is bad |
| `Programmed` | this generation is bound in the replica that leads | always |
| `Ready` | every ready replica serves this generation and, with `--service`, the Service leads to it: the one to wait for | always |
| `Degraded` | the object cannot be used as it is, and an earlier generation is served | while it is so |
| `BackendHealthy` | the backend's endpoints answer their health checks | with `upstream.healthCheck`, after the first check |
| `ClientIPPreserved` | clients come with their own addresses | in a cluster, once it is known |
| `CertificateExpired`, `CertificateExpiring`, `CertificateUnusual`, `HostnameNotCovered`, `BackendNotAllowed`, `IntroductionNotAllowed`, `NoReadyEndpoints`, `ImplicitTLSExpected`, `ClearText`, `CapabilityIgnored` | alarms; they keep nothing from serving | while they are so |

## Which reason a condition can have

";
