//! Routing rules: further topics that matching events are written to, in the same transaction.

use sluice_schemas::ProcessedEvent;
use std::sync::Arc;

/// One rule. An empty list matches everything.
#[derive(Debug, Clone)]
pub struct Route {
    /// Topic written to.
    pub topic: Arc<str>,
    /// Source names.
    pub sources: Vec<String>,
    /// Provider names.
    pub providers: Vec<String>,
    /// Patterns of canonical types; `*` stands for any text.
    pub types: Vec<String>,
}

impl Route {
    /// Whether the rule applies to an event.
    pub fn matches(&self, event: &ProcessedEvent) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|l| l == value);
        any(&self.sources, &event.source)
            && any(&self.providers, &event.provider)
            && (self.types.is_empty()
                || self.types.iter().any(|pattern| glob(pattern, &event.kind)))
    }
}

/// `*` matches any text, everything else itself. Linear in the length of both: the first part must
/// begin the text, the last must end it, those between are found leftmost.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("payment.*", "payment.succeeded", true),
            ("payment.*", "payments.succeeded", false),
            ("*", "anything", true),
            ("*.failed", "payment.failed", true),
            ("*.failed", "payment.failed.x", false),
            ("payment.succeeded", "payment.succeeded", true),
            ("payment.succeeded", "payment.succeeded2", false),
            ("p*t.*d", "payment.failed", true),
            ("aa*aa", "aaa", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
