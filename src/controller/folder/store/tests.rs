//! Tests of the content of files.

use super::*;
use crate::controller::folder::scan::{RecentWrites, scan};
use crate::controller::reason::Reason;
use crate::controller::validate::tests::validator;

struct Files {
    store: Store,
    texts: BTreeMap<PathBuf, Result<String, String>>,
}

impl Files {
    fn new() -> Self {
        Self { store: Store::default(), texts: BTreeMap::new() }
    }

    fn write(&mut self, path: &str, text: &str) -> Loaded {
        self.texts.insert(path.into(), Ok(text.to_owned()));
        self.scan()
    }

    fn scan(&mut self) -> Loaded {
        let seen = |(path, text): (&PathBuf, &Result<String, String>)| {
            (path.clone(), Seen::Read(text.clone().into()))
        };
        let files = self.texts.iter().map(seen).collect();
        self.store.apply(Scan { files, ..Scan::default() }, validator());
        self.store.load()
    }
}

fn problems(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

fn server(name: &str, port: u16) -> String {
    format!(
        "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {{name: {name}}}\n\
         spec: {{listeners: [{{name: a, protocol: IMAP, port: {port}}}]}}\n"
    )
}

fn generation(loaded: &Loaded, name: &str) -> i64 {
    loaded.objects.servers[&Key::new("default", name)].generation
}

#[test]
fn files_are_read_again_on_demand_although_they_look_the_same() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), server("one", 143)).unwrap();
    let mut store = Store::default();
    let reads = |store: &Store| {
        let seen = scan(folder.path(), &store.stamps(), RecentWrites::Read).files.into_values();
        seen.filter(|seen| matches!(seen, Seen::Read(..))).count()
    };
    store.apply(scan(folder.path(), &store.stamps(), RecentWrites::Read), validator());
    while reads(&store) > 0 {
        // A file that was written just now is not settled yet.
        store.apply(scan(folder.path(), &store.stamps(), RecentWrites::Read), validator());
    }
    store.forget_stamps();
    assert_eq!(reads(&store), 1);
}

#[test]
fn a_truncated_file_keeps_what_it_held_although_it_is_renamed_or_all_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut store = Store::default();
    std::fs::write(path("a.yaml"), server("one", 143)).unwrap();
    store.apply(scan(folder.path(), &store.stamps(), RecentWrites::Read), validator());
    std::fs::write(path("a.yaml"), "").unwrap();
    let second_ago = std::time::SystemTime::now() - Duration::from_secs(1);
    std::fs::File::open(path("a.yaml")).unwrap().set_modified(second_ago).unwrap();
    store.forget_stamps();
    let mut objects = |patience| {
        store.apply(scan(folder.path(), &store.stamps(), patience), validator());
        let loaded = store.load();
        let origin = loaded.origins.values().next().and_then(|path| path.file_name().map(ToOwned::to_owned));
        (loaded.objects.servers.len(), origin)
    };
    assert_eq!(objects(RecentWrites::Wait), (1, Some("a.yaml".into())), "all files are read again");
    std::fs::rename(path("a.yaml"), path("b.yaml")).unwrap();
    assert_eq!(objects(RecentWrites::Wait), (1, Some("b.yaml".into())), "it is renamed");
    assert_eq!(objects(RecentWrites::Read), (0, None), "it stays empty");
}

#[test]
fn several_documents_lists_and_json_are_read() {
    let mut files = Files::new();
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s, namespace: n}, \
                data: {a: aGk=, b: aGk=}, stringData: {b: '2'}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, \
                data: {x: y}, binaryData: {z: aGk=}}\n---\n---\n";
    files.write("a.yaml", &(list.to_owned() + &server("one", 143)));
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d"}, "spec": {"ports": [{"port": 1}]}}"#;
    let loaded = files.write("b/c.json", json);
    assert_eq!(problems(&loaded), Vec::<String>::new());
    let secret = &loaded.objects.secrets[&Key::new("n", "s")];
    assert_eq!((secret.data["a"].expose(), secret.data["b"].expose()), (&b"hi"[..], &b"2"[..]));
    assert_eq!(loaded.objects.config_maps[&Key::new("default", "c")]["z"], b"hi");
    assert!(loaded.objects.services.contains_key(&Key::new("default", "d")));
    assert_eq!(loaded.origins[&(Kind::Server, Key::new("default", "one"))], Path::new("a.yaml"));
}

#[test]
fn a_broken_file_keeps_its_content_and_is_reported_with_line_and_column() {
    let mut files = Files::new();
    files.write("a.yaml", &server("one", 143));
    let loaded = files.write("a.yaml", &(server("one", 144) + "x: [1, 2\n"));
    assert!(loaded.objects.servers.contains_key(&Key::new("default", "one")));
    assert_eq!(generation(&loaded, "one"), 1);
    let found = problems(&loaded);
    assert!(
        found[0].starts_with("a.yaml:") && found[0].contains("the last valid content stays in use"),
        "{found:?}"
    );
    let place: Vec<&str> = found[0].split(':').take(3).collect();
    assert!(place[1].parse::<u32>().unwrap() >= 5 && place[2].trim().parse::<u32>().is_ok(), "{found:?}");
    let loaded = files.write("a.yaml", &server("one", 144));
    assert_eq!((problems(&loaded).len(), generation(&loaded, "one")), (0, 2));
}

#[test]
fn an_unreadable_file_or_folder_keeps_its_previous_content() {
    let mut files = Files::new();
    files.write("f/a.yaml", &server("one", 143));
    files.texts.insert("f/a.yaml".into(), Err("permission denied".to_owned()));
    let loaded = files.scan();
    assert_eq!(loaded.objects.servers.len(), 1);
    assert_eq!(
        problems(&loaded),
        ["f/a.yaml: this cannot be read: permission denied; the last valid content stays in use"]
    );
    let unreadable = [(PathBuf::from("f"), "gone".to_owned())].into();
    files.store.apply(Scan { unreadable, ..Scan::default() }, validator());
    assert_eq!(files.store.load().objects.servers.len(), 1);
}

#[test]
fn the_objects_of_a_deleted_file_are_removed() {
    let mut files = Files::new();
    files.write("a.yaml", &server("one", 143));
    files.texts.clear();
    assert!(files.scan().objects.servers.is_empty());
}

#[test]
fn of_duplicates_the_first_by_path_counts_and_both_are_named() {
    let mut files = Files::new();
    files.write("b.yaml", &server("one", 2));
    let loaded = files.write("a.yaml", &server("one", 1));
    assert_eq!(loaded.origins[&(Kind::Server, Key::new("default", "one"))], Path::new("a.yaml"));
    assert_eq!(
        problems(&loaded),
        [
            "b.yaml: MailServer default/one is also in a.yaml, which takes precedence; remove or rename one of them"
        ]
    );
}

#[test]
fn the_generation_counts_changes_of_the_spec_only() {
    let mut files = Files::new();
    assert_eq!(generation(&files.write("a.yaml", &server("one", 1)), "one"), 1);
    assert_eq!(generation(&files.write("a.yaml", &(server("one", 1) + "# comment\n")), "one"), 1);
    assert_eq!(generation(&files.write("a.yaml", &server("one", 2)), "one"), 2);
}

#[test]
fn unknown_kinds_are_ignored() {
    let mut files = Files::new();
    let loaded = files.write("a.yaml", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}");
    assert_eq!(problems(&loaded), Vec::<String>::new());
}

#[test]
fn a_document_that_is_not_an_object_is_a_problem() {
    let mut files = Files::new();
    let mut found = |text: &str| problems(&files.write("a.yaml", text)).join("\n");
    assert!(found("just text").contains("no apiVersion and kind"));
    assert!(
        found("kind: MailServer\nmetadata: {name: a}")
            .contains("a MailServer has no apiVersion; add apiVersion: mailgress.dev/v1alpha1")
    );
    assert!(found("{apiVersion: v1, kind: Secret}").contains("has no metadata.name"));
    assert!(
        found("{apiVersion: mailgress.dev/v1alpha1, kind: MailSever, metadata: {name: x}}")
            .contains("no such kind")
    );
    let old = server("one", 1).replace("v1alpha1", "v1");
    assert!(found(&old).contains("write mailgress.dev/v1alpha1"));
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {password: hunter2!}}";
    assert_eq!(found(secret), "a.yaml: Secret default/s is broken: its data is not base64");
    assert!(found("a: 1\na: 2\n").contains("duplicate"), "{}", found("a: 1\na: 2\n"));
}

#[test]
fn an_invalid_object_is_known_with_its_violations() {
    let mut files = Files::new();
    let loaded = files.write("a.yaml", &server("one", 1).replace("port", "prot"));
    let server = &loaded.objects.servers[&Key::new("default", "one")];
    let found = server.spec.as_ref().unwrap_err();
    assert_eq!((found[0].reason, found[0].field.as_str()), (Reason::UnknownField, "spec.listeners[a].prot"));
}

#[test]
fn an_unchanged_secret_stays_the_same_allocation() {
    let secret = "---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: b}}\n";
    let mut files = Files::new();
    let of = |loaded: &Loaded| Arc::clone(&loaded.objects.secrets[&Key::new("default", "s")]);
    let first = of(&files.write("a.yaml", &(server("one", 1) + secret)));
    let second = of(&files.write("a.yaml", &(server("one", 2) + secret)));
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn an_object_that_breaks_affects_no_other_of_its_file() {
    let mut files = Files::new();
    let secret = |data: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{a: {data}}}\n---\n")
    };
    files.write("a.yaml", &(secret("aGk=") + &server("one", 143)));
    let loaded = files.write("a.yaml", &(secret("'*'") + &server("one", 144)));
    assert_eq!(generation(&loaded, "one"), 2, "the other is read");
    assert_eq!(loaded.objects.secrets[&Key::new("default", "s")].data["a"].expose(), b"hi");
    let [problem] = &problems(&loaded)[..] else { panic!("{:?}", loaded.problems) };
    assert!(
        problem.contains("Secret default/s") && problem.contains("its last content stays in use"),
        "{problem}"
    );
    let misspelt = server("one", 145).replace("MailServer", "MailSever");
    let loaded = files.write("a.yaml", &(secret("aGk=") + &misspelt));
    assert_eq!(generation(&loaded, "one"), 2, "it is what it was");
}

#[test]
fn ignores_objects_of_other_kinds() {
    let foreign = [
        ("kustomization.yaml", "resources: [mail.yaml]\n"),
        (
            "b/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a]\n",
        ),
        (
            "c/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [b]\n",
        ),
        ("chart/Chart.yaml", "apiVersion: v2\nname: mail\nversion: 1.0.0\n"),
        ("chart/values.yaml", "replicas: 2\nimage: {tag: x}\n"),
        ("patch.yaml", "- op: replace\n  path: /spec/replicas\n  value: 3\n"),
        ("job.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: a-}\n"),
        ("d.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"),
        ("e.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"),
    ];
    let mut files = Files::new();
    let mut loaded = files.write("mail.yaml", &server("one", 143));
    for (path, text) in foreign {
        loaded = files.write(path, text);
        assert_eq!(problems(&loaded), [""; 0], "{path}");
    }
    assert_eq!(loaded.objects.servers.len(), 1);
}

#[test]
fn a_template_is_named_with_its_line() {
    let told = |text: &str| problems(&Files::new().write("t.yaml", text)).join("\n");
    let is_told = |text: &str, place: &str| {
        let told = told(text);
        assert!(told.starts_with(&format!("t.yaml:{place}: this is a template with {{{{ }}}}")), "{told}");
    };
    is_told("{{- if .Values.enabled }}\nkind: MailServer\n{{- end }}\n", "1:1");
    is_told("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ .Release.Name }}\n", "4:9");
    is_told(
        &format!(
            "{}  serverName: {{{{ .Values.name }}}}\n",
            server("one", 143).replace("spec: {", "spec:\n  x: {")
        ),
        "6:15",
    );
    is_told(&server("one", 143).replace("name: one", "name: \"{{ .Release.Name }}\""), "3:19");
    is_told(
        &server("one", 143).replace("name: a,", "name: a, backendAddress: '{{ .Values.backend }}:143',"),
        "4:47",
    );
    let alert = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: 'of {{ $labels.pod }}'}\n";
    assert_eq!(told(alert), "", "texts of other objects are theirs");
    assert!(told("a: [1\n").contains("t.yaml:2:1: ") && !told("a: [1\n").contains("template"));
}

#[test]
fn a_secret_that_sops_has_encrypted_is_promised_and_not_read() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {tls.crt: 'ENC[AES256_GCM,data:x]'}\n\
                sops: {version: '3'}\n";
    let loaded = Files::new().write("a.yaml", text);
    assert_eq!(problems(&loaded), [""; 0]);
    assert!(loaded.objects.secrets.is_empty() && loaded.generated.len() == 1, "{loaded:?}");
}
