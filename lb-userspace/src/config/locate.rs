//! YAML text → a tree in which every key and value knows where it stands.
//!
//! serde_yaml forgets positions once it has parsed, and stops at the first error; so the tree is built from
//! saphyr's events. What a plain scalar *is* (number, boolean, null) is still serde_yaml's to say.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::report::{Position, Problem, Severity};

/// Deepest nesting of lists and mappings; the format itself needs six.
const MAX_DEPTH: usize = 32;
/// Most values a document may have once its aliases are replaced by what they stand for: room for a hundred
/// thousand servers with every key, and an end to aliases of aliases of aliases.
const MAX_VALUES: usize = 4 << 20;

/// A value and where it starts.
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
    /// Values in it, itself included, aliases followed.
    values: usize,
}

pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

/// A scalar as written.
pub(super) struct Scalar {
    pub(super) text: String,
    plain: bool,
}

impl Scalar {
    /// The scalar with its YAML type.
    pub(super) fn typed(&self) -> serde_yaml::Value {
        let text = || serde_yaml::Value::String(self.text.clone());
        if self.plain { serde_yaml::from_str(&self.text).unwrap_or_else(|_| text()) } else { text() }
    }
}

impl Node {
    /// Whether there is nothing: `key:` with no value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.typed().is_null())
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.value, Value::List(nodes) if nodes.is_empty())
    }
}

/// The tree of the one document in `text`, `None` if there is none or it is not YAML. What is wrong with it as
/// YAML (syntax, duplicate keys) goes to `problems`.
pub(super) fn tree(text: &str, problems: &mut Vec<Problem>) -> Option<Rc<Node>> {
    let mut builder = Builder { problems, open: Vec::new(), anchors: HashMap::new(), root: None };
    for event in Parser::new_from_str(text) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err((position(error.marker()), format!("not YAML: {}", error.info()))),
        };
        if let Err((at, what)) = taken {
            builder.error(at, what);
            return None;
        }
    }
    builder.root
}

fn position(marker: &saphyr_parser::Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

struct Builder<'a> {
    problems: &'a mut Vec<Problem>,
    /// The lists and mappings not closed yet, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

/// A list or mapping being read.
struct Open {
    at: Position,
    anchor: usize,
    values: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Position>, key: Option<(String, Position)> },
}

/// What makes the rest of the document unreadable.
type Fatal = (Position, String);

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        let at = position(&span.start);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err((at, "a second YAML document starts here; one document a file".to_owned()))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                Err((at, "a YAML tag means nothing here; the value without it".to_owned()))
            }
            Event::Scalar(text, style, anchor, None) => {
                let scalar = Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = Rc::new(Node { at, value: Value::Scalar(scalar), values: 1 });
                self.finish(node, anchor)
            }
            Event::SequenceStart(anchor, None) => self.open(at, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, None) => {
                self.open(at, anchor, Inside::Map { entries: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.place(Rc::clone(node), at),
                None => Err((at, "the alias stands inside the value it is an alias of".to_owned())),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, inside: Inside) -> Result<(), Fatal> {
        if self.open.len() == MAX_DEPTH {
            return Err((at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { at, anchor, values: 1, inside });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fatal> {
        let Some(Open { at, anchor, values, inside }) = self.open.pop() else { return Ok(()) };
        let value = match inside {
            Inside::List(nodes) => Value::List(nodes),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        let node = Rc::new(Node { at, value, values });
        self.finish(node, anchor)
    }

    /// Takes in a value that is complete; `anchor` 0 is none.
    fn finish(&mut self, node: Rc<Node>, anchor: usize) -> Result<(), Fatal> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let at = node.at;
        self.place(node, at)
    }

    /// Puts a finished value, which stands at `at`, where it belongs.
    fn place(&mut self, node: Rc<Node>, at: Position) -> Result<(), Fatal> {
        let path = self.path();
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.values += node.values;
        if parent.values > MAX_VALUES {
            return Err((at, format!("the file has more than {MAX_VALUES} values, aliases included")));
        }
        match &mut parent.inside {
            Inside::List(nodes) => nodes.push(node),
            Inside::Map { entries, seen, key } => match key.take() {
                None => {
                    let Value::Scalar(scalar) = &node.value else {
                        return Err((at, "a key has to be a word".to_owned()));
                    };
                    *key = Some((scalar.text.clone(), at));
                }
                Some((key, at)) => match seen.get(&key) {
                    Some(first) => {
                        let problem = Problem {
                            severity: Severity::Error,
                            at: Some(at),
                            path,
                            what: "the key is given twice".to_owned(),
                            accepted: Some("once in a mapping".to_owned()),
                            other: Some(*first),
                        };
                        self.problems.push(problem);
                    }
                    None => {
                        seen.insert(key.clone(), at);
                        entries.push(Entry { key, at, value: node });
                    }
                },
            },
        }
        Ok(())
    }

    /// Path of the value that is placed next.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.inside {
                Inside::List(nodes) => path += &format!("[{}]", nodes.len()),
                Inside::Map { key: Some((key, _)), .. } => path = join(&path, key),
                Inside::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn error(&mut self, at: Position, what: String) {
        let (severity, path) = (Severity::Error, self.path());
        self.problems.push(Problem { severity, at: Some(at), path, what, accepted: None, other: None });
    }
}

/// `path` followed by `key`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        tree(text, &mut problems);
        problems.iter().map(|problem| format!("{} {}", problem.at.unwrap(), problem.what)).collect()
    }

    fn positions(node: &Node, path: &str, found: &mut Vec<String>) {
        found.push(format!("{path} {}", node.at));
        match &node.value {
            Value::Scalar(_) => {}
            Value::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    positions(node, &format!("{path}[{index}]"), found);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    found.push(format!("{path}.{} {}", entry.key, entry.at));
                    positions(&entry.value, &format!("{path}.{}=", entry.key), found);
                }
            }
        }
    }

    #[test]
    fn every_key_and_value_knows_where_it_stands() {
        let text = "# comment\nä: [1, {b: 2}]\nlist:\n  - c: &x 3\n    d: *x\n  - \"quoted\"\n";
        let mut found = Vec::new();
        positions(&tree(text, &mut Vec::new()).unwrap(), "", &mut found);
        let expected = [
            " 2:1",
            ".ä 2:1",
            ".ä= 2:4",
            ".ä=[0] 2:5",
            ".ä=[1] 2:8",
            ".ä=[1].b 2:9",
            ".ä=[1].b= 2:12",
            ".list 3:1",
            ".list= 4:3",
            ".list=[0] 4:5",
            ".list=[0].c 4:5",
            ".list=[0].c= 4:8",
            ".list=[0].d 5:5",
            ".list=[0].d= 4:8",
            ".list=[1] 6:5",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_one_document_of_plain_yaml_is_told_with_its_place() {
        for (text, expected) in [
            ("a: 1\n---\nb: 2\n", "2:1 a second YAML document starts here; one document a file"),
            ("a: !!str 1\n", "1:4 a YAML tag means nothing here; the value without it"),
            ("[a]: 1\n", "1:1 a key has to be a word"),
            ("a: &x [*x]\n", "1:8 the alias stands inside the value it is an alias of"),
            ("a: 1\nb: 2\na: 3\n", "3:1 the key is given twice"),
        ] {
            assert_eq!(problems(text), [expected], "{text:?}");
        }
        assert!(problems("a: [1\n")[0].contains("not YAML: "));
    }

    #[test]
    fn aliases_of_aliases_come_to_an_end() {
        let mut text = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 0..9 {
            text += &format!("- &a{} [{}]\n", level + 1, vec![format!("*a{level}"); 10].join(", "));
        }
        assert!(problems(&text)[0].contains("more than 4194304 values"), "{:?}", problems(&text));
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert_eq!(problems(&deep), ["1:33 nested deeper than 32 levels"]);
        assert_eq!(problems(&"- ".repeat(100_000)), ["1:65 nested deeper than 32 levels"]);
        assert_eq!(problems(&"[".repeat(100_000)).len(), 1, "the parser's own limit");
    }
}
