//! `mailgress check`: what is wrong with manifests, where, and what to do; exit status 1 if anything is.

mod place;
mod show;
mod tree;
mod xclient;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::controller::folder::{Loaded, Problem, scan};
use crate::controller::index::{Key, Kind};
use crate::controller::reason::Reason;
use crate::controller::render::{ObjectOutcome, Rendered};
use crate::controller::violation::Violation;

use super::colour::{Colour, When};
use super::files::Files;
use super::table::terminal_width;
use super::yaml::is_old_boolean;
use place::{Named, Place, Source};
use show::Finding;

/// `mailgress check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// The manifests.
    #[command(flatten)]
    pub files: Files,

    /// How it is printed [default: text on a terminal, short elsewhere].
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    /// Whether in colour.
    #[command(flatten)]
    colour: Colour,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// With the lines that are meant.
    Text,
    /// A line for each: file:line:column: object: field: reason: problem; remedy.
    Short,
    /// For programs.
    Json,
}

impl Check {
    /// Prints what is wrong to standard output. Alarms, which keep nothing from serving, are printed as
    /// warnings and do not count.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (loaded, rendered) = self.files.render()?;
        let texts = texts(&loaded);
        let findings = findings(&loaded, &rendered, &texts);
        let wrong = findings.iter().any(|finding| finding.is_error);
        let for_people = std::io::stdout().is_terminal() || self.colour.when == When::Always;
        let default = if for_people { Format::Text } else { Format::Short };
        let mut out = self.colour.stdout();
        match self.output.unwrap_or(default) {
            Format::Json => {
                let all: Vec<_> = findings.iter().map(Finding::document).collect();
                writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
                return Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS });
            }
            Format::Short => findings.iter().try_for_each(|finding| writeln!(out, "{}", finding.short()))?,
            Format::Text => {
                let width = terminal_width();
                findings.iter().try_for_each(|finding| writeln!(out, "{}\n", finding.long(&texts, width)))?;
            }
        }
        if wrong {
            return Ok(ExitCode::FAILURE);
        }
        let listeners: usize = rendered.objects.iter().map(|object| object.listeners.len()).sum();
        writeln!(out, "{} objects with {listeners} listeners are valid", rendered.objects.len())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Of all files that anything is to be said of.
fn texts(loaded: &Loaded) -> BTreeMap<PathBuf, Source> {
    let broken = loaded.problems.iter().map(|problem| &problem.path);
    let paths: BTreeSet<&PathBuf> = loaded.origins.values().chain(broken).collect();
    // What cannot be read is a finding already.
    let text = |path: &&PathBuf| scan::read(path).ok();
    paths.into_iter().filter_map(|path| Some((path.clone(), Source::new(text(&path)?)))).collect()
}

fn findings(loaded: &Loaded, rendered: &Rendered, texts: &BTreeMap<PathBuf, Source>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = loaded.problems.iter().map(|problem| of_file(problem, texts)).collect();
    for object in &rendered.objects {
        let mut seen: Vec<&Violation> = Vec::new();
        let of_listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
        for violation in object.violations.iter().chain(of_listeners) {
            // What is wrong with the object's own settings is found once for each listener.
            if seen.contains(&violation) {
                continue;
            }
            seen.push(violation);
            findings.push(of_object(loaded, texts, object, violation));
        }
    }
    findings.extend(xclient::fields(&loaded.objects).iter().map(|asks| of_xclient(loaded, texts, asks)));
    let manifests: BTreeSet<&PathBuf> = loaded.origins.values().collect();
    for path in manifests {
        findings.extend(texts.get(path).into_iter().flat_map(|source| old_booleans(path, source)));
    }
    findings
}

fn of_file(problem: &Problem, texts: &BTreeMap<PathBuf, Source>) -> Finding {
    let Problem { path, position, message } = problem;
    let place = texts.get(path).zip(*position).map(|(source, position)| Place::at(&source.text, position));
    Finding {
        is_error: true,
        path: path.clone(),
        place,
        object: String::new(),
        field: String::new(),
        reason: None,
        problem: message.clone(),
        remedy: String::new(),
    }
}

fn of_object(
    loaded: &Loaded,
    texts: &BTreeMap<PathBuf, Source>,
    object: &ObjectOutcome,
    violation: &Violation,
) -> Finding {
    let Violation { concern, field, reason, problem, remedy } = violation;
    // A setting that a MailListener inherits stands in the MailServer.
    let (kind, key, path) = inherited(field).unwrap_or_else(|| (object.kind, object.key.clone(), field));
    let file = loaded.origins.get(&(kind, key.clone())).cloned().unwrap_or_default();
    let named = Named { kind: kind.name(), namespace: &key.namespace, name: &key.name };
    let is_key = *reason == Reason::UnknownField;
    let place = texts.get(&file).and_then(|source| source.find(&named, path, is_key));
    Finding {
        is_error: concern.excludes(),
        path: file,
        place,
        object: format!("{} {}", object.kind.name(), object.key),
        field: field.clone(),
        reason: Some(*reason),
        problem: problem.clone(),
        remedy: remedy.clone(),
    }
}

fn of_xclient(loaded: &Loaded, texts: &BTreeMap<PathBuf, Source>, asks: &xclient::AsksForXclient) -> Finding {
    let xclient::AsksForXclient { kind, key, field } = asks;
    let file = loaded.origins.get(&(*kind, key.clone())).cloned().unwrap_or_default();
    let named = Named { kind: kind.name(), namespace: &key.namespace, name: &key.name };
    let place = texts.get(&file).and_then(|source| source.find(&named, field, false));
    Finding {
        is_error: false,
        path: file,
        place,
        object: format!("{} {key}", kind.name()),
        field: field.clone(),
        reason: None,
        problem: xclient::PROBLEM.to_owned(),
        remedy: xclient::REMEDY.to_owned(),
    }
}

/// `MailServer namespace/name spec.tls` in parts.
fn inherited(field: &str) -> Option<(Kind, Key, &str)> {
    let (key, path) = field.strip_prefix(Kind::Server.name())?.strip_prefix(' ')?.split_once(' ')?;
    let (namespace, name) = key.split_once('/')?;
    Some((Kind::Server, Key::new(namespace, name), path))
}

/// kubectl reads YAML 1.1, where a bare `on` or `off` is a boolean, and the API server refuses a boolean where it
/// wants a string. A file that works here must work there, so each is a warning.
fn old_booleans(path: &Path, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut start = 0_usize;
    let text = source.text.as_str();
    for line in text.split_inclusive('\n') {
        let content = line.split(" #").next().unwrap_or_default();
        let mut at = start;
        for (index, value) in content.split(": ").enumerate() {
            let word = value.trim_start().split([',', '}', ' ', '\n', '\r']).next().unwrap_or_default();
            let is_told = findings.len() < MAX_BARE && index > 0;
            if is_told && is_old_boolean(word) {
                let begins = at.saturating_add(value.len().saturating_sub(value.trim_start().len()));
                let place =
                    Place::new(text, begins..begins.saturating_add(word.len()), source.is_ours(begins));
                findings.push(of_old_boolean(path, place, word));
            }
            at = at.saturating_add(value.len()).saturating_add(": ".len());
        }
        start = start.saturating_add(line.len());
    }
    findings
}

fn of_old_boolean(path: &Path, place: Place, word: &str) -> Finding {
    Finding {
        is_error: false,
        path: path.to_owned(),
        place: Some(place),
        object: String::new(),
        field: String::new(),
        reason: None,
        problem: format!("kubectl reads a bare {word} as a boolean"),
        remedy: format!("put it in quotes if a string is meant: \"{word}\""),
    }
}

/// Words that are told of one file.
const MAX_BARE: usize = 100;

const AFTER_HELP: &str = "\
Exit status: 0 all of it is valid (there may be warnings), 1 something is not, or there is no such file, 2 the command line \
makes no sense.";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Vec<String>, bool) {
        check_as(Format::Short, text)
    }

    fn check_as(how: Format, text: &str) -> (Vec<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        let files = Files { paths: vec![folder.path().to_owned()], class: "mailgress".to_owned() };
        let (loaded, rendered) = files.render().unwrap();
        let texts = texts(&loaded);
        let findings = findings(&loaded, &rendered, &texts);
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
    fn what_all_listeners_inherit_is_told_once() {
        let spec = "spec: {auth: {passthrough: {}}, tls: {certificateRefs: [{name: t}]}, listeners: [{name: a, port: \
                    993, backendAddress: 'b:1'}, {name: b, port: 995, backendAddress: 'b:1'}]}\n";
        let (lines, wrong) = check(&format!("{HEAD}{spec}"));
        assert_eq!((lines.len(), wrong), (1, true), "{lines:?}");
        assert!(lines[0].contains("RefNotFound: Secret default/t does not exist; create it"), "{lines:?}");
    }

    #[test]
    fn an_alarm_is_a_warning() {
        let spec =
            "spec: {auth: {passthrough: {}}, listeners: [{name: a, port: 143, backendAddress: 'b:1'}]}\n";
        let (lines, wrong) = check(&format!("{HEAD}{spec}"));
        assert!(!wrong && lines[0].contains("a.yaml:4:1: warning: MailServer default/s: "), "{lines:?}");
    }

    #[test]
    fn xclient_that_is_asked_for_is_a_warning_where_a_proxy_header_would_do() {
        let warned = |settings: &str| {
            let listener = "{name: a, port: 25, smtp: {authMethods: [NONE]}, backendAddress: 'b:25'}";
            let (lines, wrong) = check(&format!("{HEAD}spec: {{{settings}, listeners: [{listener}]}}\n"));
            assert!(!wrong, "{lines:?}");
            lines.iter().filter(|line| line.contains("believes XCLIENT")).cloned().collect::<Vec<_>>()
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
    fn broken_yaml_is_wrong() {
        let (lines, wrong) = check("a: [1\n");
        assert!(wrong && lines[0].starts_with("a.yaml:2:1: "), "{lines:?}");
    }

    #[test]
    fn a_file_that_grows_without_bound_is_named_with_line_and_bound() {
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(100_000));
        let (lines, wrong) = check(&wide);
        assert!(wrong && lines[0].starts_with("a.yaml:2:"), "{lines:?}");
        assert!(lines[0].contains("anchors and aliases stand for more than 20000 values"), "{lines:?}");
        let (lines, _) = check(&"{a: ".repeat(50_000));
        assert!(lines[0].starts_with("a.yaml:1:") && lines[0].contains("more than 64 deep"), "{lines:?}");
    }

    #[test]
    fn many_findings_in_a_large_file_are_bounded() {
        let large =
            format!("{HEAD}spec:\n{}", (0..50_000).map(|n| format!("  x{n}: Off\n")).collect::<String>());
        let (lines, wrong) = check(&large);
        assert!(wrong && lines.len() <= 200, "{}", lines.len());
    }

    #[test]
    fn says_what_the_api_server_says() {
        let spec = "spec: {auth: {passthrough: {}}, listeners: [{name: a, port: 143, backendAddress: 'b:1', \
                    smtp: {}, proxyProtocol: {trustedPeers: [10.0.0.0/33]}}]}\n";
        let (lines, wrong) = check(&format!("{HEAD}{spec}"));
        assert!(wrong && lines.iter().any(|line| line.contains("smtp is for SMTP")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("write networks such as 10.0.0.0/8")), "{lines:?}");
        let (lines, _) = check(&format!("{HEAD}spec: {{listeners: [{{name: a, port: 143}}]}}\n"));
        assert!(
            lines[0].contains("nobody decides about the logins of a listener; write auth.http"),
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
                "a.yaml:2:14: warning: kubectl reads a bare Off as a boolean; put it in quotes if a string is meant: \"Off\""
            ]
        );
        assert_eq!(found("mode: 'Off'\nmode: \"Off\"\nname: Office # mode: Off\n"), Vec::<String>::new());
    }

    #[test]
    fn a_caret_is_below_what_is_meant() {
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
  = help: put it in quotes if a string is meant: \"no\""
        );
    }

    #[test]
    fn the_line_of_a_broken_file_with_secrets_is_not_shown() {
        let (shown, _) = check_as(Format::Text, "kind: Secret\nstringData: {password: hunter2\n");
        assert!(shown[0].contains("--> a.yaml:3:1") && !shown[0].contains("hunter2"), "{shown:?}");
    }

    #[test]
    fn the_login_of_an_auth_url_is_not_shown() {
        for url in
            ["http://u:hunter2@a.test/", "http://u:hun ter2@a.test/", "u:hunter2@a.test", "http://u:hunter2/"]
        {
            let spec =
                format!("auth:\n    http:\n      url: '{url}'\n  listeners: [{{name: a, port: 143}}]\n");
            let manifest = format!("{HEAD}spec:\n  {spec}");
            for how in [Format::Text, Format::Short] {
                let (shown, is_bad) = check_as(how, &manifest);
                let about = shown.iter().find(|line| line.contains("spec.auth.http.url")).unwrap();
                let hidden = ["hun", "ter2"].iter().all(|part| !about.contains(part));
                // Without an @ nobody knows that it is a login; then the line of the file is shown.
                assert!(is_bad && (hidden || !url.contains('@') && how == Format::Text), "{about}");
            }
        }
    }

    #[test]
    fn what_a_listener_inherits_is_pointed_at_in_its_server() {
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
}
