//! The line of every key in a TOML text, so that an error can name it.
//!
//! The TOML is read a second time into nothing but positions: values are visited and dropped, keys keep the
//! byte offset that the parser reports for them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// Dotted key (`source.0.name`) to line, counted from 1.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Positions of every key of `text`; empty when it is not TOML (the error is reported elsewhere).
    pub(super) fn of(text: &str) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(tree) = toml::from_str::<Node>(text) {
            tree.collect("", text, &mut lines);
        }
        Self(lines)
    }

    /// Whether the text itself has this key.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The line of `key`, else of the nearest thing around it.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}

/// The line that the byte at `offset` stands in, counted from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

enum Node {
    Table(Vec<(Spanned<String>, Node)>),
    List(Vec<Spanned<Node>>),
    Leaf,
}

impl Node {
    fn collect(&self, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
        let join = |name: &str| match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        match self {
            Self::Table(entries) => {
                for (key, value) in entries {
                    let path = join(key.get_ref());
                    let line = line_at(text, key.span().start);
                    lines.entry(path.clone()).or_insert(line);
                    value.collect(&path, text, lines);
                }
            }
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = join(&index.to_string());
                    lines.insert(path.clone(), line_at(text, item.span().start));
                    item.get_ref().collect(&path, text, lines);
                }
            }
            Self::Leaf => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("TOML")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Table(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                inner: D,
            ) -> Result<Node, D::Error> {
                IgnoredAny::deserialize(inner).map(|_| Node::Leaf)
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line_and_the_rest_the_line_around_it() {
        let text = "[kafka]\nproperties.security.protocol = 1\n\n[[source]]\nname = \"a\"\n\n[[source]]\nname = \"b\"\nsecrets = [\n  \"x\",\n  \"y\",\n]\n";
        let lines = Lines::of(text);
        assert_eq!(lines.line("kafka"), Some(1));
        assert_eq!(lines.line("kafka.properties.security.protocol"), Some(2));
        assert_eq!(lines.line("source.0.name"), Some(5));
        assert_eq!(lines.line("source.1.name"), Some(8));
        assert_eq!(lines.line("source.1.secrets.1"), Some(11));
        assert_eq!(lines.line("source.1.provider"), Some(7));
        assert_eq!(lines.line("gateway.listen"), None);
    }
}
