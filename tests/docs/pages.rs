//! Reads the pages (README.md, CONTRIBUTING.md, CHANGELOG.md and docs/) with their fenced blocks.

use std::path::{Path, PathBuf};

/// A Markdown file of the repository.
pub struct Page {
    /// The path in the repository, such as `docs/nginx.md`.
    pub name: String,
    pub text: String,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The place, such as `docs/nginx.md:3`.
    pub place: String,
    /// The first word after the fence, such as `sh`.
    pub language: String,
    /// The other words, such as `cluster` or `file=mail.yaml`.
    pub words: Vec<String>,
    pub text: String,
}

impl Block {
    /// Returns the value of `key=value`.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

impl Page {
    /// Tells whether the page is part of the book.
    pub fn is_in_book(&self) -> bool {
        self.name.starts_with("docs/")
    }

    /// Returns the fenced blocks, including those in lists.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (index, line) in self.text.lines().enumerate() {
            let content = line.trim_start();
            let indent = line.len() - content.len();
            match &mut open {
                Some(_) if content == "```" => blocks.extend(open.take().map(|(block, _)| block)),
                Some((block, outer)) => {
                    block.text.push_str(line.get(*outer..).unwrap_or(content));
                    block.text.push('\n');
                }
                None => {
                    let Some(info) = content.strip_prefix("```") else { continue };
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let block = Block {
                        place: format!("{}:{}", self.name, index + 1),
                        language: words.next().unwrap_or_default(),
                        words: words.collect(),
                        text: String::new(),
                    };
                    open = Some((block, indent));
                }
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name);
        blocks
    }

    /// Returns the blocks to run or to write to a file, in order, including comments that start with `<!-- sh`.
    pub fn steps(&self) -> Vec<Block> {
        let text = self.text.lines().scan(false, |hidden, line| {
            let begins = line.strip_prefix("<!-- sh");
            let line = match (begins, *hidden && line.trim() == "-->") {
                (Some(words), _) => {
                    *hidden = true;
                    format!("```sh{words}")
                }
                (None, true) => {
                    *hidden = false;
                    "```".to_owned()
                }
                (None, false) => line.to_owned(),
            };
            Some(line + "\n")
        });
        let page = Page { name: self.name.clone(), text: text.collect() };
        let matters = |block: &Block| {
            block.word("file").is_some() || matches!(block.language.as_str(), "sh" | "console")
        };
        page.blocks().into_iter().filter(matters).collect()
    }
}

/// Returns all pages.
pub fn all() -> Vec<Page> {
    let mut found = Vec::new();
    walk(&root().join("docs"), &mut found);
    found.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    found.sort();
    let page = |path: PathBuf| Page {
        name: path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    found.into_iter().map(page).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The repository's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
