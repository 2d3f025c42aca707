//! The text a generic HMAC is computed over, as a template: `{body}`, `v0:{ts}:{body}` …
//!
//! Placeholders: `{body}`, `{ts}` (the timestamp header), `{id}` (the ID header), `{header:NAME}`.
//! Values go in exactly as received, and nothing in the text says where one ends. So that it is the text of one request
//! alone, a separator has to stand between values, and no value but the body may contain it: what stands before the body is
//! then read from the left, and what stands behind it from the right.

use http::HeaderName;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Segment>);

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Text that stands for itself.
    Literal(String),
    /// The body.
    Body,
    /// The value of the timestamp header.
    Timestamp,
    /// The value of the ID header.
    Id,
    /// The value of a named header.
    Header(HeaderName),
}

impl Template {
    /// Parses a template, or says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            if !literal.is_empty() {
                segments.push(Segment::Literal(literal.to_owned()));
            }
            let inner = tail.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = inner else {
                return Err(format!("is {text:?}, in which a brace has no partner"));
            };
            segments.push(Self::placeholder(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            segments.push(Segment::Literal(rest.to_owned()));
        }
        let template = Self(segments);
        if !template.has(&Segment::Body) {
            return Err(format!("is {text:?}, which leaves the body unsigned; add {{body}}"));
        }
        Ok(template)
    }

    fn placeholder(name: &str) -> Result<Segment, String> {
        match name {
            "body" => Ok(Segment::Body),
            "ts" => Ok(Segment::Timestamp),
            "id" => Ok(Segment::Id),
            _ => name
                .strip_prefix("header:")
                .and_then(|header| HeaderName::from_bytes(header.as_bytes()).ok())
                .map(Segment::Header)
                .ok_or_else(|| {
                    format!(
                        "has the unknown placeholder {{{name}}}; use {{body}}, {{ts}}, {{id}} or {{header:NAME}}"
                    )
                }),
        }
    }

    pub(crate) fn has(&self, segment: &Segment) -> bool {
        self.0.contains(segment)
    }

    /// Says what is wrong with a template whose text could be that of two requests.
    pub(crate) fn check_separators(&self) -> Result<(), String> {
        let values = self.0.iter().filter(|segment| !matches!(segment, Segment::Literal(_)));
        if values.filter(|segment| **segment == Segment::Body).count() > 1 {
            return Err("has {body} twice; one is enough to sign it".to_owned());
        }
        for pair in self.0.windows(2) {
            if pair.iter().all(|segment| !matches!(segment, Segment::Literal(_))) {
                return Err("has two values side by side: text can be moved from one to the other without a change of what is signed; put a separator between them, such as \".\", if the sender does so".to_owned());
            }
        }
        for (segment, separator) in self.with_separators() {
            let part_of_values = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if !matches!(segment, Segment::Literal(_)) && separator.is_some_and(part_of_values) {
                return Err("has a separator that a value may contain, so that text can be moved across it; use one such as \".\", \":\" or \"|\", if the sender does so".to_owned());
            }
        }
        Ok(())
    }

    /// The segments, and for each value but the body the byte that must not be in it: the one of the separator towards
    /// the body that would be met first.
    pub(crate) fn with_separators(&self) -> impl Iterator<Item = (&Segment, Option<u8>)> {
        let body = self.0.iter().position(|segment| *segment == Segment::Body).unwrap_or(0);
        self.0.iter().enumerate().map(move |(index, segment)| {
            let towards_body = match index.cmp(&body) {
                std::cmp::Ordering::Less => self.0.get(index + 1),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => self.0.get(index - 1),
            };
            let separator = match (segment, towards_body) {
                (Segment::Literal(_), _) => None,
                (_, Some(Segment::Literal(text))) if index < body => text.bytes().next(),
                (_, Some(Segment::Literal(text))) => text.bytes().next_back(),
                _ => None,
            };
            (segment, separator)
        })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn templates_parse() {
        let name = HeaderName::from_static("x-request-id");
        assert_eq!(
            Template::parse("v0:{ts}:{header:X-Request-Id}.{id}{body}!").unwrap().0,
            vec![
                Segment::Literal("v0:".to_owned()),
                Segment::Timestamp,
                Segment::Literal(":".to_owned()),
                Segment::Header(name),
                Segment::Literal(".".to_owned()),
                Segment::Id,
                Segment::Body,
                Segment::Literal("!".to_owned()),
            ]
        );
        for (bad, says) in [
            ("", "unsigned"),
            ("{ts}", "unsigned"),
            ("{body", "partner"),
            ("body}", "partner"),
            ("{bodi}{body}", "{bodi}"),
            ("{header:}{body}", "{header:}"),
            ("{header:a b}{body}", "placeholder"),
        ] {
            let error = Template::parse(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
