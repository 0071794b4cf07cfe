//! Reading the tree: take the keys one expects, complain about everything else, keep going.

use super::locate::{Entry, Node, Value, join};
use super::report::{Position, Problem, Severity};
use super::values::{Wrong, suggest};

/// Where a value stands in the file and under which key.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: Position,
    pub(super) path: String,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Collects the problems, so that one does not hide the next.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// Every key that was asked for, and whether it was there: how a test learns the whole schema.
    #[cfg(test)]
    pub(super) asked: Vec<(String, bool)>,
}

impl Reader {
    pub(super) fn error(&mut self, place: &Place, wrong: Wrong) {
        self.push(Severity::Error, place, wrong, None);
    }

    /// An error that is a contradiction to what stands at `other`.
    pub(super) fn clash(&mut self, place: &Place, wrong: Wrong, other: &Place) {
        self.push(Severity::Error, place, wrong, Some(other.at));
    }

    pub(super) fn warning(&mut self, place: &Place, wrong: Wrong) {
        self.push(Severity::Warning, place, wrong, None);
    }

    fn push(&mut self, severity: Severity, place: &Place, wrong: Wrong, other: Option<Position>) {
        let Wrong { what, accepted } = wrong;
        let path = place.path.clone();
        self.problems.push(Problem { severity, at: Some(place.at), path, what, accepted, other });
    }
}

/// A node of the tree with the path that leads to it.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) node: &'a Node,
    pub(super) place: Place,
}

impl<'a> Item<'a> {
    /// The document itself.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, place: Place { at: node.at, path: String::new() } }
    }

    /// The value as a scalar of some kind, or a complaint.
    pub(super) fn scalar<T>(&self, r: &mut Reader, decode: impl Fn(&Node) -> Result<T, Wrong>) -> Option<T> {
        decode(self.node).map_err(|wrong| r.error(&self.place, wrong)).ok()
    }

    /// The values of a list; a complaint and nothing if it is none.
    pub(super) fn list(&self, r: &mut Reader, of: &str) -> Vec<Item<'a>> {
        let Value::List(nodes) = &self.node.value else {
            r.error(&self.place, Wrong::new("not a list", format!("a list of {of}")));
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a std::rc::Rc<Node>)| Item {
            node,
            place: Place { at: node.at, path: format!("{}[{index}]", self.place.path) },
        };
        nodes.iter().enumerate().map(item).collect()
    }

    /// The keys of a mapping; a complaint if it is none.
    pub(super) fn fields(&self, r: &mut Reader, keys: &str) -> Option<Fields<'a>> {
        let Value::Map(entries) = &self.node.value else {
            r.error(&self.place, Wrong::new("not a mapping", format!("a mapping with {keys}")));
            return None;
        };
        Some(Fields { place: self.place.clone(), entries, known: Vec::new(), refused: Vec::new() })
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }
}

/// The keys of one mapping while they are being read. [`Fields::finish`] complains about those nobody asked for.
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The value of `key`; `key:` without a value counts as absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let entry = self.entry(key)?;
        (!entry.value.is_null()).then(|| Item { node: &entry.value, place: self.at_value(entry) })
    }

    /// The scalar under `key`, if it is there and right.
    pub(super) fn get<T>(
        &mut self,
        r: &mut Reader,
        key: &'static str,
        decode: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        let item = self.take(key)?;
        item.scalar(r, decode).map(|value| Located { value, place: item.place })
    }

    /// As [`Fields::get`], for a key that has to be there; `accepted` is said when it is not.
    pub(super) fn need<T>(
        &mut self,
        r: &mut Reader,
        key: &'static str,
        accepted: &str,
        decode: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        let found = self.get(r, key, decode);
        if !self.has(key) {
            let place = Place { at: self.place.at, path: join(&self.place.path, key) };
            r.error(&place, Wrong::new("missing", accepted));
        }
        found
    }

    /// The scalar under `key` put into `target`, which keeps its default if the key is absent.
    pub(super) fn set<T>(
        &mut self,
        r: &mut Reader,
        key: &'static str,
        target: &mut T,
        decode: impl Fn(&Node) -> Result<T, Wrong>,
    ) {
        if let Some(found) = self.get(r, key, decode) {
            *target = found.value;
        }
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| !entry.value.is_null())
    }

    /// The place of `key` itself, if it is there.
    pub(super) fn key(&self, key: &str) -> Option<Place> {
        self.entry(key).map(|entry| self.at_key(entry))
    }

    /// Complains about a key people expect here but that cannot work, saying why.
    pub(super) fn refuse(&mut self, r: &mut Reader, key: &'static str, what: &str, accepted: &str) {
        self.refused.push(key);
        if let Some(place) = self.key(key) {
            r.error(&place, Wrong::new(what, accepted));
        }
    }

    /// Complains about every key that was neither taken nor refused.
    pub(super) fn finish(self, r: &mut Reader) {
        let unknown = |entry: &&Entry| {
            let known = |key: &&str| **key == *entry.key;
            !self.known.iter().any(known) && !self.refused.iter().any(known)
        };
        for entry in self.entries.iter().filter(unknown) {
            let what = match (entry.key.as_str(), suggest(&entry.key, &self.known)) {
                ("<<", _) => "merge keys are not supported".to_owned(),
                (_, Some(key)) => format!("unknown key, did you mean `{key}`?"),
                (_, None) => "unknown key".to_owned(),
            };
            r.error(&self.at_key(entry), Wrong::new(what, format!("known here: {}", self.known.join(", "))));
        }
        #[cfg(test)]
        r.asked.extend(self.known.iter().map(|key| (join(&self.place.path, key), self.has(key))));
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn at_key(&self, entry: &Entry) -> Place {
        Place { at: entry.at, path: join(&self.place.path, &entry.key) }
    }

    fn at_value(&self, entry: &Entry) -> Place {
        Place { at: entry.value.at, ..self.at_key(entry) }
    }
}
