//! YAML with places: where in a text a field of an object stands.
//!
//! Values are read by the folder source; here is only looked for them, so what is odd is passed over.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, Span};

/// A value, and where it stands, in bytes.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) content: Content,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Content {
    Scalar(String),
    Map(Vec<Pair>),
    List(Vec<Rc<Node>>),
}

/// A field of a map.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: Rc<Node>,
}

impl Node {
    /// A field of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        let Content::Map(pairs) = &self.content else { return None };
        pairs.iter().find(|pair| pair.key == key).map(|pair| &pair.value)
    }

    /// A scalar's text.
    pub(super) fn text(&self) -> Option<&str> {
        let Content::Scalar(text) = &self.content else { return None };
        Some(text)
    }
}

/// All documents of a text, as far as they can be read.
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

/// Makes nodes of events.
#[derive(Default)]
struct Composer {
    /// Of each character, in bytes.
    offsets: Vec<usize>,
    documents: Vec<Rc<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
}

/// What has begun and not ended.
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
    /// `None`: it is too deep.
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

    /// Into what is open; `span` is where it is written, or where an alias is.
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

/// Values within values; the folder source takes no more.
const MAX_DEPTH: usize = 128;
