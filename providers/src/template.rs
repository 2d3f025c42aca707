//! The text a generic HMAC is computed over, as a template: `{body}`, `v0:{ts}:{body}` …
//!
//! Placeholders: `{body}`, `{ts}` (the timestamp header), `{id}` (the ID header), `{header:NAME}`.
//! Values go in exactly as received.

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
