//! Directives with their blocks, includes followed, and the `mail {}` among them.

use std::path::{Path, PathBuf};

use super::Source;
use super::problem::{Note, Place, Problem, system_error};
use super::read::{Item, Reader};

/// A directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name and arguments; at least the name.
    words: Vec<String>,
    /// Where it begins.
    pub(super) place: Place,
    /// What stands between its braces, if it has some.
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// An argument, empty where there is none.
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

/// How deep files may include files; nginx itself ends when it is out of descriptors.
const INCLUDE_DEPTH: usize = 16;

/// How deep blocks may stand in blocks.
const BLOCK_DEPTH: usize = 64;

/// The `mail {}` of a configuration, with the includes of its two levels.
pub(super) fn mail(file: &Path, prefix: &Path, source: &dyn Source) -> Result<Directive, Problem> {
    let files = Files { prefix, source };
    let main = files.expand(files.open(file, None)?, 0)?;
    let mut found: Option<Directive> = None;
    for directive in main {
        match directive.name() {
            "mail" if found.is_some() => return Err(directive.problem("\"mail\" directive is duplicate")),
            "mail" => found = Some(directive),
            name if super::directives::belongs_to_mail_only(name) => {
                return Err(directive.problem(format!("\"{name}\" directive is not allowed here")));
            }
            _ => {}
        }
    }
    let Some(mut mail) = found else {
        let place = Place { file: file.to_string_lossy().into(), line: 1 };
        return Err(Problem::new(&place, "there is no mail {} in this configuration"));
    };
    if !mail.arguments().is_empty() {
        return Err(mail.problem("invalid number of arguments in \"mail\" directive"));
    }
    let Some(block) = mail.block.take() else {
        return Err(mail.problem("directive \"mail\" has no opening \"{\""));
    };
    let mut block = files.expand(block, 0)?;
    for server in block.iter_mut().filter(|directive| directive.name() == "server") {
        let inner = server.block.take().map(|inner| files.expand(inner, 0)).transpose()?;
        server.block = inner;
    }
    mail.block = Some(block);
    Ok(mail)
}

/// Where files come from.
struct Files<'a> {
    prefix: &'a Path,
    source: &'a dyn Source,
}

impl Files<'_> {
    /// The directives of a list, with those of included files in the place of each `include`.
    fn expand(&self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, Problem> {
        let mut all = Vec::new();
        for directive in directives {
            if directive.name() != "include" {
                all.push(directive);
                continue;
            }
            if directive.arguments().len() != 1 {
                return Err(directive.problem("invalid number of arguments in \"include\" directive"));
            }
            if depth == INCLUDE_DEPTH {
                let message = format!("files include each other more than {INCLUDE_DEPTH} deep");
                return Err(directive.problem(message));
            }
            for path in self.named(directive.argument(0)) {
                all.extend(self.expand(self.open(&path, Some(&directive.place))?, depth + 1)?);
            }
        }
        Ok(all)
    }

    /// One file, or all that a pattern stands for, which may be none.
    fn named(&self, name: &str) -> Vec<PathBuf> {
        let path = self.prefix.join(name);
        if name.contains(['*', '?', '[']) { self.source.glob(&path) } else { vec![path] }
    }

    fn open(&self, path: &Path, from: Option<&Place>) -> Result<Vec<Directive>, Problem> {
        let name = path.to_string_lossy();
        let text = self.source.read(path).map_err(|error| {
            let own = Place { file: name.as_ref().into(), line: 1 };
            Problem::new(from.unwrap_or(&own), format!("open() \"{name}\" failed ({})", system_error(&error)))
        })?;
        block(&mut Reader::new(&name, &text), 0)
    }
}

/// Directives up to the end of the block, or of the file where that is no block.
fn block(reader: &mut Reader<'_>, depth: usize) -> Result<Vec<Directive>, Problem> {
    let mut directives = Vec::new();
    loop {
        match reader.next()? {
            Item::Simple(words, place) => directives.push(Directive { words, place, block: None }),
            Item::Open(words, place) if depth == BLOCK_DEPTH => {
                let message = format!("{:?} stands in more than {BLOCK_DEPTH} blocks", words.concat());
                return Err(Problem::new(&place, message));
            }
            Item::Open(words, place) => {
                let code = words.first().is_some_and(|name| name.ends_with("_by_lua_block"));
                let inner =
                    if code { reader.skip_code().map(|()| vec![])? } else { block(reader, depth + 1)? };
                directives.push(Directive { words, place, block: Some(inner) });
            }
            Item::Close(_) if depth > 0 => return Ok(directives),
            Item::Close(place) => return Err(Problem::new(&place, "unexpected \"}\"")),
            Item::End(_) if depth == 0 => return Ok(directives),
            Item::End(place) => {
                return Err(Problem::new(&place, "unexpected end of file, expecting \"}\""));
            }
        }
    }
}
