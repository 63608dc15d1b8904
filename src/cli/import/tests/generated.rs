//! The manifests and notes in tests/nginx are the output of `import nginx`. `make generate` writes them, and a person
//! reviews them.

use super::*;
use crate::cli::generated;

fn is_kept(name: &str, text: &str) {
    generated::is_current(Path::new("tests/nginx").join(name), text);
}

/// Compares the manifests with those beside the configuration, which must have no violations.
fn matches_the_files_beside_it(name: &str) {
    let imported = import(&format!("{name}.conf"), false);
    is_kept(&format!("{name}.yaml"), &printed(&imported));
    assert_eq!(notes(&imported), "", "everything has an equivalent");
    is_valid(&import(&format!("{name}.conf"), true));
}

#[test]
fn the_example_of_the_documentation_is_imported() {
    matches_the_files_beside_it("documentation");
}

#[test]
fn every_form_of_listen_is_imported() {
    matches_the_files_beside_it("listen");
}

#[test]
fn tls_is_imported_with_its_files() {
    matches_the_files_beside_it("tls");
}

#[test]
fn every_directive_is_imported_from_mail() {
    matches_the_files_beside_it("everything-mail");
}

#[test]
fn every_directive_is_imported_from_server_and_wins() {
    matches_the_files_beside_it("everything-server");
}

#[test]
fn absent_directives_have_nginxs_default() {
    matches_the_files_beside_it("defaults");
}

#[test]
fn includes_are_followed_by_name_and_pattern() {
    matches_the_files_beside_it("included");
}

#[test]
fn reports_directives_without_equivalent_with_their_line() {
    let imported = import("missing.conf", false);
    let advice: String = imported.advice.iter().map(|note| format!("{note}\n")).collect();
    is_kept("missing.notes", &format!("{}---\n{advice}", notes(&imported)));
    is_kept("missing.yaml", &printed(&imported));
}

#[test]
fn all_problems_of_all_files_are_named_in_one_run() {
    let refused =
        import::nginx(Path::new("broken.conf"), None, &Fake { real: false, inline: None }).unwrap_err();
    let lines = |notes: &[Note]| notes.iter().map(|note| format!("{note}\n")).collect::<String>();
    is_kept("broken.problems", &format!("{refused}\n---\n{}", lines(&refused.notes)));
}

#[test]
fn directives_of_forks_are_reported_and_do_not_prevent_the_import() {
    let imported = import("zimbra.conf", false);
    is_kept("zimbra.notes", &notes(&imported));
    assert!(printed(&imported).contains("name: imaps"));
}

#[test]
fn a_dump_is_imported_with_its_includes_and_without_the_files_that_are_elsewhere() {
    let imported = import("dump.txt", false);
    is_kept("dump.notes", &notes(&imported));
    is_kept("dump.yaml", &printed(&imported));
    let missing = "# configuration file /n/nginx.conf:\nmail { include gone.conf; }\n";
    assert_eq!(
        inline(missing).unwrap_err().to_string(),
        "/n/nginx.conf:1: open() \"/n/gone.conf\" failed (it is not in the dump)"
    );
    // This file exists on this machine, but is not that of the dump.
    let folder = "# configuration file x.d/nginx.conf:\nmail { include ../conf.d/*.conf; }\n";
    assert!(inline(folder).unwrap_err().to_string().contains("there is no server {}"));
}

#[test]
fn reports_directives_that_differ_in_a_pod() {
    let imported = import("advice.conf", false);
    let advice: String = imported.advice.iter().map(|note| format!("{note}\n")).collect();
    is_kept("advice.notes", &advice);
    assert_eq!(notes(&imported), "", "everything has an equivalent");
}
