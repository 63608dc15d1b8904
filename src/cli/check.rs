//! `mailgress check`: one line for each violation, and exit status 1.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::controller::folder::Loaded;
use crate::controller::render::{ObjectOutcome, Rendered};
use crate::controller::violation::Violation;

use super::files::Files;
use super::yaml::is_old_boolean;

/// `mailgress check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// The manifests.
    #[command(flatten)]
    pub files: Files,
}

impl Check {
    /// Prints what is wrong to standard output. Alarms, which keep nothing from serving, are printed as
    /// warnings and do not count.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (loaded, rendered) = self.files.render()?;
        let mut report = report(&loaded, &rendered);
        for path in loaded.origins.values().collect::<BTreeSet<_>>() {
            report.lines.extend(bare_off(path, &std::fs::read_to_string(path)?));
        }
        let mut out = std::io::stdout().lock();
        for line in &report.lines {
            writeln!(out, "{line}")?;
        }
        if report.wrong {
            return Ok(ExitCode::FAILURE);
        }
        let listeners: usize = rendered.objects.iter().map(|object| object.listeners.len()).sum();
        writeln!(out, "{} objects with {listeners} listeners are valid", rendered.objects.len())?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Report {
    lines: Vec<String>,
    wrong: bool,
}

fn report(loaded: &Loaded, rendered: &Rendered) -> Report {
    let mut lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let mut wrong = !lines.is_empty();
    for object in &rendered.objects {
        let mut seen: Vec<&Violation> = Vec::new();
        let of_listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
        for violation in object.violations.iter().chain(of_listeners) {
            // What is wrong with the object's own settings is found once for each listener.
            if seen.contains(&violation) {
                continue;
            }
            seen.push(violation);
            wrong |= violation.concern.excludes();
            lines.push(line(loaded, object, violation));
        }
    }
    Report { lines, wrong }
}

/// `file: object: field: reason: problem; remedy`.
fn line(loaded: &Loaded, object: &ObjectOutcome, violation: &Violation) -> String {
    let file = loaded.origins.get(&(object.kind, object.key.clone()));
    let file = file.map(|path| path.display().to_string()).unwrap_or_default();
    let warning = if violation.concern.excludes() { "" } else { "warning: " };
    let Violation { field, reason, problem, remedy, .. } = violation;
    let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    format!("{file}: {warning}{} {}: {field}: {reason}: {problem}{remedy}", object.kind.name(), object.key)
}

/// kubectl reads YAML 1.1, where a bare Off is false, and the API server refuses that. A file that works here
/// is to work there, so each is a warning.
fn bare_off(path: &Path, text: &str) -> Vec<String> {
    let is_bare = |line: &str| {
        let content = line.split(" #").next().unwrap_or_default();
        let mut values = content.split(": ").skip(1);
        values.any(|value| {
            let word = value.trim_start().split([',', '}', ' ']).next().unwrap_or_default();
            word.eq_ignore_ascii_case("off") && is_old_boolean(word)
        })
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_bare(line));
    let warning = |(index, _)| {
        let place = format!("{}:{}", path.display(), index + 1);
        format!("{place}: warning: kubectl reads a bare Off as false; put it in quotes: \"Off\"")
    };
    lines.map(warning).collect()
}

const AFTER_HELP: &str = "\
Exit status: 0 all of it is valid (there may be warnings), 1 something is not, or there is no such file, 2 the command line \
makes no sense.";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Vec<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        let files = Files { paths: vec![folder.path().to_owned()], class: "mailgress".to_owned() };
        let (loaded, rendered) = files.render().unwrap();
        let Report { lines, wrong } = report(&loaded, &rendered);
        let prefix = format!("{}/", folder.path().display());
        (lines.into_iter().map(|line| line.replace(&prefix, "")).collect(), wrong)
    }

    const HEAD: &str = "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {name: s}\n";

    #[test]
    fn a_line_names_file_object_field_reason_and_remedy() {
        let (lines, wrong) = check(&format!("{HEAD}spec: {{listeners: [{{name: a, prt: 993}}]}}\n"));
        assert!(wrong);
        assert_eq!(
            lines[0],
            "a.yaml: MailServer default/s: spec.listeners[a].prt: UnknownField: there is no such field; did you \
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
        assert!(!wrong && lines[0].contains("a.yaml: warning: MailServer default/s: "), "{lines:?}");
    }

    #[test]
    fn broken_yaml_is_wrong() {
        let (lines, wrong) = check("a: [1\n");
        assert!(wrong && lines[0].starts_with("a.yaml:2:1: "), "{lines:?}");
    }

    #[test]
    fn a_bare_off_is_a_warning() {
        let found = |text: &str| bare_off(Path::new("a.yaml"), text);
        assert_eq!(
            found("a: 1\ntls: { mode: Off }\n"),
            ["a.yaml:2: warning: kubectl reads a bare Off as false; put it in quotes: \"Off\""]
        );
        assert_eq!(found("mode: 'Off'\nmode: \"Off\"\nname: Office # mode: Off\n"), Vec::<String>::new());
    }
}
