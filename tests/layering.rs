//! Checks the structure of `src/`: which module may import which, and rules for every file.
//!
//! [`LAYERS`] is the table of docs/architecture.md. The tests fail for an import that violates it, files that use each
//! other in a circle, a file that no module declares, a file without a `//!` comment, and a file that is too long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole crate is a test: to panic is how it fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, File, Item, ItemMod, Macro, Meta, UseTree};

/// All modules directly below the crate, and what each may import besides itself. All may use `secret`.
const LAYERS: &[(&str, &[&str])] = &[
    ("secret", &[]),
    ("words", &[]),
    ("protocol", &["secret"]),
    ("net", &["secret"]),
    ("api", &[]),
    ("model", &["protocol", "net", "secret"]),
    ("tls", &["model", "protocol", "net", "secret", "words"]),
    ("dns", &["model", "protocol", "net", "secret"]),
    ("auth", &["dns", "tls", "model", "protocol", "net", "secret"]),
    ("proxy", &["auth", "dns", "tls", "model", "protocol", "net", "secret"]),
    ("probe", &["tls", "model", "protocol", "net", "secret", "words"]),
    // The model contains names from `protocol` and addresses from `net`.
    ("controller", &["api", "model", "tls", "protocol", "net", "secret", "words"]),
    ("import", &["api", "protocol", "net", "secret"]),
    ("admin", &["model", "words"]),
    ("app", ALL),
    ("cli", ALL),
    // The binary.
    ("main", &["cli"]),
];

const ALL: &[&str] = &[
    "secret",
    "words",
    "protocol",
    "net",
    "api",
    "model",
    "tls",
    "dns",
    "auth",
    "proxy",
    "probe",
    "controller",
    "import",
    "admin",
    "app",
    "cli",
];

/// The Kubernetes packages, and the modules that may use them. `app` creates the client.
const CLUSTER_PACKAGES: &[&str] = &["kube", "k8s_openapi"];
const CLUSTER_MODULES: &[&str] = &["api", "controller", "app"];

/// Modules whose files may use each other in a circle: parsers that call each other.
const WITH_CIRCLES: &[&str] = &["import", "protocol"];

/// Maximum number of lines of a file before its tests.
const LONGEST_FILE: usize = 400;

/// A parsed file of `src/`.
struct Source {
    /// The name in messages.
    name: String,
    /// `["proxy", "session"]` for `src/proxy/session.rs`; empty for `lib.rs`.
    module: Vec<String>,
    text: String,
    syntax: File,
}

#[test]
fn modules_import_only_what_their_layer_may() {
    let mut violations = Vec::new();
    for source in sources() {
        let Some(layer) = source.module.first() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == layer) else {
            violations.push(format!(
                "{}: `{layer}` is no layer; add it to LAYERS in tests/layering.rs",
                source.name
            ));
            continue;
        };
        for path in imports(&source) {
            let imported = path[0].as_str();
            if imported != layer
                && LAYERS.iter().any(|(name, _)| *name == imported)
                && !allowed.contains(&imported)
            {
                violations.push(format!(
                    "{}: `{layer}` may not import `{imported}` ({}); it may import: {}",
                    source.name,
                    path.join("::"),
                    if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") },
                ));
            }
        }
    }
    none(&violations);
}

#[test]
fn the_cluster_is_known_to_the_api_and_the_controller_only() {
    let mut violations = Vec::new();
    for source in sources() {
        let layer = source.module.first().map_or("lib", String::as_str);
        if CLUSTER_MODULES.contains(&layer) {
            continue;
        }
        let found: BTreeSet<&str> = external_packages(&source);
        violations.extend(found.into_iter().map(|package| {
            format!(
                "{}: `{package}` belongs to {}, and not to `{layer}`",
                source.name,
                CLUSTER_MODULES.join(", ")
            )
        }));
    }
    none(&violations);
}

#[test]
fn every_file_is_declared_by_a_module() {
    let sources = sources();
    let declared: BTreeSet<Vec<String>> =
        sources.iter().flat_map(declarations).map(|(module, _)| module).collect();
    let mut violations = Vec::new();
    for source in &sources {
        if source.name.ends_with("/mod.rs") {
            violations
                .push(format!("{}: modules are written as foo.rs and foo/, without mod.rs", source.name));
        } else if !is_root(&source.name) && !declared.contains(&source.module) {
            violations.push(format!("{}: no `mod` declares this file, so nothing compiles it", source.name));
        }
    }
    none(&violations);
}

#[test]
fn every_file_says_what_it_owns() {
    let sources = sources();
    let without = sources.iter().filter(|source| !source.text.starts_with("//! "));
    none(&without.map(|source| format!("{}: does not open with `//!`", source.name)).collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_a_person_reads_at_once() {
    let sources = sources();
    let test_modules: BTreeSet<Vec<String>> =
        sources.iter().flat_map(declarations).filter(|(_, test)| *test).map(|(module, _)| module).collect();
    let mut violations = Vec::new();
    for source in &sources {
        let is_test = (0..=source.module.len()).any(|depth| test_modules.contains(&source.module[..depth]));
        let lines = lines_before_tests(&source.text);
        if !is_test && lines > LONGEST_FILE {
            violations
                .push(format!("{}: {lines} lines without its tests; {LONGEST_FILE} at most", source.name));
        }
    }
    none(&violations);
}

#[test]
fn files_depend_on_each_other_in_one_direction() {
    let sources = sources();
    let test_modules: BTreeSet<Vec<String>> =
        sources.iter().flat_map(declarations).filter(|(_, test)| *test).map(|(module, _)| module).collect();
    let is_test = |source: &&Source| {
        (0..=source.module.len()).any(|depth| test_modules.contains(&source.module[..depth]))
    };
    let is_exempt =
        |source: &&Source| WITH_CIRCLES.contains(&source.module.first().map_or("", String::as_str));
    let sources: Vec<&Source> =
        sources.iter().filter(|source| !is_test(source) && !is_exempt(source)).collect();
    let files: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let reexports: BTreeMap<Vec<String>, Vec<String>> =
        sources.iter().flat_map(|source| reexports(source)).collect();
    let mut uses: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for source in &sources {
        for path in used_outside_tests(source) {
            let path = reexports.get(&path).unwrap_or(&path);
            let file = (1..=path.len()).rev().find_map(|length| files.get(&path[..length]));
            // A file may use what the modules above it define.
            let used = file.filter(|file| !source.module.starts_with(file));
            uses.entry(&source.module).or_default().extend(used);
        }
    }
    let name = |module: &&[String]| module.join("::");
    let circles =
        circles(&uses).into_iter().map(|circle| circle.iter().map(name).collect::<Vec<_>>().join(", "));
    none(
        &circles
            .map(|circle| format!("these files use each other in a circle: {circle}"))
            .collect::<Vec<_>>(),
    );
}

/// Returns the sets of files of which each one reaches each other one.
fn circles<'a>(uses: &BTreeMap<&'a [String], BTreeSet<&'a [String]>>) -> BTreeSet<BTreeSet<&'a [String]>> {
    let reached_from = |start: &'a [String]| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(file) = open.pop() {
            open.extend(uses.get(file).into_iter().flatten().copied().filter(|next| reached.insert(*next)));
        }
        reached
    };
    let reached: BTreeMap<&[String], BTreeSet<&[String]>> =
        uses.keys().map(|file| (*file, reached_from(file))).collect();
    let in_circle = reached.iter().filter(|(file, reached)| reached.contains(*file));
    let circle = in_circle.map(|(file, others)| {
        let back = |other: &&&[String]| reached.get(*other).is_some_and(|reached| reached.contains(file));
        others.iter().filter(back).copied().collect()
    });
    circle.collect()
}

fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    files.sort();
    let each = files.into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.strip_prefix(root).unwrap().display().to_string();
        Source { module: module_of(&name), name, text, syntax }
    });
    each.collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn is_root(name: &str) -> bool {
    matches!(name, "src/lib.rs" | "src/main.rs")
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

/// Returns the modules that a file declares in separate files, and whether they are only for tests.
fn declarations(source: &Source) -> Vec<(Vec<String>, bool)> {
    fn walk(items: &[Item], module: &[String], test: bool, found: &mut Vec<(Vec<String>, bool)>) {
        for item in items {
            let Item::Mod(item) = item else { continue };
            let path = [module, &[item.ident.to_string()]].concat();
            let test = test || item.attrs.iter().any(is_cfg_test);
            match &item.content {
                Some((_, items)) => walk(items, &path, test, found),
                None => found.push((path, test)),
            }
        }
    }
    // `main.rs` is a root like `lib.rs`.
    let module = if is_root(&source.name) { &[] } else { source.module.as_slice() };
    let mut found = Vec::new();
    walk(&source.syntax.items, module, false, &mut found);
    found
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

/// Returns the crate's paths that a file names outside of its tests.
fn used_outside_tests(source: &Source) -> Vec<Vec<String>> {
    let mut finder = Finder { skips_tests: true, ..Finder::new(source) };
    finder.visit_file(&source.syntax);
    finder.found.into_iter().filter(|path| path[0] != EXTERNAL).map(|path| path[1..].to_vec()).collect()
}

/// Returns the names that a file re-exports, with the paths at which they are defined.
fn reexports(source: &Source) -> Vec<(Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    for item in &source.syntax.items {
        let Item::Use(item) = item else { continue };
        if matches!(item.vis, syn::Visibility::Inherited) {
            continue;
        }
        let mut finder = Finder::new(source);
        finder.visit_item_use(item);
        let ours = finder.found.into_iter().filter(|path| path[0] != EXTERNAL);
        found.extend(ours.filter_map(|path| {
            let name = path.last()?.clone();
            Some(([source.module.as_slice(), &[name]].concat(), path[1..].to_vec()))
        }));
    }
    found
}

/// Returns the crate's paths that a file names anywhere, such as `["model", "Snapshot"]`.
fn imports(source: &Source) -> Vec<Vec<String>> {
    let mut finder = Finder::new(source);
    finder.visit_file(&source.syntax);
    finder.found.into_iter().filter(|path| path[0] != EXTERNAL).map(|path| path[1..].to_vec()).collect()
}

fn external_packages(source: &Source) -> BTreeSet<&'static str> {
    let mut finder = Finder::new(source);
    finder.visit_file(&source.syntax);
    let used = |package: &&&str| finder.found.contains(&vec![EXTERNAL.to_owned(), (**package).to_owned()]);
    CLUSTER_PACKAGES.iter().filter(used).copied().collect()
}

/// Marks paths of the crate and names of packages in [`Finder::found`].
const OURS: &str = "crate";
const EXTERNAL: &str = "";

struct Finder {
    /// The current module, including inline modules.
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
    skips_tests: bool,
    /// The modules that this file declares: `x::Y` is a path of the crate if `x` is one.
    children: BTreeSet<String>,
}

impl Finder {
    fn new(source: &Source) -> Self {
        let children = source.syntax.items.iter().filter_map(|item| match item {
            Item::Mod(item) => Some(item.ident.to_string()),
            _ => None,
        });
        let (module, children) = (source.module.clone(), children.collect());
        Self { module, found: BTreeSet::new(), skips_tests: false, children }
    }

    /// Resolves a path. Ignores paths of other packages than the crate and the cluster packages.
    fn add(&mut self, written: &[String]) {
        let (mut path, mut rest) = match written.first().map(String::as_str) {
            Some("crate" | "mailgress") => (Vec::new(), &written[1..]),
            Some("super") => (self.module.clone(), written),
            Some("self") => (self.module.clone(), &written[1..]),
            Some(child) if written.len() > 1 && self.children.contains(child) => {
                (self.module.clone(), written)
            }
            Some(package) if CLUSTER_PACKAGES.contains(&package) => {
                self.found.insert(vec![EXTERNAL.to_owned(), package.to_owned()]);
                return;
            }
            _ => return,
        };
        while rest.first().is_some_and(|segment| segment == "super") {
            path.pop();
            rest = &rest[1..];
        }
        path.extend(rest.iter().cloned());
        if !path.is_empty() {
            path.insert(0, OURS.to_owned());
            self.found.insert(path);
        }
    }

    fn add_use(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if self.skips_tests && item.attrs.iter().any(is_cfg_test) {
            return;
        }
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    /// The content of a macro is a list of tokens. Paths are recognised by their first word.
    fn visit_macro(&mut self, item: &'ast Macro) {
        let text = item.tokens.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            if matches!(*word, "crate" | "super") || CLUSTER_PACKAGES.contains(word) {
                let segments = words[index..].chunks(2).take_while(|pair| is_identifier(pair[0]));
                let mut path = Vec::new();
                for pair in segments {
                    path.push(pair[0].to_owned());
                    if pair.get(1) != Some(&"::") {
                        break;
                    }
                }
                self.add(&path);
            }
        }
        syn::visit::visit_macro(self, item);
    }
}

fn is_identifier(word: &str) -> bool {
    word.chars().all(|c| c.is_alphanumeric() || c == '_')
}
