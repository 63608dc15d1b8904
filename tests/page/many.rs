//! Thousands of listeners: the page stays small and fast, and the search finds listeners.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::edge::named;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, passthrough, with};
use crate::support::{ports, wait};

const SERVERS: usize = 5000;
/// Time limit for an unoptimised build to render this many manifests on a loaded machine.
const FIRST_RENDER: Duration = Duration::from_secs(300);
/// Maximum size of a page in bytes, including style and script.
const LARGEST: usize = 100_000;
/// Time limit for a page of an unoptimised build on a loaded machine, for the fastest of several attempts.
const LONGEST: Duration = Duration::from_millis(500);

#[test]
fn a_page_of_five_thousand_servers_is_small_and_quick_and_finds_each_of_them() {
    let (folder, port) = (Folder::new(), ports::free());
    let documents: Vec<String> = (0..SERVERS)
        .map(|number| {
            let one = listener("imap", "IMAP", "Disabled", port, ([127, 0, 0, 1], 9).into());
            // All except the first one conflict.
            let listeners = [with(one, &json!({}))];
            let spec = json!({ "auth": passthrough(), "listeners": listeners });
            serde_yaml::to_string(&named(&format!("server-{number:04}"), &spec)).unwrap()
        })
        .collect();
    let mailgress = Mailgress::start(&folder);
    folder.write_text("all.yaml", &documents.join("---\n"));
    wait::within(FIRST_RENDER, "all are on the page", || {
        mailgress.page("/").contains("25 of 5,000").then_some(())
    });
    let mut shortest = Duration::MAX;
    for path in ["/", "/?q=server-4321", "/?only=troubled&page=100", "/?page=200"] {
        let asked = Instant::now();
        let page = mailgress.page(path);
        shortest = shortest.min(asked.elapsed());
        assert!(page.len() < LARGEST, "{path}: {} bytes", page.len());
    }
    assert!(shortest < LONGEST, "{shortest:?}");
    let found = mailgress.page("/?q=SERVER-4321");
    assert!(found.contains("mail/server-4321") && !found.contains("mail/server-4322"), "{found}");
    assert!(found.contains("1 of 1 found among 5,000"), "{found}");
    assert!(mailgress.page("/?page=2").contains("Page 2 of 200"));
    // The listener that works comes last.
    let last = mailgress.page("/?page=999999");
    assert!(last.contains("Page 200 of 200") && last.contains("mail/server-0000"), "{last}");
    assert!(mailgress.page("/?q=nobody").contains("No matches."));
}
