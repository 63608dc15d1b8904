//! The status page at `/`: one document without external resources. It works without JavaScript.
//!
//! The template library escapes everything in the page. The script loads the page again and replaces what has changed.
//! Only this style and script are allowed, by their hashes.

mod parts;
mod words;

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use crate::model::view::{CertificateOrder, Question, View};

use super::bounds::Kind;
use super::readiness::DRAINING;
use super::reply::{self, Whole};
use super::{AdminState, Desk, Visitor};

/// Creates the data of the page.
pub type Look = Arc<dyn Fn(&Question) -> View + Send + Sync>;

/// The query string. Invalid values are ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    q: Option<String>,
    only: Option<String>,
    page: Option<String>,
    certificates: Option<String>,
}

impl Asked {
    fn question(&self) -> Question {
        let text = self.q.as_deref().unwrap_or_default().trim();
        let page = self.page.as_deref().and_then(|page| page.parse().ok());
        Question {
            text: text.chars().take(MAX_TEXT).collect(),
            only_troubled: self.only.as_deref() == Some(TROUBLED),
            page: page.unwrap_or(1),
            certificates: match self.certificates.as_deref() {
                Some(BY_SECRET) => CertificateOrder::Secret,
                _ => CertificateOrder::Expiry,
            },
        }
    }
}

pub(super) async fn page(
    State(Desk { state, makers }): State<Desk>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Response {
    makers.make(Kind::Page, visitor.peer(), move || whole(&state, &asked.question())).await
}

fn whole(state: &AdminState, question: &Question) -> Whole {
    let view = (state.page)(question);
    let reasons = state.readiness.reasons();
    let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
    let body = document(&view, question, &reasons).into_string();
    let mut whole = reply::with_type(HeaderValue::from_static("text/html; charset=utf-8"), body.into_bytes());
    let headers = whole.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    whole
}

fn document(view: &View, question: &Question, blocked: &[&str]) -> Markup {
    let draining = blocked.contains(&DRAINING);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (parts::title(view, blocked)) }
                link rel="icon" href=(ICON);
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#listeners" { "Skip to the listeners" }
                (parts::head(view, blocked))
                main.wide {
                    (parts::tiles(view, draining))
                    (parts::problems(view))
                    (parts::search(question))
                    (parts::listeners(view, question, draining))
                    (parts::certificates(view, question))
                    (parts::backends(view))
                    (parts::routes(view))
                    (parts::faults(view))
                    (parts::changes(view))
                    (parts::replicas(view))
                }
                (parts::foot())
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// An envelope, so that browsers do not request an icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect x='1' \
                    y='3' width='14' height='10' rx='2' fill='%231d4f9e'/%3E%3Cpath d='M2 5l6 4 6-4' fill='none' \
                    stroke='%23fff' stroke-width='1.5'/%3E%3C/svg%3E";
/// The only value of `only`.
const TROUBLED: &str = "troubled";
/// The value of `certificates` for a sort by Secret; the default is by expiry.
const BY_SECRET: &str = "secret";
/// Maximum length of the search text, in characters.
const MAX_TEXT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::served;
    use crate::model::view::{
        Certificate, Change, Excerpt, Fault, Listener, Numbers, Peer, Replica, Role, State, Totals,
    };

    #[test]
    fn nothing_is_called_ready_while_it_drains() {
        let listener = Listener { object: "mail/example".into(), ..Listener::default() };
        let view = View {
            totals: Totals { listeners: 1, ..Totals::default() },
            listeners: Excerpt { shown: vec![listener], matching: 1, all: 1, ..Excerpt::default() },
            ..View::default()
        };
        let page = |blocked| document(&view, &Question::default(), blocked).into_string();
        assert!(page(&[]).contains("● Ready") && page(&[]).contains("all Ready"));
        let draining = page(&[DRAINING]);
        assert!(!draining.contains("● Ready") && !draining.contains("all Ready"), "{draining}");
        assert!(draining.contains("no new sessions"), "{draining}");
    }

    #[test]
    fn the_head_says_how_many_listeners_are_not_ready() {
        let head = |totals| {
            let page = document(&View { totals, ..View::default() }, &Question::default(), &[]).into_string();
            page.split("</header>").next().unwrap_or_default().to_owned()
        };
        let ready = Totals { listeners: 12, ..Totals::default() };
        assert!(head(ready).contains("● Ready"));
        let bad = head(Totals { not_ready: 3, alarming: 1, ..ready });
        assert!(bad.contains("✕ 3 of 12 listeners not ready") && !bad.contains("● Ready"), "{bad}");
        let alarming = head(Totals { alarming: 1, pending: 2, ..ready });
        assert!(alarming.contains("▲ 1 of 12 listeners with an alarm"), "{alarming}");
        assert!(head(Totals { pending: 2, ..ready }).contains("… 2 of 12 listeners pending"));
    }

    #[test]
    fn the_tile_of_logins_counts_those_that_were_not_accepted_too() {
        let numbers = Numbers { accepted: 7, refused: 5, unavailable: 2, ..Numbers::default() };
        let fault = Fault { whose: "client".into(), logins: 5, ..Fault::default() };
        let totals = Totals { numbers, ..Totals::default() };
        let view = View { totals, faults: vec![fault], ..View::default() };
        let page = document(&view, &Question::default(), &[]).into_string();
        for told in ["7 accepted", "5 refused", "2 unavailable", "data-label=\"Logins\">5<"] {
            assert!(page.contains(told), "{told}: {page}");
        }
    }

    #[test]
    fn the_leader_shows_all_replicas_and_the_others_name_it() {
        let peer = |name: &str, sessions| Peer {
            name: name.into(),
            totals: Some(served::Totals { sessions, listeners: 4, ready: 3, ..served::Totals::default() }),
            ..Peer::default()
        };
        let view = View { replicas: vec![peer("a", 3), peer("b", 39)], ..View::default() };
        let page = document(&view, &Question::default(), &[]).into_string();
        assert!(page.contains("42 on all 2 replicas") && page.contains("3 of 4 ready"), "{page}");
        let role = Some(Role::Follower { leader: Some("b".into()) });
        let replica = Replica { role, status_port: 9091, ..Replica::default() };
        let page = document(&View { replica, ..View::default() }, &Question::default(), &[]).into_string();
        assert!(page.contains("Leader: b") && page.contains("kubectl port-forward pod/b 9091"), "{page}");
    }

    #[test]
    fn certificates_can_be_sorted_by_expiry_and_by_secret() {
        let certificate = |secret: &str| (Certificate { secret: secret.into(), ..Certificate::default() }, 2);
        let certificates =
            Excerpt { shown: vec![certificate("mail/b")], matching: 1, all: 1, ..Excerpt::default() };
        let view = View { certificates, ..View::default() };
        let page = document(&view, &Question::default(), &[]).into_string();
        assert!(page.contains("href=\"/?certificates=secret#certificates\"") && page.contains("mail/b"));
        let by_secret = Question { certificates: CertificateOrder::Secret, ..Question::default() };
        assert!(document(&view, &by_secret, &[]).into_string().contains("href=\"/#certificates\""));
    }

    #[test]
    fn what_objects_say_is_text_and_never_markup() {
        let evil = "<script>alert(1)</script>\"'&";
        let listener = Listener {
            object: evil.into(),
            name: evil.into(),
            state: State::Bad,
            notes: vec![(evil.into(), evil.into())],
            ..Listener::default()
        };
        let view = View {
            problems: vec![evil.into()],
            listeners: Excerpt { shown: vec![listener], matching: 1, all: 1, ..Excerpt::default() },
            changes: vec![Change { text: evil.into(), which: evil.into(), ..Change::default() }],
            ..View::default()
        };
        let question = Question { text: evil.into(), ..Question::default() };
        let page = document(&view, &question, &[]).into_string();
        assert_eq!(page.matches("<script>").count(), 1, "our own");
        assert!(!page.contains("alert(1)<") && page.contains("&lt;script&gt;"));
        assert!(page.contains("value=\"&lt;script&gt;alert(1)&lt;/script&gt;&quot;"), "{page}");
    }

    #[test]
    fn a_question_is_bounded_and_what_is_wrong_in_it_counts_as_nothing() {
        let asked = |q: &str, only: &str, page: &str| {
            let text = |text: &str| Some(text.to_owned());
            Asked { q: text(q), only: text(only), page: text(page), certificates: None }.question()
        };
        assert_eq!(asked("  ", "x", "-1"), Question { page: 1, ..Question::default() });
        let long = asked(&"ä".repeat(1000), "troubled", "7");
        assert_eq!((long.text.chars().count(), long.only_troubled, long.page), (MAX_TEXT, true, 7));
    }
}
