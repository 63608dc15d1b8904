//! The table of listeners.

use maud::{Markup, html};

use crate::admin::page::{BY_SECRET, TROUBLED, words};
use crate::model::view::{Certificate, CertificateOrder, Excerpt, Listener, Question, Serving, State, View};

use super::table;

/// Shows the matching listeners.
pub(in crate::admin::page) fn listeners(view: &View, question: &Question, draining: bool) -> Markup {
    let excerpt = &view.listeners;
    html! {
        section #listeners data-live aria-labelledby="listeners-title" {
            h2 #listeners-title { "Listeners " small { (scope(excerpt)) } }
            div.card {
                @if excerpt.shown.is_empty() {
                    p.empty {
                        @if excerpt.all == 0 { "There is no MailServer of this class yet." } @else { "No matches." }
                    }
                } @else {
                    @let rows = html! { @for listener in &excerpt.shown { (row(listener, view.replica.now, draining)) } };
                    (table("Listeners with their state, sessions and certificates", &COLUMNS, &rows))
                }
                (pages(excerpt, question))
            }
        }
    }
}

const COLUMNS: [&str; 7] = ["Listener", "State", "Address", "Certificate", "Sessions", "Logins", "Backend"];

/// Returns how many listeners are shown, such as `3 of 5,000`.
fn scope<T>(excerpt: &Excerpt<T>) -> String {
    match (excerpt.shown.len(), excerpt.matching, excerpt.all) {
        (shown, _, all) if shown == all => String::new(),
        (shown, matching, all) if matching == all => {
            format!("{} of {}", words::size(shown), words::size(all))
        }
        (shown, matching, all) => {
            let [shown, matching, all] = [shown, matching, all].map(words::size);
            format!("{shown} of {matching} found among {all}")
        }
    }
}

fn row(listener: &Listener, now: i64, draining: bool) -> Markup {
    let (class, sign, word) = if draining { words::DRAINING } else { words::state(listener.state) };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (listener.object)
                @if !listener.name.is_empty() { " · " (listener.name) }
                span.muted { (listener.kind) }
            }
            td role="cell" data-label=(COLUMNS[1]) { span.pill.(class) { (sign) " " (word) } }
            @match &listener.serving {
                Some(serving) => (cells(serving, now)),
                None => td role="cell" colspan="5" data-label=(COLUMNS[2]) { "serves nothing" },
            }
        }
        @if !listener.notes.is_empty() {
            tr.notes role="row" {
                td role="cell" colspan=(COLUMNS.len()) {
                    @for (reason, sentence) in &listener.notes { p.note { b { (reason) } ": " (sentence) } }
                }
            }
        }
    }
}

fn cells(serving: &Serving, now: i64) -> Markup {
    let Serving { numbers, .. } = serving;
    html! {
        td role="cell" data-label=(COLUMNS[2]) {
            div {
                (serving.address)
                span.muted { (serving.protocol) ", TLS " (serving.tls) }
                @if !serving.hostnames.is_empty() { span.muted { "for " (serving.hostnames.join(", ")) } }
                @if serving.bound == [serving.address.as_str()] {
                    span.muted { "bound" }
                } @else if serving.bound.is_empty() { span.muted { "not bound" } } @else {
                    span.muted { "bound: " (serving.bound.join(", ")) }
                }
            }
        }
        td role="cell" data-label=(COLUMNS[3]) {
            div {
                @if serving.certificates.is_empty() { "none" }
                @for certificate in &serving.certificates { (self::certificate(certificate, now)) }
                @let more = serving.certificates_in_all.saturating_sub(serving.certificates.len());
                @if more > 0 { span.muted { "and " (words::things(more, "other")) } }
            }
        }
        td role="cell" data-label=(COLUMNS[4]) {
            div {
                span.number {
                    (words::count(numbers.open)) " open"
                    @if let Some(limit) = serving.limit { " of " (words::count(limit.into())) }
                }
                span.muted.number { (words::rate(numbers.sessions_per_minute)) " new a minute" }
                span.muted.number { (words::bytes(numbers.bytes_per_second)) "/s" }
            }
        }
        td role="cell" data-label=(COLUMNS[5]) {
            div {
                span.number { (words::count(numbers.accepted)) " accepted" }
                span.muted.number { (words::count(numbers.refused)) " refused" }
                @if numbers.unavailable > 0 {
                    span.muted.number { (words::count(numbers.unavailable)) " unavailable" }
                }
                span.muted.number { (words::count(numbers.failed)) " failed" }
            }
        }
        td role="cell" data-label=(COLUMNS[6]) {
            (serving.backend.as_deref().unwrap_or("chosen by the auth service"))
        }
    }
}

pub(super) fn certificate(certificate: &Certificate, now: i64) -> Markup {
    let Certificate { secret, names, names_in_all, state, not_after } = certificate;
    let more = names_in_all.saturating_sub(names.len());
    html! {
        span {
            (names.join(", "))
            @if more > 0 { " and " (words::size(more)) " more" }
            @if names.is_empty() { "no names" }
        }
        span.muted { "Secret " (secret) }
        span.muted {
            @match state {
                State::Bad | State::Alarming => {
                    @let (class, sign, _) = words::state(*state);
                    span.pill.(class) { (sign) " " (words::expiry(*not_after, now)) }
                }
                State::Good | State::Pending => (words::expiry(*not_after, now)),
            }
            ", " time datetime=(words::instant(*not_after)) { (words::date(*not_after)) }
        }
    }
}

/// Shows links to the previous and the next page.
fn pages(excerpt: &Excerpt<Listener>, question: &Question) -> Markup {
    let Excerpt { page, pages, .. } = excerpt;
    html! {
        @if *pages > 1 {
            nav.pages aria-label="Pages of listeners" {
                @if *page > 1 { a rel="prev" href=(link(question, page - 1)) { "Before" } }
                span { "Page " (words::size(*page)) " of " (words::size(*pages)) }
                @if page < pages { a rel="next" href=(link(question, page + 1)) { "After" } }
            }
        }
    }
}

fn link(question: &Question, page: usize) -> String {
    let path = "/?";
    let mut query = form_urlencoded::Serializer::for_suffix(path.to_owned(), path.len());
    if !question.text.is_empty() {
        query.append_pair("q", &question.text);
    }
    if question.only_troubled {
        query.append_pair("only", TROUBLED);
    }
    if question.certificates == CertificateOrder::Secret {
        query.append_pair("certificates", BY_SECRET);
    }
    query.append_pair("page", &page.to_string()).finish() + "#listeners"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_reached_by_a_link_with_the_same_question() {
        let question =
            Question { text: "a&b=ü c".into(), only_troubled: true, page: 2, ..Question::default() };
        assert_eq!(link(&question, 3), "/?q=a%26b%3D%C3%BC+c&only=troubled&page=3#listeners");
        assert_eq!(link(&Question::default(), 2), "/?page=2#listeners");
    }
}
