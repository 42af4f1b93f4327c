//! Where something stands in a config file: for problems that only show beside the cluster that runs.

use std::path::Path;

use ringfort_ring::NodeId;
use toml::de::{DeTable, DeValue};

use super::read::{Problem, line_of};
use super::{ConfigError, read_text};

/// A place in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A key of `[cluster]`.
    Cluster(&'static str),
    /// A key of the `[[node]]` of this id.
    Node(NodeId, &'static str),
}

impl ConfigError {
    /// Problems of the file at `path`, each with its line: that of the key; of its section when the file leaves the key
    /// to its default; none when the section is not there either.
    pub fn at(path: &Path, problems: impl IntoIterator<Item = (Place, String)>) -> Self {
        let file = path.display().to_string();
        let text = read_text(path).unwrap_or_default();
        let (mut placed, mut lines) = (Vec::new(), Vec::new());
        for (place, problem) in problems {
            match line(&text, &place) {
                Some(line) => placed.push(Problem { line, text: problem }),
                None => lines.push(format!("{file}: {problem}")),
            }
        }
        lines.splice(0..0, Self::new(&file, placed).lines);
        Self { lines }
    }
}

fn line(text: &str, place: &Place) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let find = |table: &DeTable<'_>, name: &str| {
        let (_, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(line_of(text, value.span().start))
    };
    let section = |name: &str| root.get_ref().iter().find(|(key, _)| key.get_ref() == name);
    match place {
        Place::File => None,
        Place::Cluster(key) => {
            let (name, value) = section("cluster")?;
            let key = value.get_ref().as_table().and_then(|table| find(table, key));
            key.or_else(|| Some(line_of(text, name.span().start)))
        }
        Place::Node(id, key) => {
            let (_, list) = section("node")?;
            let DeValue::Array(list) = list.get_ref() else { return None };
            let node = list.iter().find_map(|node| {
                let table = node.get_ref().as_table()?;
                let has_id = |value: &DeValue<'_>| value.as_str() == Some(id.0.as_str());
                let is_it = table.iter().any(|(key, value)| key.get_ref() == "id" && has_id(value.get_ref()));
                is_it.then_some(table)
            })?;
            find(node, key).or_else(|| find(node, "id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_line_of_its_key_or_of_its_section() {
        let text = "[cluster]\nname = \"a\"\n\n[[node]]\nid = \"n1\"\n[[node]]\nweight = 2\nid = \"n2\"\n";
        let node = |id: &str, key| Place::Node(NodeId(id.to_owned()), key);
        for (place, expected) in [
            (Place::Cluster("name"), Some(2)),
            (Place::Cluster("partitions"), Some(1)),
            (node("n2", "weight"), Some(7)),
            (node("n2", "zone"), Some(8)),
            (node("n9", "zone"), None),
            (Place::File, None),
        ] {
            assert_eq!(line(text, &place), expected, "{place:?}");
        }
        let nowhere = [(Place::File, "b".to_owned()), (Place::Cluster("name"), "a".to_owned())];
        let error = ConfigError::at(Path::new("no/such.toml"), nowhere);
        assert_eq!(error.lines(), ["no/such.toml: b", "no/such.toml: a"]);
    }
}
