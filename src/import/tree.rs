//! Parses directives and blocks, follows includes, and finds `mail {}`.

use std::path::{Path, PathBuf};

use super::forks;
use super::plan::Context;
use super::problem::{Findings, Note, Place, Problem, system_error};
use super::read::{Item, Reader};

/// A directive with its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// The name and the arguments; at least the name.
    words: Vec<String>,
    /// The place of the first word.
    pub(super) place: Place,
    /// The content of its braces, if it has some.
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// Returns an argument, or an empty text if there is none.
    pub(super) fn argument(&self, index: usize) -> &str {
        self.arguments().get(index).map_or("", String::as_str)
    }

    pub(super) fn note(&self, message: impl Into<String>) -> Note {
        Note::new(&self.place, message)
    }

    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(&self.place, message)
    }
}

/// Maximum nesting of includes. nginx stops when it runs out of descriptors.
const INCLUDE_DEPTH: usize = 16;

/// Maximum nesting of blocks.
const BLOCK_DEPTH: usize = 64;

/// Returns the `mail {}` of a configuration with its includes resolved, as far as it can be read.
pub(super) fn mail(
    file: &Path,
    text: &[u8],
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<Directive> {
    let mut files = Files { context, found };
    let main = files.parse(file, text);
    let main = files.expand(main, 0);
    let mut mail = only_mail(main, files.found);
    if mail.is_none() && files.found.problems.is_empty() {
        let place = Place { file: file.to_string_lossy().into(), line: 1 };
        files.found.problems.push(Problem::new(&place, "there is no mail {} in this configuration"));
    }
    let mail = mail.as_mut()?;
    if !mail.arguments().is_empty() {
        let problem = mail.problem("invalid number of arguments in \"mail\" directive");
        files.found.problems.push(problem);
    }
    let Some(block) = mail.block.take() else {
        files.found.problems.push(mail.problem("directive \"mail\" has no opening \"{\""));
        return None;
    };
    let mut block = files.expand(block, 0);
    for server in block.iter_mut().filter(|directive| directive.name() == "server") {
        server.block = server.block.take().map(|inner| files.expand(inner, 0));
    }
    mail.block = Some(block);
    Some(mail.clone())
}

/// Returns the first `mail {}` of the main level. Directives that do not belong to mail are skipped.
fn only_mail(main: Vec<Directive>, found: &mut Findings) -> Option<Directive> {
    let mut mail: Option<Directive> = None;
    for directive in main {
        match directive.name() {
            "mail" if mail.is_some() => {
                found.problems.push(directive.problem("\"mail\" directive is duplicate"));
            }
            "mail" => mail = Some(directive),
            name if super::directives::belongs_to_mail_only(name) => {
                found.problems.push(directive.problem(format!("\"{name}\" directive is not allowed here")));
            }
            _ => found.notes.extend(forks::of_the_main_level(&directive)),
        }
    }
    mail
}

/// Reads files and collects the problems in them.
struct Files<'a, 'b> {
    context: &'a Context<'a>,
    found: &'b mut Findings,
}

impl Files<'_, '_> {
    /// Replaces each `include` of a list by the directives of its files.
    fn expand(&mut self, directives: Vec<Directive>, depth: usize) -> Vec<Directive> {
        let mut all = Vec::new();
        for directive in directives {
            if directive.name() != "include" {
                all.push(directive);
            } else if let Some(paths) = self.included(&directive, depth) {
                for path in paths {
                    let inner = self.open(&path, &directive);
                    all.extend(self.expand(inner, depth + 1));
                }
            }
        }
        all
    }

    /// Returns the files of an `include`; `None` if it is invalid.
    fn included(&mut self, directive: &Directive, depth: usize) -> Option<Vec<PathBuf>> {
        let message = match directive.arguments().len() {
            1 if depth < INCLUDE_DEPTH => return Some(self.context.named(directive.argument(0))),
            1 => format!("files include each other more than {INCLUDE_DEPTH} deep"),
            _ => "invalid number of arguments in \"include\" directive".to_owned(),
        };
        self.found.problems.push(directive.problem(message));
        self.found.is_incomplete = true;
        None
    }

    fn open(&mut self, path: &Path, from: &Directive) -> Vec<Directive> {
        match self.context.included(path) {
            Ok(text) => self.parse(path, &text),
            Err(error) => {
                let name = path.to_string_lossy();
                let message = format!("open() \"{name}\" failed ({})", system_error(&error));
                self.found.problems.push(from.problem(message));
                self.found.is_incomplete = true;
                Vec::new()
            }
        }
    }

    /// Parses a file, up to an error if there is one.
    fn parse(&mut self, path: &Path, text: &[u8]) -> Vec<Directive> {
        let mut parser = Parser { reader: Reader::new(&path.to_string_lossy(), text), problem: None };
        let directives = parser.block(0);
        self.found.is_incomplete |= parser.problem.is_some();
        self.found.problems.extend(parser.problem);
        directives
    }
}

/// Parses one file, up to its end or an error.
struct Parser<'a> {
    reader: Reader<'a>,
    problem: Option<Problem>,
}

impl Parser<'_> {
    /// Parses directives up to the end of the block, or of the file at depth 0.
    fn block(&mut self, depth: usize) -> Vec<Directive> {
        let mut directives = Vec::new();
        while self.problem.is_none() {
            match self.reader.next() {
                Ok(Item::Simple(words, place)) => directives.push(Directive { words, place, block: None }),
                Ok(Item::Open(words, place)) => {
                    if let Some(inner) = self.inner(&words, &place, depth) {
                        directives.push(Directive { words, place, block: Some(inner) });
                    }
                }
                Ok(Item::Close(_)) if depth > 0 => break,
                Ok(Item::End(_)) if depth == 0 => break,
                Ok(Item::Close(place)) => self.problem = Some(Problem::new(&place, "unexpected \"}\"")),
                Ok(Item::End(place)) => {
                    self.problem = Some(Problem::new(&place, "unexpected end of file, expecting \"}\""));
                }
                Err(problem) => self.problem = Some(problem),
            }
        }
        directives
    }

    fn inner(&mut self, words: &[String], place: &Place, depth: usize) -> Option<Vec<Directive>> {
        if depth == BLOCK_DEPTH {
            let message = format!("{:?} stands in more than {BLOCK_DEPTH} blocks", words.concat());
            self.problem = Some(Problem::new(place, message));
            return None;
        }
        if !words.first().is_some_and(|name| name.ends_with("_by_lua_block")) {
            return Some(self.block(depth + 1));
        }
        self.problem = self.reader.skip_code().err();
        Some(Vec::new())
    }
}
