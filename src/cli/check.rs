//! `mailgress check`: reports the problems of manifests, with position and remedy. The exit status is 1 if there is an
//! error.

mod own;
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
use crate::controller::render::{Completeness, ObjectOutcome};
use crate::controller::violation::{Absent, Violation};
use crate::words::counted;

use super::colour::{Colour, When};
use super::files::{Files, Input};
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

    /// Treat warnings as errors. Without it, a Secret or other object that is in none of the files causes a warning,
    /// because the cluster may have it.
    #[arg(long)]
    strict: bool,

    /// Output format [default: text on a terminal, otherwise short].
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    /// The use of colours.
    #[command(flatten)]
    colour: Colour,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text with the affected lines of the file.
    Text,
    /// One line for each problem: file:line:column: object: field: reason: problem; remedy.
    Short,
    /// JSON.
    Json,
}

impl Check {
    /// Prints all findings to standard output. Warnings, and references to objects that are in none of the files, count
    /// as errors only with `--strict`.
    ///
    /// # Errors
    ///
    /// Fails if a path does not exist.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut input = self.files.read(Completeness::Part)?;
        let texts = texts(&mut input);
        let findings = self.findings(&input, &texts);
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
        let objects: Vec<_> = input.renderer.outcomes().collect();
        if objects.is_empty() {
            // There is already a warning about this.
            return Ok(ExitCode::SUCCESS);
        }
        let listeners: usize = objects.iter().map(|(_, outcome)| outcome.listeners.len()).sum();
        let verb = if objects.len() == 1 { "is" } else { "are" };
        let (objects, listeners) = (counted(objects.len(), "object"), counted(listeners, "listener"));
        writeln!(out, "{objects} with {listeners} {verb} valid")?;
        Ok(ExitCode::SUCCESS)
    }

    fn findings(&self, input: &Input, texts: &BTreeMap<PathBuf, Source>) -> Vec<Finding> {
        let mut findings = findings(input, texts);
        if findings.is_empty() && input.renderer.outcomes().next().is_none() {
            findings.extend(self.files.paths.first().map(|path| of_nothing(path, &self.files.class)));
        }
        findings.iter_mut().for_each(|finding| finding.is_error |= self.strict);
        findings
    }
}

/// Reads the texts of all files that findings may refer to.
fn texts(input: &mut Input) -> BTreeMap<PathBuf, Source> {
    let Input { loaded, streams, .. } = input;
    let broken = loaded.problems.iter().map(|problem| &problem.path);
    let paths: BTreeSet<&PathBuf> = loaded.origins.values().chain(broken).collect();
    // A file that is not readable already has a finding.
    let mut text = |path: &PathBuf| streams.remove(path).or_else(|| scan::read(path).ok());
    paths.into_iter().filter_map(|path| Some((path.clone(), Source::new(text(path)?)))).collect()
}

fn findings(input: &Input, texts: &BTreeMap<PathBuf, Source>) -> Vec<Finding> {
    let Input { loaded, renderer, .. } = input;
    let mut findings: Vec<Finding> = loaded.problems.iter().map(|problem| of_file(problem, texts)).collect();
    for (_, object) in renderer.outcomes() {
        let mut seen: Vec<&Violation> = Vec::new();
        let of_listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
        for violation in object.violations.iter().chain(of_listeners) {
            // A violation of the object's own settings occurs once for each listener.
            if seen.contains(&violation) || is_created_by_cluster(loaded, violation) {
                continue;
            }
            seen.push(violation);
            findings.push(of_object(loaded, texts, object, violation));
        }
    }
    findings.extend(xclient::fields(&loaded.objects).iter().map(
        |xclient::XclientField { kind, key, field }| {
            let about = (xclient::PROBLEM.to_owned(), xclient::REMEDY);
            warning(loaded, texts, (*kind, key, field), about)
        },
    ));
    findings.extend(own::backends(&loaded.objects, renderer).iter().map(|backend| {
        let own::OwnBackend { kind, key, field, target } = backend;
        let problem = format!("this is the address of listener {target}: Mailgress would connect to itself, so it refuses these logins");
        warning(loaded, texts, (*kind, key, field), (problem, "name the address of the mail server"))
    }));
    let manifests: BTreeSet<&PathBuf> = loaded.origins.values().collect();
    for path in manifests {
        findings.extend(texts.get(path).into_iter().flat_map(|source| old_booleans(path, source)));
    }
    findings
}

/// Tells whether the cluster creates the missing object: from another object in the files, or as endpoints of a
/// Service.
fn is_created_by_cluster(loaded: &Loaded, violation: &Violation) -> bool {
    if let Some(Absent::Reference(reference)) = violation.absent.as_deref() {
        return loaded.generated.iter().any(|object| object.is(reference));
    }
    violation.reason == Reason::NoReadyEndpoints && loaded.objects.slices.is_empty()
}

/// Returns a warning that there was nothing to check, which is probably a mistake.
fn of_nothing(path: &Path, class: &str) -> Finding {
    Finding {
        is_error: false,
        path: path.to_owned(),
        place: None,
        object: String::new(),
        field: String::new(),
        reason: None,
        problem: format!("there is no MailServer of class {class}, and no MailListener or MailRoute"),
        remedy: "check --filename and --class".to_owned(),
    }
}

fn of_file(problem: &Problem, texts: &BTreeMap<PathBuf, Source>) -> Finding {
    let Problem { path, position, object, message } = problem;
    let named = |(kind, key): &(String, Key), source: &Source| {
        let named = Named { kind, namespace: &key.namespace, name: &key.name };
        source.find(&named, "metadata.name", false)
    };
    let place = texts.get(path).and_then(|source| match position {
        Some(position) => Some(Place::at(&source.text, *position)),
        None => object.as_ref().and_then(|object| named(object, source)),
    });
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
    let Violation { concern, field, reason, problem, remedy, absent } = violation;
    // The position of an inherited setting is in the MailServer.
    let (kind, key, path) = inherited(field).unwrap_or_else(|| (object.kind, object.key.clone(), field));
    let file = loaded.origins.get(&(kind, key.clone())).cloned().unwrap_or_default();
    let named = Named { kind: kind.name(), namespace: &key.namespace, name: &key.name };
    let is_key = *reason == Reason::UnknownField;
    let place = texts.get(&file).and_then(|source| source.find(&named, path, is_key));
    let problem = match absent.as_deref() {
        Some(Absent::Reference(reference)) => format!("{reference} is in none of the files"),
        Some(Absent::Server(server)) => format!("MailServer {server} is in none of the files"),
        Some(Absent::Namespace(name)) => {
            format!("{problem}; the labels of Namespace {name} are unknown, because no file contains it")
        }
        None => problem.clone(),
    };
    let remedy = if absent.is_some() { ELSEWHERE } else { remedy.as_str() };
    Finding {
        is_error: concern.excludes() && absent.is_none(),
        path: file,
        place,
        object: format!("{} {}", object.kind.name(), object.key),
        field: field.clone(),
        reason: Some(*reason),
        problem,
        remedy: remedy.to_owned(),
    }
}

/// Returns a warning that only `check` gives.
fn warning(
    loaded: &Loaded,
    texts: &BTreeMap<PathBuf, Source>,
    (kind, key, field): (Kind, &Key, &str),
    (problem, remedy): (String, &str),
) -> Finding {
    let file = loaded.origins.get(&(kind, key.clone())).cloned().unwrap_or_default();
    let named = Named { kind: kind.name(), namespace: &key.namespace, name: &key.name };
    let place = texts.get(&file).and_then(|source| source.find(&named, field, false));
    Finding {
        is_error: false,
        path: file,
        place,
        object: format!("{} {key}", kind.name()),
        field: field.to_owned(),
        reason: None,
        problem,
        remedy: remedy.to_owned(),
    }
}

/// Parses `MailServer namespace/name spec.tls`.
fn inherited(field: &str) -> Option<(Kind, Key, &str)> {
    let (key, path) = field.strip_prefix(Kind::Server.name())?.strip_prefix(' ')?.split_once(' ')?;
    let (namespace, name) = key.split_once('/')?;
    Some((Kind::Server, Key::new(namespace, name), path))
}

/// Warns of values such as a bare `on` or `off`: kubectl reads YAML 1.1, where they are booleans, and the API server
/// refuses a boolean instead of a string. A file that works with Mailgress must also work with kubectl.
fn old_booleans(path: &Path, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut start = 0_usize;
    let text = source.text.as_str();
    for line in text.split_inclusive('\n') {
        let content = line.split(" #").next().unwrap_or_default();
        let mut at = start;
        for (index, value) in content.split(": ").enumerate() {
            let word = value.trim_start().split([',', '}', ' ', '\n', '\r']).next().unwrap_or_default();
            let is_new = findings.len() < MAX_BARE && index > 0;
            if is_new && is_old_boolean(word) {
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
        remedy: format!("to write a string, put it in quotes: \"{word}\""),
    }
}

/// The maximum number of these warnings for each file.
const MAX_BARE: usize = 100;

/// The remedy for a problem that only the cluster can show.
const ELSEWHERE: &str = "check that it exists in the cluster, or correct the name";

const AFTER_HELP: &str = "\
Exit status: 0 all manifests are valid (warnings are allowed), 1 there is an error or a file is missing, 2 usage error. With --strict, warnings are errors.";

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validity;
