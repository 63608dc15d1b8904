//! The folder of manifests: changes by volumes and editors, mistakes, and what is served and reported then.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::Authority;
use crate::support::talk::{backend_answers, greeted, log_in};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// Uses SMTP, because its greeting contains the `serverName`.
struct Edge {
    backend: Backend,
    folder: Folder,
    at: SocketAddr,
}

impl Edge {
    fn new() -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        Self { backend: Backend::smtp("smtp"), folder: Folder::new(), at }
    }

    /// A `MailServer` named `name` that greets with `server_name`, on its own port.
    fn server(&self, name: &str, server_name: &str, at: SocketAddr) -> Value {
        let listeners = [listener("smtp", "SMTP", "Disabled", at.port(), self.backend.address())];
        let spec = json!({ "serverName": server_name, "auth": passthrough(), "listeners": listeners });
        with(mail_server(&spec), &json!({ "metadata": { "name": name } }))
    }

    fn edge(&self, server_name: &str) -> Value {
        self.server("edge", server_name, self.at)
    }

    fn session(&self) -> Wire {
        let mut wire = greeted(self.at).unwrap();
        assert!(log_in(&mut wire, "SMTP", "user", "secret").unwrap().starts_with("235"));
        wire
    }
}

/// Returns the server name in the greeting; `None` if nobody listens.
fn greets(at: SocketAddr) -> Option<String> {
    let greeting = Wire::connect(at).and_then(|mut wire| wire.line()).ok()?;
    let name = greeting.strip_prefix("220 ").and_then(|rest| rest.strip_suffix(" ESMTP ready"));
    Some(name.unwrap_or_else(|| panic!("{greeting}")).to_owned())
}

fn comes_to_greet(at: SocketAddr, server_name: &str) {
    wait::eventually(&format!("{server_name} greets"), || {
        (greets(at).as_deref() == Some(server_name)).then_some(())
    });
}

/// Returns `problems` of `/status`.
fn problems(mailgress: &Mailgress) -> Vec<String> {
    let status = mailgress.status();
    let problems = status["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

/// Waits for a problem that contains all of `texts`.
fn tells(mailgress: &Mailgress, texts: &[&str]) -> String {
    wait::eventually(&format!("a problem with {texts:?}"), || {
        problems(mailgress).into_iter().find(|problem| texts.iter().all(|text| problem.contains(text)))
    })
}

fn has_no_problem(mailgress: &Mailgress) {
    wait::eventually("there is no problem", || problems(mailgress).is_empty().then_some(()));
}

fn objects(mailgress: &Mailgress) -> Vec<String> {
    let status = mailgress.status();
    let objects = status["objects"].as_array().unwrap().iter();
    objects.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
}

fn ready(mailgress: &Mailgress) -> Value {
    let status = mailgress.status();
    let conditions = status["objects"][0]["status"]["conditions"].as_array().unwrap().clone();
    conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap()
}

#[test]
fn a_volumes_swap_of_its_data_link_is_served() {
    let edge = Edge::new();
    let path = |name: &str| edge.folder.file(name);
    let version = |name: &str, server_name: &str| {
        std::fs::create_dir(path(name)).unwrap();
        edge.folder.write(&format!("{name}/server.yaml"), &edge.edge(server_name));
    };
    version("..2026_01", "first.test");
    symlink("..2026_01", path("..data")).unwrap();
    symlink("..data/server.yaml", path("server.yaml")).unwrap();
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let mut session = edge.session();
    for (index, name) in ["second.test", "third.test"].into_iter().enumerate() {
        let (old, new) = (format!("..2026_0{}", index + 1), format!("..2026_0{}", index + 2));
        version(&new, name);
        symlink(&new, path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
        std::fs::remove_dir_all(path(&old)).unwrap();
        comes_to_greet(edge.at, name);
        assert_eq!(objects(&mailgress), ["edge"]);
        has_no_problem(&mailgress);
    }
    assert!(backend_answers(&mut session, "SMTP").unwrap());
}

#[test]
fn the_temporary_files_of_editors_are_not_seen() {
    let edge = Edge::new();
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let foreign = serde_yaml::to_string(&edge.server("foreign", "foreign.test", edge.at)).unwrap();
    for name in
        [".server.yaml.swp", "server.yaml~", "#server.yaml#", "4913", ".server.yaml", "server.yaml.tmp"]
    {
        edge.folder.write_text(name, &foreign);
        edge.folder.write_text(&format!("{name}.yaml.swp"), "{ not even YAML");
    }
    // The next configuration was read after them.
    edge.folder.replace("server.yaml", &edge.edge("second.test"));
    comes_to_greet(edge.at, "second.test");
    assert_eq!(objects(&mailgress), ["edge"]);
    has_no_problem(&mailgress);
    // As vim does: the old file becomes the backup, and a new file gets its name.
    std::fs::rename(edge.folder.file("server.yaml"), edge.folder.file("server.yaml~")).unwrap();
    edge.folder.write("server.yaml", &edge.edge("third.test"));
    std::fs::remove_file(edge.folder.file("server.yaml~")).unwrap();
    comes_to_greet(edge.at, "third.test");
}

#[test]
fn a_half_written_file_changes_nothing_and_is_told_until_it_is_whole() {
    let edge = Edge::new();
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let mut session = edge.session();
    let text = serde_json::to_string_pretty(&edge.edge("second.test")).unwrap();
    edge.folder.write_text("server.yaml", &text[..text.len() - 20]);
    let problem = tells(&mailgress, &["server.yaml:", "the last valid content stays in use"]);
    assert!(
        problem.split("server.yaml:").nth(1).unwrap().starts_with(|c: char| c.is_ascii_digit()),
        "{problem}"
    );
    mailgress.logs(&["ERROR", "server.yaml:"]);
    assert_eq!(greets(edge.at).as_deref(), Some("first.test"));
    assert_eq!(ready(&mailgress)["status"], "True");
    edge.folder.write_text("server.yaml", &text);
    comes_to_greet(edge.at, "second.test");
    has_no_problem(&mailgress);
    assert!(backend_answers(&mut session, "SMTP").unwrap());
}

#[test]
fn the_objects_of_a_deleted_file_go_and_their_sessions_stay() {
    let edge = Edge::new();
    let other = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    edge.folder.write("server.yaml", &edge.edge("edge.test"));
    edge.folder.write("other.yaml", &edge.server("other", "other.test", other));
    let mailgress = Mailgress::start(&edge.folder);
    let mut session = edge.session();
    assert_eq!(objects(&mailgress), ["edge", "other"]);
    edge.folder.remove("server.yaml");
    wait::eventually("the port is closed", || greets(edge.at).is_none().then_some(()));
    wait::eventually("the object is gone", || (objects(&mailgress) == ["other"]).then_some(()));
    assert_eq!(greets(other).as_deref(), Some("other.test"));
    assert!(backend_answers(&mut session, "SMTP").unwrap());
    edge.folder.write("server.yaml", &edge.edge("again.test"));
    comes_to_greet(edge.at, "again.test");
    assert!(backend_answers(&mut session, "SMTP").unwrap());
}

#[test]
fn of_an_object_in_two_files_the_first_one_counts_until_it_is_gone() {
    let edge = Edge::new();
    edge.folder.write("b.yaml", &edge.edge("second.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "second.test");
    edge.folder.write("a.yaml", &edge.edge("first.test"));
    comes_to_greet(edge.at, "first.test");
    tells(&mailgress, &["b.yaml: MailServer mail/edge is also in", "a.yaml"]);
    assert_eq!(objects(&mailgress), ["edge"]);
    edge.folder.remove("a.yaml");
    comes_to_greet(edge.at, "second.test");
    has_no_problem(&mailgress);
}

#[test]
fn an_unknown_field_is_told_with_its_name_and_the_last_good_configuration_is_served() {
    let edge = Edge::new();
    let other = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let wrong = with(edge.edge("second.test"), &json!({ "spec": { "timeout": { "client": "5s" } } }));
    edge.folder.replace("server.yaml", &wrong);
    wait::eventually("the field is told", || {
        let status = mailgress.status().to_string();
        (status.contains("spec.timeout") && status.contains("did you mean timeouts")).then_some(())
    });
    assert_eq!(greets(edge.at).as_deref(), Some("first.test"));
    // Other objects are not affected, neither before nor after.
    edge.folder.write("other.yaml", &edge.server("other", "other.test", other));
    comes_to_greet(other, "other.test");
    assert_eq!(greets(edge.at).as_deref(), Some("first.test"));
    edge.folder.replace("server.yaml", &edge.edge("third.test"));
    comes_to_greet(edge.at, "third.test");
    wait::eventually("it is told no more", || {
        (!mailgress.status().to_string().contains("spec.timeout\"")
            && !mailgress.status().to_string().contains("did you mean"))
        .then_some(())
    });
}

#[test]
fn subfolders_and_several_documents_and_json_are_read() {
    let edge = Edge::new();
    let ports = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], ports::free())));
    let yaml = |index: usize, name: &str| {
        serde_yaml::to_string(&edge.server(name, &format!("{name}.test"), ports[index])).unwrap()
    };
    edge.folder.write_text("two.yml", &format!("{}---\n{}---\n", yaml(0, "one"), yaml(1, "two")));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(ports[0], "one.test");
    comes_to_greet(ports[1], "two.test");
    // A folder that is created later is watched too.
    std::fs::create_dir_all(edge.folder.file("deep/down")).unwrap();
    let json = serde_json::to_string(&edge.server("three", "three.test", ports[2])).unwrap();
    edge.folder.write_text("deep/down/three.json", &json);
    comes_to_greet(ports[2], "three.test");
    std::fs::remove_dir_all(edge.folder.file("deep")).unwrap();
    wait::eventually("the subfolder's objects are gone", || (objects(&mailgress).len() == 2).then_some(()));
}

#[test]
fn a_file_that_grows_without_bound_costs_neither_memory_nor_sessions() {
    let edge = Edge::new();
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let mut session = edge.session();
    let before = mailgress.peak_bytes();
    let fields: String = (0..40).map(|n| format!("k{n}: v, ")).collect();
    let mut merges = format!("a0: &a0 {{{fields}}}\n");
    for level in 1..400 {
        let below = format!("*a{}", level - 1);
        merges += &format!("a{level}: &a{level} {{<<: {below}, x: {below}, y: {below}, z: {below}}}\n");
    }
    let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(300_000));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(100_000));
    for (text, bound) in [
        (merges, "expand to more than 20000 values"),
        (wide, "commas and opening brackets"),
        (long, "bytes of text"),
        ("{a: ".repeat(50_000), "nested more than 64 deep"),
        ("[".repeat(150_000), "nested more than 64 deep"),
        (format!("[{}]", "a,".repeat(1_500_000)), "commas and opening brackets"),
        ("- a\n".repeat(700_000), "more than 200000 values"),
        (" ".repeat(4 << 20), "3 MiB"),
    ] {
        edge.folder.write_text("server.yaml", &text);
        tells(&mailgress, &["server.yaml", bound, "the last valid content stays in use"]);
        assert_eq!(greets(edge.at).as_deref(), Some("first.test"));
    }
    let grown = mailgress.peak_bytes() - before;
    assert!(grown < MOST_GROWTH, "{} MiB", grown >> 20);
    assert!(backend_answers(&mut session, "SMTP").unwrap());
    edge.folder.write("server.yaml", &edge.edge("second.test"));
    comes_to_greet(edge.at, "second.test");
    has_no_problem(&mailgress);
    assert!(backend_answers(&mut session, "SMTP").unwrap());
}

/// Maximum memory growth for a refused file of a few MiB.
const MOST_GROWTH: u64 = 300 << 20;

#[test]
fn links_to_the_folder_itself_and_to_the_root_do_not_keep_changes_from_being_read() {
    let edge = Edge::new();
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    symlink("/", edge.folder.file("root")).unwrap();
    symlink(".", edge.folder.file("loop")).unwrap();
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    tells(&mailgress, &["/root: ", "already read"]);
    tells(&mailgress, &["/loop: ", "already read"]);
    edge.folder.write("server.yaml", &edge.edge("second.test"));
    comes_to_greet(edge.at, "second.test");
    for link in ["root", "loop"] {
        edge.folder.remove(link);
    }
    has_no_problem(&mailgress);
}

#[test]
fn a_chain_of_two_thousand_copies_is_served_without_them() {
    let edge = Edge::new();
    let identity = Authority::new("ca").issue(&["edge.test"]);
    edge.folder.write("server.yaml", &edge.edge("first.test"));
    let mailgress = Mailgress::start(&edge.folder);
    comes_to_greet(edge.at, "first.test");
    let mut secret = tls_secret("long", &identity);
    let certificate = identity.certificate.clone();
    secret["stringData"]["tls.crt"] = json!(format!("{certificate}{}", certificate.repeat(2000)));
    edge.folder.write("secret.yaml", &secret);
    let tls = json!({ "spec": { "tls": { "certificateRefs": [{ "name": "long" }] } } });
    let mut server = with(edge.edge("second.test"), &tls);
    server["spec"]["listeners"][0]["tls"] = json!({ "mode": "StartTLS" });
    edge.folder.replace("server.yaml", &server);
    comes_to_greet(edge.at, "second.test");
    wait::eventually("the chain is told", || {
        mailgress.status().to_string().contains("ChainRearranged").then_some(())
    });
}
