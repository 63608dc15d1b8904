//! Tests of the output of `check`.

use super::*;

fn check(text: &str) -> (Vec<String>, bool) {
    check_as(Format::Short, text)
}

fn check_as(how: Format, text: &str) -> (Vec<String>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, text).unwrap();
    let files = Files { paths: vec![folder.path().to_owned()], class: "mailgress".to_owned() };
    let check = Check { files, strict: false, output: None, colour: Colour { when: When::Auto } };
    let mut input = check.files.read(Completeness::Part).unwrap();
    let texts = texts(&mut input);
    let findings = check.findings(&input, &texts);
    let prefix = format!("{}/", folder.path().display());
    let shown = |finding: &Finding| match how {
        Format::Text => {
            let mut plain = anstream::StripStream::new(Vec::new());
            write!(plain, "{}", finding.long(&texts, None)).unwrap();
            String::from_utf8(plain.into_inner()).unwrap()
        }
        _ => finding.short(),
    };
    let lines = findings.iter().map(|finding| shown(finding).replace(&prefix, "")).collect();
    (lines, findings.iter().any(|finding| finding.is_error))
}

const HEAD: &str = "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {name: s}\n";

#[test]
fn a_line_names_file_object_field_reason_and_remedy() {
    let (lines, wrong) = check(&format!("{HEAD}spec: {{listeners: [{{name: a, prt: 993}}]}}\n"));
    assert!(wrong);
    assert_eq!(
        lines[0],
        "a.yaml:4:30: MailServer default/s: spec.listeners[a].prt: UnknownField: there is no such field; did you \
         mean port?"
    );
}

#[test]
fn a_violation_of_an_inherited_setting_is_reported_once() {
    let spec = "spec: {auth: {passthrough: {}}, tls: {certificateRefs: [{name: t}]}, listeners: [{name: a, port: \
                993, backendAddress: 'b:1'}, {name: b, port: 995, backendAddress: 'b:1'}]}\n";
    let (lines, wrong) = check(&format!("{HEAD}{spec}"));
    assert_eq!((lines.len(), wrong), (1, false), "{lines:?}");
    assert!(
        lines[0].contains("warning: ")
            && lines[0].contains("RefNotFound: Secret default/t is in none of the files; check that"),
        "{lines:?}"
    );
}

#[test]
fn an_alarm_is_a_warning() {
    let spec = "spec: {auth: {passthrough: {}}, listeners: [{name: a, port: 143, backendAddress: 'b:1'}]}\n";
    let (lines, wrong) = check(&format!("{HEAD}{spec}"));
    assert!(!wrong && lines[0].contains("a.yaml:4:1: warning: MailServer default/s: "), "{lines:?}");
}

#[test]
fn a_capability_that_is_announced_by_itself_is_a_warning() {
    let listener = "{name: a, port: 587, smtp: {capabilities: ['AUTH PLAIN']}, backendAddress: 'b:25'}";
    let spec =
        format!("spec: {{auth: {{passthrough: {{}}}}, tls: {{mode: Disabled}}, listeners: [{listener}]}}\n");
    let (lines, wrong) = check(&format!("{HEAD}{spec}"));
    assert!(!wrong, "{lines:?}");
    let warning = "warning: MailServer default/s: spec.listeners[a].smtp.capabilities: CapabilityIgnored: ";
    assert!(lines[0].contains(warning), "{lines:?}");
}

#[test]
fn warns_of_xclient_if_a_proxy_header_is_enough() {
    let warned = |settings: &str| {
        let listener = "{name: a, port: 25, smtp: {authMethods: [NONE]}, backendAddress: 'b:25'}";
        let (lines, wrong) = check(&format!("{HEAD}spec: {{{settings}, listeners: [{listener}]}}\n"));
        assert!(!wrong, "{lines:?}");
        lines.iter().filter(|line| line.contains("trusts XCLIENT")).cloned().collect::<Vec<_>>()
    };
    let lines = warned("auth: {passthrough: {}}, upstream: {xclient: true}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("a.yaml:4:53: warning: MailServer default/s: spec.upstream.xclient: "),
        "{lines:?}"
    );
    for settings in [
        "auth: {passthrough: {}}",
        "auth: {passthrough: {}}, upstream: {xclient: false}",
        "auth: {passthrough: {}}, upstream: {xclient: true, proxyProtocol: V2}",
        "auth: {http: {url: 'http://a/'}}, upstream: {xclient: true}",
    ] {
        assert_eq!(warned(settings), [""; 0], "{settings}");
    }
}

#[test]
fn warns_of_a_backend_that_is_a_listener_of_the_same_files() {
    let warned = |address: &str, backend: &str| {
        let head = "auth: {passthrough: {}}, tls: {mode: Disabled}";
        let own = format!("{{name: a, port: 143, address: '{address}', backendAddress: '{backend}'}}");
        let other = "{name: b, port: 110, address: '*', backendAddress: 'b:110'}";
        let (lines, wrong) = check(&format!("{HEAD}spec: {{{head}, listeners: [{own}, {other}]}}\n"));
        assert!(!wrong, "{lines:?}");
        lines
    };
    for (address, backend) in [
        ("*", "127.0.0.1:143"),
        ("*", "[::1]:143"),
        ("*", "127.0.0.9:143"),
        ("*", "localhost:143"),
        ("*", "0.0.0.0:143"),
        ("192.0.2.1", "192.0.2.1:143"),
        ("127.0.0.1", "localhost:143"),
        ("127.0.0.1", "[::ffff:127.0.0.1]:143"),
    ] {
        let lines = warned(address, backend);
        assert_eq!(lines.len(), 1, "{address} {backend}: {lines:?}");
        let said = "warning: MailServer default/s: spec.listeners[a].backendAddress: this is the address of listener \
                    default/s/a: ";
        assert!(lines[0].contains(said), "{lines:?}");
    }
    assert!(warned("*", "127.0.0.1:110")[0].contains("listener default/s/b: "));
    for (address, backend) in
        [("*", "127.0.0.1:144"), ("127.0.0.1", "127.0.0.2:143"), ("*", "192.0.2.1:143"), ("*", "b:143")]
    {
        assert_eq!(warned(address, backend), [""; 0], "{address} {backend}");
    }
    let route = "apiVersion: mailgress.dev/v1alpha1\nkind: MailRoute\nmetadata: {name: r}\nspec: {serverRef: {name: s}, \
                 match: {domains: [example.org]}, backend: {services: [{protocol: IMAP, address: 'localhost:143'}]}}\n";
    let server = "spec: {auth: {passthrough: {}}, listeners: [{name: a, port: 143, tls: {mode: Disabled}, \
                  backendAddress: 'b:143'}]}\n";
    let (lines, wrong) = check(&format!("{HEAD}{server}---\n{route}"));
    assert!(!wrong && lines.len() == 1, "{lines:?}");
    let said = "warning: MailRoute default/r: spec.backend.services[IMAP].address: this is the address of listener \
                default/s/a: ";
    assert!(lines[0].contains(said), "{lines:?}");
}

#[test]
fn an_object_that_is_broken_as_a_whole_has_a_line() {
    let server = format!("{HEAD}spec: {{listeners: []}}\n");
    let broken = "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\ndata: {a: 1}\n";
    let (lines, _) = check(&format!("{server}---\n{broken}"));
    assert!(
        lines.iter().any(|line| line.starts_with("a.yaml:8:18: ") && line.contains("Secret default/t")),
        "{lines:?}"
    );
    let (lines, _) = check(&format!("{server}---\n{server}"));
    assert!(
        lines.iter().any(|line| line.contains("is also in") && line.starts_with("a.yaml:3:18: ")),
        "{lines:?}"
    );
    let (lines, _) = check(&format!("{server}---\n# a comment\nkind: MailServer\n"));
    assert!(lines[0].starts_with("a.yaml:7:1: a MailServer has no apiVersion"), "{lines:?}");
}

#[test]
fn broken_yaml_is_an_error() {
    let (lines, wrong) = check("a: [1\n");
    assert!(wrong && lines[0].starts_with("a.yaml:2:1: "), "{lines:?}");
}

#[test]
fn a_file_that_grows_without_bound_is_named_with_line_and_bound() {
    let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(100_000));
    let (lines, wrong) = check(&wide);
    assert!(wrong && lines[0].starts_with("a.yaml:2:"), "{lines:?}");
    assert!(lines[0].contains("anchors and aliases expand to more than 20000 values"), "{lines:?}");
    let (lines, _) = check(&"{a: ".repeat(50_000));
    assert!(lines[0].starts_with("a.yaml:1:") && lines[0].contains("more than 64 deep"), "{lines:?}");
}

#[test]
fn many_findings_in_a_large_file_are_bounded() {
    let large = format!("{HEAD}spec:\n{}", (0..50_000).map(|n| format!("  x{n}: Off\n")).collect::<String>());
    let (lines, wrong) = check(&large);
    assert!(wrong && lines.len() <= 200, "{}", lines.len());
}

#[test]
fn reports_the_same_as_the_api_server() {
    let spec = "spec: {auth: {passthrough: {}}, listeners: [{name: a, port: 143, backendAddress: 'b:1', \
                smtp: {}, proxyProtocol: {trustedPeers: [10.0.0.0/33]}}]}\n";
    let (lines, wrong) = check(&format!("{HEAD}{spec}"));
    assert!(wrong && lines.iter().any(|line| line.contains("smtp is for SMTP")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("write networks such as 10.0.0.0/8")), "{lines:?}");
    let (lines, _) = check(&format!("{HEAD}spec: {{listeners: [{{name: a, port: 143}}]}}\n"));
    assert!(
        lines[0].contains("no authentication is configured for a listener; write auth.http"),
        "{lines:?}"
    );
}

#[test]
fn a_bare_boolean_of_yaml_1_1_is_a_warning() {
    let found = |text: &str| {
        old_booleans(Path::new("a.yaml"), &Source::new(text.to_owned()))
            .iter()
            .map(Finding::short)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("a: 1\ntls: { mode: Off }\n"),
        [
            "a.yaml:2:14: warning: kubectl reads a bare Off as a boolean; to write a string, put it in quotes: \"Off\""
        ]
    );
    assert_eq!(found("mode: 'Off'\nmode: \"Off\"\nname: Office # mode: Off\n"), Vec::<String>::new());
}

#[test]
fn a_marker_is_below_the_affected_text() {
    let (shown, _) =
        check_as(Format::Text, &format!("{HEAD}spec:\n  listeners:\n  - name: no\n    prt: 993\n"));
    assert_eq!(
        shown[0],
        "\
error[UnknownField]: there is no such field
 --> a.yaml:7:5
  |
7 |     prt: 993
  |     ^^^ spec.listeners[no].prt of MailServer default/s
  |
  = help: did you mean port?"
    );
    assert_eq!(
        shown.last().unwrap(),
        "\
warning: kubectl reads a bare no as a boolean
 --> a.yaml:6:11
  |
6 |   - name: no
  |           ^^
  |
  = help: to write a string, put it in quotes: \"no\""
    );
}

#[test]
fn the_line_of_a_broken_file_with_secrets_is_not_shown() {
    let (shown, _) = check_as(Format::Text, "kind: Secret\nstringData: {password: hunter2\n");
    assert!(shown[0].contains("--> a.yaml:3:1") && !shown[0].contains("hunter2"), "{shown:?}");
}

#[test]
fn the_login_of_an_auth_url_is_not_shown() {
    for url in [
        "http://u:hunter2@a.test/",
        "http://u:hun ter2@a.test/",
        "u:hunter2@a.test",
        "http://u:hunter2/",
        "u:hunter2",
        "http://u:hun ter2",
    ] {
        let spec = format!("auth:\n    http:\n      url: '{url}'\n  listeners: [{{name: a, port: 143}}]\n");
        let manifest = format!("{HEAD}spec:\n  {spec}");
        for how in [Format::Text, Format::Short] {
            let (shown, is_bad) = check_as(how, &manifest);
            let about = shown.iter().find(|line| line.contains("spec.auth.http.url")).unwrap();
            let hidden = ["hun", "ter2"].iter().all(|part| !about.contains(part));
            assert!(is_bad && hidden, "{about}");
        }
    }
}

#[test]
fn marks_an_inherited_setting_in_the_server() {
    let server = format!(
        "{HEAD}spec: {{listeners: [], auth: {{passthrough: {{}}}}, tls: {{certificateRefs: [{{name: t}}]}}}}\n"
    );
    let listener = "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailListener\nmetadata: {name: l}\nspec: {serverRef: \
                    {name: s}, port: 993, backendAddress: 'b:1'}\n";
    let (lines, _) = check(&format!("{server}{listener}"));
    assert!(lines[0].starts_with("a.yaml:4:"), "{lines:?}");
    assert!(
        lines[0].contains(": MailListener default/l: MailServer default/s spec.tls.certificateRefs"),
        "{lines:?}"
    );
}

fn checked(files: &[(&str, &str)], strict: bool) -> (Vec<String>, bool) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let files = Files { paths: vec![folder.path().to_owned()], class: "mailgress".to_owned() };
    let check = Check { files, strict, output: None, colour: Colour { when: When::Auto } };
    let mut input = check.files.read(Completeness::Part).unwrap();
    let texts = texts(&mut input);
    let findings = check.findings(&input, &texts);
    let prefix = format!("{}/", folder.path().display());
    let lines = findings.iter().map(|finding| finding.short().replace(&prefix, "")).collect();
    (lines, findings.iter().any(|finding| finding.is_error))
}

#[test]
fn a_file_name_cannot_control_the_terminal() {
    let (lines, _) = checked(&[("a\u{1b}[2J\nb.yaml", "kind: [")], false);
    assert!(lines[0].starts_with("a\\u{1b}[2J\\nb.yaml:"), "{lines:?}");
}

const WITH_SECRET: &str = "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {name: s, namespace: mail}\n\
    spec: {auth: {passthrough: {}}, tls: {certificateRefs: [{name: mail-tls}]}, listeners: [{name: a, port: 993, \
    backendAddress: 'b:1'}]}\n";

#[test]
fn a_secret_that_another_object_promises_counts_as_present() {
    let certificate = "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: c, namespace: mail}\n\
                       spec: {secretName: mail-tls}\n";
    assert_eq!(checked(&[("a.yaml", WITH_SECRET), ("b.yaml", certificate)], true), (vec![], false));
    let generator = "namespace: mail\nsecretGenerator: [{name: mail-tls, files: [tls.crt, tls.key]}]\n";
    assert_eq!(checked(&[("a.yaml", WITH_SECRET), ("kustomization.yaml", generator)], true), (vec![], false));
}

#[test]
fn an_object_that_is_in_no_file_is_a_warning_and_with_strict_an_error() {
    let (lines, wrong) = checked(&[("a.yaml", WITH_SECRET)], false);
    assert!(!wrong, "{lines:?}");
    assert_eq!(
        lines,
        [
            "a.yaml:4:64: warning: MailServer mail/s: spec.tls.certificateRefs[0]: RefNotFound: Secret mail/mail-tls is in none \
          of the files; check that it exists in the cluster, or correct the name"
        ]
    );
    let (lines, wrong) = checked(&[("a.yaml", WITH_SECRET)], true);
    assert!(wrong && lines.len() == 1 && !lines[0].contains("warning"), "{lines:?}");
    for spec in [
        "backendRef: {name: dovecot, port: 143}, auth: {passthrough: {}}",
        "backendAddress: 'b:1', auth: {http: {url: 'http://a/', headers: [{name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}",
        "backendAddress: 'b:1', upstream: {tls: {mode: StartTLS, caCertificateRefs: [{name: ca}]}}, auth: {passthrough: {}}",
    ] {
        let (lines, wrong) = check(&format!("{HEAD}spec: {{listeners: [{{name: a, port: 143, {spec}}}]}}\n"));
        let absent = lines.iter().filter(|line| line.contains("is in none of the files")).count();
        assert!(!wrong && absent == 1, "{lines:?}");
    }
    let listener = "apiVersion: mailgress.dev/v1alpha1\nkind: MailListener\nmetadata: {name: l}\nspec: {serverRef: \
                    {name: s}, port: 993, backendAddress: 'b:1'}\n";
    let (lines, wrong) = check(listener);
    assert!(!wrong && lines[0].contains("MailServer default/s is in none of the files"), "{lines:?}");
}

#[test]
fn a_problem_of_an_existing_object_is_an_error() {
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: mail-tls, namespace: mail}\nstringData: {a: b}\n";
    let (lines, wrong) = checked(&[("a.yaml", WITH_SECRET), ("b.yaml", secret)], false);
    assert!(wrong && lines[0].contains("it has no tls.crt"), "{lines:?}");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: d}\nspec: {ports: [{port: 143}]}\n";
    let listener = "{name: a, port: 993, auth: {passthrough: {}}, tls: {certificateRefs: [{name: t}]}, backendRef: {name: d, \
                    port: imap}}";
    let server = format!("{HEAD}spec: {{listeners: [{listener}]}}\n");
    let (lines, wrong) = checked(&[("a.yaml", &server), ("b.yaml", service)], false);
    assert!(wrong && lines.iter().any(|line| line.contains("has no TCP port imap, only 143")), "{lines:?}");
}

#[test]
fn conflicts_are_found_although_the_certificates_are_not_in_git() {
    let other = WITH_SECRET.replace("name: s,", "name: t,");
    let (lines, wrong) = checked(&[("a.yaml", WITH_SECRET), ("b.yaml", &other)], false);
    assert!(
        wrong
            && lines.iter().any(|line| line.starts_with("b.yaml:") && line.contains(": HostnameConflict: ")),
        "{lines:?}"
    );
}

#[test]
fn endpoints_are_created_by_the_cluster() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: d}\nspec: {selector: {a: b}, ports: [{port: 143}]}\n";
    let server = format!(
        "{HEAD}spec: {{auth: {{http: {{url: 'http://a/'}}}}, tls: {{certificateRefs: [{{name: t}}]}}, listeners: [{{name: a, port: \
         993, backendRef: {{name: d, port: 143}}}}]}}\n"
    );
    let (lines, _) = checked(&[("a.yaml", &server), ("b.yaml", service)], false);
    assert!(lines.len() == 1 && lines[0].contains("Secret default/t"), "{lines:?}");
}

#[test]
fn a_byte_order_mark_moves_no_caret() {
    let text = format!("\u{feff}{HEAD}spec: {{listeners: [{{name: a, prt: 993}}]}}\n");
    let (lines, _) = check(&text);
    assert!(lines[0].starts_with("a.yaml:4:30: "), "{lines:?}");
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), wide).unwrap();
    let files = Files { paths: vec![folder.path().to_owned()], class: "mailgress".to_owned() };
    let (loaded, renderer) = files.render().unwrap();
    assert_eq!((loaded.problems, renderer.outcomes().count()), (vec![], 1));
}

#[test]
fn a_folder_without_any_object_of_ours_is_a_warning() {
    let (lines, wrong) = check("apiVersion: v1\nkind: Service\nmetadata: {name: d}\nspec: {}\n");
    assert!(
        !wrong
            && lines[0]
                .contains("there is no MailServer of class mailgress, and no MailListener or MailRoute; "),
        "{lines:?}"
    );
}

#[test]
fn a_wrong_api_version_is_an_error_with_the_correct_one() {
    let spec = "kind: MailServer\nmetadata: {name: a}\nspec: {auth: {passthrough: {}}, listeners: []}\n";
    for api in ["mailgress.dev/v1", "mailgress.dev/v1beta1", "mailgress.io/v1alpha1", "v1alpha1", "v1"] {
        let (lines, wrong) = check(&format!("apiVersion: {api}\n{spec}"));
        let expected = format!("MailServer default/a has apiVersion {api}; write mailgress.dev/v1alpha1");
        assert!(wrong && lines[0].contains(&expected), "{lines:?}");
    }
    let (lines, wrong) = check(spec);
    let expected = "a MailServer has no apiVersion; add apiVersion: mailgress.dev/v1alpha1";
    assert!(wrong && lines[0].contains(expected), "{lines:?}");
    let foreign =
        "apiVersion: other.example/v1\nkind: MailServer\nmetadata: {name: a}\nspec: {replicas: 1}\n";
    assert!(!check(foreign).1);
}

#[test]
fn names_that_the_api_server_refuses_are_errors_with_their_line() {
    let text = |name: &str, namespace: &str| {
        format!(
            "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  \
             auth: {{passthrough: {{}}}}\n  listeners: [{{name: l, port: 143, backendAddress: \"b.test:143\"}}]\n"
        )
    };
    for (name, namespace, line, field) in
        [("Edge_1", "mail", ":4:", "metadata.name"), ("edge", "Mail.x", ":5:", "metadata.namespace")]
    {
        let (lines, wrong) = check(&text(name, namespace));
        assert!(wrong && lines[0].contains(line) && lines[0].contains(field), "{lines:?}");
    }
    assert!(!check(&text("edge.1", "mail")).1);
}
