//! The table of certificates.

use maud::{Markup, html};

use crate::admin::page::words;
use crate::model::view::{Certificate, CertificateOrder, Question, View};

use super::listener::certificate;
use super::{BY_SECRET, TROUBLED, table};

/// Shows the matching certificates.
pub(in crate::admin::page) fn certificates(view: &View, question: &Question) -> Markup {
    let excerpt = &view.certificates;
    html! {
        section #certificates data-live aria-labelledby="certificates-title" {
            h2 #certificates-title {
                "Certificates "
                small {
                    @if excerpt.shown.len() < excerpt.all {
                        (words::size(excerpt.shown.len())) " of " (words::size(excerpt.all)) ", "
                    }
                    @match question.certificates {
                        CertificateOrder::Expiry => {
                            "sorted by expiry; "
                            a href=(link(question, CertificateOrder::Secret)) { "sort by Secret" }
                        }
                        CertificateOrder::Secret => {
                            "sorted by Secret; "
                            a href=(link(question, CertificateOrder::Expiry)) { "sort by expiry" }
                        }
                    }
                }
            }
            div.card {
                @if excerpt.shown.is_empty() {
                    p.empty { @if excerpt.all == 0 { "No listener serves one." } @else { "No matches." } }
                } @else {
                    @let rows = html! {
                        @for (certificate, listeners) in &excerpt.shown {
                            (row(certificate, *listeners, view.replica.now))
                        }
                    };
                    (table("Certificates with expiry and listeners", &COLUMNS, &rows))
                }
            }
        }
    }
}

const COLUMNS: [&str; 3] = ["Secret", "Names and end", "Served by"];

fn row(shown: &Certificate, listeners: usize, now: i64) -> Markup {
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { (shown.secret) }
            td role="cell" data-label=(COLUMNS[1]) { div { (certificate(shown, now)) } }
            td role="cell" data-label=(COLUMNS[2]) { (words::things(listeners, "listener")) }
        }
    }
}

/// Returns the link to the same page with another order.
fn link(question: &Question, order: CertificateOrder) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !question.text.is_empty() {
        query.append_pair("q", &question.text);
    }
    if question.only_troubled {
        query.append_pair("only", TROUBLED);
    }
    if order == CertificateOrder::Secret {
        query.append_pair("certificates", BY_SECRET);
    }
    let query = query.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/{mark}{query}#certificates")
}
