//! Finds the position of an object's field in a file.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use crate::controller::index::Kind;
use crate::controller::manifest::Position;
use crate::secret;

use super::tree::{Content, Node, Pair, documents};

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In bytes, within one line.
    pub(super) span: Range<usize>,
    /// Counted from 1.
    pub(super) line: usize,
    /// In characters, counted from 1.
    pub(super) column: usize,
    /// Whether the line may be shown: it has no content of other objects and no URL with a login.
    pub(super) is_own: bool,
}

/// The identity of an object in a file.
pub(super) struct Named<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Place {
    /// Creates the place of a range of bytes. It ends at the end of the line.
    pub(super) fn new(text: &str, span: Range<usize>, is_own: bool) -> Self {
        let before = text.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let rest = text.get(span.clone()).unwrap_or_default();
        let line = text.get(start..).unwrap_or_default().split(['\n', '\r']).next().unwrap_or_default();
        let first = rest.split(['\n', '\r']).next().unwrap_or_default().trim_end();
        Self {
            line: before.matches('\n').count().saturating_add(1),
            column: text.get(start..span.start).unwrap_or_default().chars().count().saturating_add(1),
            span: span.start..span.start.saturating_add(first.len().max(1)).min(text.len()),
            is_own: is_own && !has_login(line),
        }
    }

    /// Creates the place of a parser's position.
    pub(super) fn at(text: &str, Position { line, column }: Position) -> Self {
        let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
        let start = lines.map(str::len).sum::<usize>();
        let rest = text.get(start..).unwrap_or_default();
        let before: usize = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
        let at = start.saturating_add(before).min(text.len());
        // In a broken file, it is not known to which object a line belongs.
        let is_own = !text.contains("Secret");
        Self { line, column, ..Self::new(text, at..at.saturating_add(1), is_own) }
    }
}

/// Tells whether the line may have a URL with a login, even in an incorrect form.
fn has_login(line: &str) -> bool {
    let mut urls = line.split("url").skip(1);
    let bare = |value: &str| {
        secret::may_hold_login(&format!("://{}", value.trim_start_matches(['"', '\'', ':', ' '])))
    };
    let is_url = line.contains("://") || line.contains("url");
    (is_url && secret::may_hold_login(line)) || (!line.contains("://") && urls.any(bare))
}

/// The text of a file. It is parsed when a position is first needed.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) text: String,
    documents: OnceCell<Vec<Rc<Node>>>,
}

impl Source {
    pub(super) fn new(text: String) -> Self {
        Self { text, documents: OnceCell::new() }
    }

    fn documents(&self) -> &[Rc<Node>] {
        self.documents.get_or_init(|| documents(&self.text))
    }

    /// Returns the place of a field of an object, or of the nearest parent that exists.
    pub(super) fn find(&self, object: &Named<'_>, path: &str, whole: bool) -> Option<Place> {
        let items = |document: &Rc<Node>| match document.get("items").map(|items| &items.content) {
            Some(Content::List(items)) => items.clone(),
            _ => vec![Rc::clone(document)],
        };
        let mut found = self.documents().iter().filter_map(|document| {
            let node = items(document).into_iter().find(|node| is_named(node, object))?;
            Some((document, node))
        });
        let (document, node) = found.next()?;
        // In a list, another object may be in the same line.
        let before = self.text.get(document.span.start..node.span.start).unwrap_or_default();
        let is_own = Rc::ptr_eq(document, &node) || before.contains('\n');
        let span = descend(&node, path, whole)?;
        Some(Place::new(&self.text, span, is_own))
    }

    /// Tells whether the position is in one of our own objects, which contain no secrets.
    pub(super) fn is_ours(&self, at: usize) -> bool {
        let document = self.documents().iter().find(|document| document.span.contains(&at));
        let kind = document.and_then(|document| document.get("kind")).and_then(|kind| kind.text());
        kind.and_then(Kind::named).is_some()
    }
}

fn is_named(node: &Node, object: &Named<'_>) -> bool {
    let text = |node: Option<&Rc<Node>>| node.and_then(|node| node.text()).map(str::to_owned);
    let metadata = node.get("metadata");
    let of_metadata = |key: &str| text(metadata.and_then(|metadata| metadata.get(key)));
    text(node.get("kind")).as_deref() == Some(object.kind)
        && of_metadata("name").as_deref() == Some(object.name)
        && of_metadata("namespace").as_deref().unwrap_or("default") == object.namespace
}

/// Returns the range to mark: the value of a scalar field, otherwise the key, or that of the last part of the path that
/// exists.
fn descend(root: &Rc<Node>, path: &str, whole: bool) -> Option<Range<usize>> {
    let (mut node, mut rest) = (Rc::clone(root), path);
    let mut span = None;
    while !rest.is_empty() {
        let Some((step, next, tail)) = step(&node, rest) else { return span };
        (span, node, rest) = (Some(step), next, tail);
    }
    match &node.content {
        Content::Scalar(_) if !whole => Some(node.span.clone()),
        _ => span,
    }
}

/// Finds the first part of a path. Returns the range of its key, its value, and the rest of the path.
fn step<'a>(node: &Rc<Node>, path: &'a str) -> Option<(Range<usize>, Rc<Node>, &'a str)> {
    match &node.content {
        Content::Map(pairs) => {
            let of_path = |pair: &&Pair| tail(path, &pair.key).is_some();
            // A key may contain dots.
            let Some(pair) = pairs.iter().filter(of_path).max_by_key(|pair| pair.key.len()) else {
                return merged(pairs).find_map(|value| step(&value, path));
            };
            Some((pair.span.clone(), Rc::clone(&pair.value), tail(path, &pair.key)?))
        }
        Content::List(items) => {
            let (element, tail) = path.strip_prefix('[')?.split_once(']')?;
            let is =
                |item: &Rc<Node>, key: &str| item.get(key).and_then(|value| value.text()) == Some(element);
            // The backends of a MailRoute are called by their protocol.
            let is_called = |item: &&Rc<Node>| is(item, "name") || is(item, "protocol");
            let by_index = || items.get(element.parse::<usize>().ok()?);
            let item = items.iter().find(is_called).or_else(by_index)?;
            Some((name_of(item), Rc::clone(item), tail.strip_prefix('.').unwrap_or(tail)))
        }
        Content::Scalar(_) => None,
    }
}

/// Returns the rest of a path after `key`, if the path begins with that key.
fn tail<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let tail = path.strip_prefix(key)?;
    if tail.starts_with('[') || tail.is_empty() { Some(tail) } else { tail.strip_prefix('.') }
}

/// Returns the maps that `<<` merges.
fn merged(pairs: &[Pair]) -> impl Iterator<Item = Rc<Node>> {
    pairs.iter().filter(|pair| pair.key == "<<").flat_map(|pair| match &pair.value.content {
        Content::List(items) => items.clone(),
        _ => vec![Rc::clone(&pair.value)],
    })
}

/// Returns the range of the name of a list's element, or of its first key, or of the element.
fn name_of(item: &Rc<Node>) -> Range<usize> {
    match &item.content {
        Content::Map(pairs) => {
            let name = item.get("name").map(|name| name.span.clone());
            name.or_else(|| pairs.first().map(|pair| pair.span.clone())).unwrap_or_else(|| item.span.clone())
        }
        Content::Scalar(_) | Content::List(_) => item.span.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the marked text, with line and column.
    fn found(text: &str, path: &str) -> Option<(String, usize, usize)> {
        let object = Named { kind: "MailServer", namespace: "default", name: "s" };
        let Place { span, line, column, .. } = Source::new(text.to_owned()).find(&object, path, false)?;
        Some((text[span].to_owned(), line, column))
    }

    fn at(word: &str, line: usize, column: usize) -> Option<(String, usize, usize)> {
        Some((word.to_owned(), line, column))
    }

    const BLOCK: &str = "\
# \u{e4} comment
apiVersion: v1
kind: Secret
metadata: {name: s}
---
kind: MailServer
metadata:
  name: s
  labels: {a.b/c: x}
spec:
  listeners:
  - name: imaps
    port: 993
    hostnames:
    - a.test
    - b test
  - port: 995
    name: pop3s
  auth: &auth
    passthrough: {}
";

    #[test]
    fn a_field_is_found_by_its_path() {
        assert_eq!(found(BLOCK, "spec.listeners[imaps].port"), at("993", 13, 11));
        assert_eq!(found(BLOCK, "spec.listeners[imaps].hostnames[1]"), at("b test", 16, 7));
        assert_eq!(found(BLOCK, "spec.listeners[1].port"), at("995", 17, 11));
        assert_eq!(found(BLOCK, "spec.listeners[pop3s]"), at("pop3s", 18, 11));
        assert_eq!(found(BLOCK, "spec.auth.passthrough"), at("passthrough", 20, 5));
        assert_eq!(found(BLOCK, "metadata.labels.a.b/c"), at("x", 9, 19));
    }

    #[test]
    fn an_absent_field_is_placed_at_its_parent() {
        assert_eq!(found(BLOCK, "spec.listeners[imaps].tls.mode"), at("imaps", 12, 11));
        assert_eq!(found(BLOCK, "spec.tls.certificateRefs"), at("spec", 10, 1));
        assert_eq!(found(BLOCK, "nothing"), None);
        assert_eq!(found("kind: MailServer\nmetadata: {name: other}\n", "spec"), None);
    }

    #[test]
    fn flow_style_json_lists_and_anchors_are_read_as_well() {
        let json = r#"{"kind": "MailServer", "metadata": {"name": "s"}, "spec": {"listeners": [{"name": "a", "port": 0}]}}"#;
        assert_eq!(found(json, "spec.listeners[a].port"), at("0", 1, 96));
        let list = format!("kind: List\nitems: [{json}]\n");
        assert_eq!(found(&list, "spec.listeners[a].port"), at("0", 2, 104));
        let anchored = "\
kind: MailServer
metadata: {name: s}
spec:
  listeners:
  - &base {name: a, port: 1}
  - {<<: *base, name: b}
  - *base
";
        assert_eq!(found(anchored, "spec.listeners[b].port"), at("1", 5, 27));
        assert_eq!(found(anchored, "spec.listeners[2].port"), at("1", 5, 27));
    }

    #[test]
    fn a_line_that_other_objects_share_is_not_shown() {
        let list = "{kind: List, items: [{kind: Secret, data: {a: b}}, {kind: MailServer, metadata: {name: s}, spec: {}}]}";
        let object = Named { kind: "MailServer", namespace: "default", name: "s" };
        let source = |text: &str| Source::new(text.to_owned());
        assert!(!source(list).find(&object, "spec", false).unwrap().is_own);
        assert!(source(BLOCK).find(&object, "spec", false).unwrap().is_own);
        let of = |word: &str| BLOCK.find(word).unwrap();
        assert!(source(BLOCK).is_ours(of("port: 993")) && !source(BLOCK).is_ours(of("Secret")));
        assert!(!source(list).is_ours(70));
        let at = |text, line, column| Place::at(text, Position { line, column });
        assert!(!at(BLOCK, 3, 1).is_own && at("a: [", 1, 4).is_own);
    }

    #[test]
    fn a_line_with_the_login_of_a_url_is_not_shown() {
        let shown = |line: &str| Place::new(line, 2..3, true).is_own;
        assert!(
            !shown("  url: 'http://u:p@host/'") && !shown("  url: u:p@host") && !shown("- http://u:p@host")
        );
        assert!(!shown("  url: 'http://u:p/'") && !shown("  url: http://u:p") && !shown("  url: u:p"));
        assert!(!shown("  http: {url: \"u:p\", timeout: 1s}"));
        assert!(shown("  url: 'http://host/'") && shown("  from: a@b.example"));
        assert!(
            shown("  http: {url: http://host:9000/a, timeout: 1s}") && shown("  url: 'http://[::1]:9000/'")
        );
        assert!(shown("  url: unix:/run/auth:/a"));
    }

    #[test]
    fn ignores_values_that_are_nested_too_deeply() {
        assert_eq!(found(&"[".repeat(100_000), "spec"), None);
    }
}
