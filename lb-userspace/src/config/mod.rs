//! YAML → validated [`Model`], with everything that is wrong told at once.
//!
//! The way of a file, one step a module: [`load`] reads it, `locate` makes a tree in which every key and value has
//! its line and column, `validate` walks the tree with `read` and `values` and builds the model. A problem is noted
//! in the [`Report`] and the walk goes on, so one reading finds them all; a model is handed out only when there was
//! no error. Nothing after `load` does I/O or looks at the clock or the host: that an interface exists, say, is for
//! those to find out who use it.
//!
//! There is no serde mirror of the document: a derived one would stop at its first error and know no positions. The
//! schema is instead the keys that `validate` asks for, and a test holds `configs/full.yaml` against them.
//!
//! The schema is documented, key by key with its default, in `configs/full.yaml`.

mod file;
mod locate;
mod read;
mod report;
mod validate;
mod values;

pub use file::load;
pub use report::{Position, Problem, Report, Severity};

use crate::model::Model;
use read::{Item, Reader};

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    pub model: Model,
    /// What is probably not as it was meant; no errors among it.
    pub warnings: Report,
}

/// Validates the configuration in `text`; `name` is what the report calls the file.
///
/// # Errors
/// The report with every error found, and the warnings.
pub fn parse(name: &str, text: &str) -> Result<Valid, Report> {
    let (model, reader) = read(text);
    let report = Report::new(name, reader.problems);
    match model {
        Some(model) if report.errors() == 0 => Ok(Valid { model, warnings: report }),
        _ => Err(report),
    }
}

fn read(text: &str) -> (Option<Model>, Reader) {
    let mut reader = Reader::default();
    let tree = locate::tree(text, &mut reader.problems);
    let model = match &tree {
        Some(root) => validate::model(&Item::root(root), &mut reader),
        None => {
            if reader.problems.is_empty() {
                validate::empty(&mut reader);
            }
            None
        }
    };
    (model, reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const FULL: &str = include_str!("../../../configs/full.yaml");
    const MINIMAL: &str = include_str!("../../../configs/minimal.yaml");

    fn without_indexes(path: &str) -> String {
        path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
    }

    #[test]
    fn full_yaml_shows_every_key_there_is() {
        let mut shown = BTreeMap::new();
        for (path, present) in read(FULL).1.asked {
            *shown.entry(without_indexes(&path)).or_insert(false) |= present;
        }
        let missing: Vec<_> = shown.iter().filter(|(_, present)| !**present).map(|(path, _)| path).collect();
        assert!(missing.is_empty(), "configs/full.yaml does not show {missing:?}");
        assert!(shown.len() > 60, "only {} keys were asked for", shown.len());
    }

    #[test]
    fn the_general_part_of_full_yaml_spells_out_the_defaults() {
        let mut full = parse("full.yaml", FULL).unwrap().model;
        let minimal = parse("minimal.yaml", MINIMAL).unwrap().model;
        // What has no default, or is off by default, is shown in use.
        full.interfaces.clone_from(&minimal.interfaces);
        full.services.clone_from(&minimal.services);
        full.neighbours.clear();
        full.admission.deny.clear();
        full.admission.per_source = None;
        assert_eq!(full, minimal);
    }
}
