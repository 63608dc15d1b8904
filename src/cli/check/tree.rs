//! Parses YAML with the positions of all values.
//!
//! The folder source reads and validates the values. This module only finds positions, so it ignores errors.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, Span};

/// A value with its range in bytes.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) content: Content,
}

/// The content of a value.
#[derive(Debug)]
pub(super) enum Content {
    Scalar(String),
    Map(Vec<Pair>),
    List(Vec<Rc<Node>>),
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: Rc<Node>,
}

impl Node {
    /// Returns a field of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        let Content::Map(pairs) = &self.content else { return None };
        pairs.iter().find(|pair| pair.key == key).map(|pair| &pair.value)
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        let Content::Scalar(text) = &self.content else { return None };
        Some(text)
    }
}

/// Returns the documents of a text up to the first error.
pub(super) fn documents(text: &str) -> Vec<Rc<Node>> {
    let offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
    let mut composer = Composer { offsets, ..Composer::default() };
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        if composer.take(event, &span).is_none() {
            break;
        }
    }
    composer.documents
}

/// Builds nodes from events.
#[derive(Default)]
struct Composer {
    /// The position in bytes of each character.
    offsets: Vec<usize>,
    documents: Vec<Rc<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
}

/// A map or list that has started and not ended.
struct Open {
    start: usize,
    anchor: usize,
    content: Unfinished,
}

enum Unfinished {
    Map(Vec<Pair>, Option<(String, Range<usize>)>),
    List(Vec<Rc<Node>>),
}

impl Composer {
    /// Applies an event. Returns `None` if the nesting is too deep.
    fn take(&mut self, event: Event<'_>, span: &Span) -> Option<()> {
        let range = self.byte(span.start.index())..self.byte(span.end.index());
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.put(Node { span: range, content: Content::Scalar(text.into_owned()) }, anchor);
            }
            Event::Alias(anchor) => {
                if let Some(node) = self.anchors.get(&anchor).cloned() {
                    self.place(node, range);
                }
            }
            Event::MappingStart(anchor, _) => {
                self.begin(range.start, anchor, Unfinished::Map(Vec::new(), None))?
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(range.start, anchor, Unfinished::List(Vec::new()))?
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Open { start, anchor, content }) = self.open.pop() {
                    let content = match content {
                        Unfinished::Map(pairs, _) => Content::Map(pairs),
                        Unfinished::List(items) => Content::List(items),
                    };
                    self.put(Node { span: start..range.end, content }, anchor);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self, start: usize, anchor: usize, content: Unfinished) -> Option<()> {
        self.open.push(Open { start, anchor, content });
        (self.open.len() <= MAX_DEPTH).then_some(())
    }

    fn put(&mut self, node: Node, anchor: usize) {
        let (span, node) = (node.span.clone(), Rc::new(node));
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, span);
    }

    /// Adds a node to the open map or list. `span` is its range, or that of an alias.
    fn place(&mut self, node: Rc<Node>, span: Range<usize>) {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Unfinished::List(items)) => items.push(node),
            Some(Unfinished::Map(pairs, key)) => match key.take() {
                Some((key, span)) => pairs.push(Pair { key, span, value: node }),
                None => *key = Some((node.text().unwrap_or_default().to_owned(), span)),
            },
        }
    }

    fn byte(&self, index: usize) -> usize {
        self.offsets.get(index).or_else(|| self.offsets.last()).copied().unwrap_or_default()
    }
}

/// The maximum depth. The folder source accepts less.
const MAX_DEPTH: usize = 128;
