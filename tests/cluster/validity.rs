//! A real API server against the table in `tests/validity`, which `check` and rendering are held against as well.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cluster::Cluster;

#[path = "../validity/table.rs"]
mod table;

use table::{Case, Verdict, cases};

#[test]
fn the_api_server_agrees_with_the_table_of_what_is_valid() {
    let Some(cluster) = Cluster::new("validity") else { return };
    let cases = cases();
    let items: Vec<_> = cases.iter().map(|case| &case.object).collect();
    let said = cluster.dry_run(&json!({ "apiVersion": "v1", "kind": "List", "items": items }));
    let mut refusals: BTreeMap<&str, &str> = BTreeMap::new();
    // A sentence for each object, which may have several lines.
    for refusal in said.split_inclusive("\nThe Mail").flat_map(|part| part.split("Error from server")) {
        let name = refusal.split('"').find(|name| cases.iter().any(|case| case.name() == *name));
        refusals.extend(name.map(|name| (name, refusal)));
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let refusal = refusals.get(case.name()).map(|refusal| (*refusal).to_owned());
        // That of an object with an unknown field does not say its name.
        let is_taken = said.contains(&format!("/{} created", case.name()));
        let refusal = refusal.or_else(|| (!is_taken).then(|| cluster.dry_run(&case.object)));
        let agrees = match (case.verdict, &refusal) {
            (Verdict::Taken | Verdict::Told, refusal) => refusal.is_none(),
            (Verdict::Refused, Some(refusal)) => refusal.contains(&case.api),
            (Verdict::Refused, None) => false,
        };
        if !agrees {
            let Case { object, verdict, api, .. } = case;
            wrong.push(format!("{object}\n    {verdict:?} {api:?}; the API server: {refusal:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
