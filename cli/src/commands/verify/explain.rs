//! Why a request is rejected, in words: what an operator would try next, tried.
//!
//! Each hypothesis is one function. It changes one thing about the request or the configuration and asks
//! the real verifier; only what was proven that way is told, and the first proof ends the search. A
//! signature that is right but too old proves it as well.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sluice_providers::{PublishedKeys, Rejection, Request, Source, Verdict, known_providers};
use sluice_service::config::SourceConfig;

use super::{configuration, relayout, request};
use crate::{context::Context, context::build_source, request_file::SavedRequest};

/// A rejected request and everything needed to ask again.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) context: &'a Context,
    pub(super) config: &'a SourceConfig,
    pub(super) source: &'a Source,
    pub(super) saved: &'a SavedRequest,
    pub(super) keys: &'a dyn PublishedKeys,
    pub(super) now_ms: i64,
}

/// Something that often goes wrong. `None`: it is not what went wrong here.
type Hypothesis = fn(&Case<'_>) -> Option<String>;

const HYPOTHESES: &[Hypothesis] = &[
    line_ends,
    byte_order_mark,
    compressed_body,
    base64_body,
    rewritten_json,
    lost_query,
    request_id,
    joined_header,
    repeated_header,
    configuration::public_url,
    configuration::secret_of_another_source,
    configuration::form_of_the_secret,
    configuration::scheme_settings,
    another_provider,
];

impl Case<'_> {
    /// Whether `source` finds the signature of `request` right, be it too old or not.
    pub(super) fn is_right(&self, source: &Source, request: &Request<'_>) -> bool {
        let outcome = source.verify(request, self.keys, self.now_ms);
        matches!(outcome, Ok(_) | Err(Rejection::Stale { .. } | Rejection::FromFuture { .. }))
    }

    /// Whether the request as saved is right for a source configured otherwise. A configuration that its
    /// provider refuses is not.
    pub(super) fn is_right_for(&self, config: &SourceConfig) -> bool {
        build_source(config)
            .is_ok_and(|source| self.is_right(&source, &request(self.saved, &self.saved.body)))
    }

    fn with_body(&self, body: Vec<u8>) -> bool {
        body != self.saved.body
            && self.is_right(self.source, &request(self.saved, &Bytes::from(body)))
    }

    fn with_headers(&self, headers: &HeaderMap) -> bool {
        let saved = request(self.saved, &self.saved.body);
        self.is_right(self.source, &Request { headers, ..saved })
    }

    fn with_target(&self, url: &str) -> bool {
        self.is_right(self.source, &Request { url, ..request(self.saved, &self.saved.body) })
    }
}

/// What is known about a rejection, beyond its own text.
pub(super) fn explain(case: &Case<'_>, rejection: &Rejection) -> Vec<String> {
    let signed_at = |ms: i64| {
        let seconds = ms / 1000;
        vec![format!(
            "the signature itself is right; to judge the request by the time it was signed, pass --now {seconds}"
        )]
    };
    match rejection {
        Rejection::Stale { age_ms, .. } => return signed_at(case.now_ms.saturating_sub(*age_ms)),
        Rejection::FromFuture { ahead_ms, .. } => {
            return signed_at(case.now_ms.saturating_add(*ahead_ms));
        }
        Rejection::NeedsKey { url, outdated } => return vec![fetch_the_key(url, *outdated)],
        Rejection::BadKey(_) | Rejection::NotMeant(_) => return Vec::new(),
        _ => {}
    }
    let mut hints: Vec<String> =
        HYPOTHESES.iter().find_map(|tried| tried(case)).into_iter().collect();
    if matches!(rejection, Rejection::MissingHeader(_)) {
        let names: Vec<&str> = case.saved.headers.keys().map(http::HeaderName::as_str).collect();
        hints.push(format!("the file has these headers: {}", names.join(", ")));
    }
    hints
}

fn fetch_the_key(url: &str, outdated: bool) -> String {
    let why = if outdated {
        "what --key holds does not have the key this request was signed with"
    } else {
        "the provider signs with a key that it publishes, and this command contacts nobody"
    };
    let quoted = url.replace('\'', "'\\''");
    format!(
        "{why}; fetch it with `curl -fsS --proto =https -o provider.key '{quoted}'` and pass it with --key provider.key"
    )
}

/// The body as it may have been before an editor or a tool saved it.
fn line_ends(case: &Case<'_>) -> Option<String> {
    let found = line_end_variants(&case.saved.body).into_iter();
    let mut found = found.filter(|(body, _)| case.with_body(body.clone()));
    found.next().map(|(_, text)| text.to_owned())
}

fn line_end_variants(body: &Bytes) -> Vec<(Vec<u8>, &'static str)> {
    let trimmed = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
    let mut variants = Vec::new();
    if let Some(trimmed) = trimmed {
        variants.push((
            trimmed.to_vec(),
            "the signature is right without the line break at the end of the file: an editor added it",
        ));
    }
    let unix = replaced(body, b"\r\n", b"\n");
    if unix[..] != body[..] {
        variants.push((
            unix.clone(),
            "the signature is right with LF line ends in the body: they were changed to CRLF when it was saved",
        ));
    }
    let dos = replaced(&unix, b"\n", b"\r\n");
    if dos[..] != body[..] {
        variants.push((
            dos,
            "the signature is right with CRLF line ends in the body: they were changed to LF when it was saved",
        ));
    }
    variants
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(*byte);
            rest = &rest[1..];
        }
    }
    result
}

/// A byte order mark that a tool has put before the body, or taken away.
fn byte_order_mark(case: &Case<'_>) -> Option<String> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let body = &case.saved.body;
    if let Some(bare) = body.strip_prefix(MARK) {
        return case.with_body(bare.to_vec()).then(|| {
            "the signature is right without the byte order mark before the body: something on the way, or the tool that saved the file, added it".to_owned()
        });
    }
    case.with_body([MARK, body].concat()).then(|| {
        "the signature is right with a byte order mark (EF BB BF) before the body: something on the way, or the tool that saved the file, took it away".to_owned()
    })
}

/// A body that something on the way has compressed; no provider signs that.
fn compressed_body(case: &Case<'_>) -> Option<String> {
    let body = &case.saved.body;
    let name = match body[..] {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return None,
    };
    Some(format!(
        "the body is compressed ({name}), and what is signed is the text: switch compression of requests off at whatever stands before the gateway, or decompress the saved file"
    ))
}

/// A cloud function's gateway may hand bodies over in base64.
fn base64_body(case: &Case<'_>) -> Option<String> {
    let decoded = STANDARD.decode(case.saved.body.trim_ascii()).ok()?;
    case.with_body(decoded).then(|| {
        "the signature is right for the body decoded from base64: something on the way encoded it".to_owned()
    })
}

/// A body that was parsed and written again.
fn rewritten_json(case: &Case<'_>) -> Option<String> {
    let mut found = relayout::spellings(&case.saved.body);
    found.find(|(body, _)| case.with_body(body.clone())).map(|(_, how)| {
        format!(
            "the signature is right for the same JSON {how}: something on the way parsed the body and wrote it again; the bytes must be passed on as received"
        )
    })
}

/// A query that a rewrite rule dropped, where the body tells what it was (Mercado Pago signs it).
fn lost_query(case: &Case<'_>) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(&case.saved.body).ok()?;
    let id = match body.pointer("/data/id")? {
        serde_json::Value::String(text) => text.clone(),
        number @ serde_json::Value::Number(_) => number.to_string(),
        _ => return None,
    };
    // Anything else would need escapes, and could say something else about the query.
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return None;
    }
    let path = case.saved.target.split('?').next().unwrap_or_default();
    let query = format!("data.id={id}");
    case.with_target(&format!("{path}?{query}")).then(|| {
        format!(
            "the signature is right with the query `{query}`: it was lost or altered on the way (a rewrite rule?), and it is signed"
        )
    })
}

/// An `x-request-id` that a proxy wrote over or added (Mercado Pago signs it).
fn request_id(case: &Case<'_>) -> Option<String> {
    const NAME: &str = "x-request-id";
    let mut headers = case.saved.headers.clone();
    if headers.remove(NAME).is_some() && case.with_headers(&headers) {
        return Some(format!(
            "the signature is right without {NAME}: a proxy added one of its own; it must not, since this header is signed"
        ));
    }
    let others = case.saved.headers.iter().filter(|(name, _)| *name != NAME);
    for (name, value) in others {
        headers.insert(NAME, value.clone());
        if case.with_headers(&headers) {
            return Some(format!(
                "the signature is right with the {NAME} that header {name} holds: a proxy wrote over {NAME}; it must pass it on untouched, since it is signed"
            ));
        }
    }
    None
}

/// Several lines of one header that a proxy made one line of.
fn joined_header(case: &Case<'_>) -> Option<String> {
    for (name, value) in &case.saved.headers {
        let joined = value.as_bytes();
        for separator in [&b", "[..], b","] {
            let parts = split(joined, separator);
            if parts.len() < 2 {
                continue;
            }
            let mut headers = case.saved.headers.clone();
            headers.remove(name);
            for part in &parts {
                headers.append(name, HeaderValue::from_bytes(part).ok()?);
            }
            let apart = case.with_headers(&headers);
            let alone = !apart
                && parts.iter().any(|part| {
                    HeaderValue::from_bytes(part).is_ok_and(|part| {
                        headers.insert(name, part);
                        case.with_headers(&headers)
                    })
                });
            if apart || alone {
                return Some(format!(
                    "the signature is right when header {name} is split at its commas: a proxy joined several lines of it into one"
                ));
            }
        }
    }
    None
}

fn split<'a>(mut value: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = value.windows(separator.len()).position(|here| here == separator) {
        parts.push(&value[..at]);
        value = &value[at + separator.len()..];
    }
    parts.push(value);
    parts
}

/// A header that something on the way added a second time, with another value.
fn repeated_header(case: &Case<'_>) -> Option<String> {
    for name in case.saved.headers.keys() {
        let values: Vec<_> = case.saved.headers.get_all(name).iter().collect();
        if values.len() < 2 {
            continue;
        }
        for (number, value) in values.iter().enumerate() {
            let mut headers = case.saved.headers.clone();
            headers.insert(name, (*value).clone());
            if case.with_headers(&headers) {
                let (number, count) = (number + 1, values.len());
                return Some(format!(
                    "the signature is right with line {number} of the {count} lines of header {name} alone: something on the way added the others"
                ));
            }
        }
    }
    None
}

/// A source set up for the wrong provider.
fn another_provider(case: &Case<'_>) -> Option<String> {
    let others = known_providers().iter().filter(|info| info.name != case.config.provider);
    for info in others {
        let mut config = case.config.clone();
        config.provider = info.name.to_owned();
        if !case.is_right_for(&config) {
            config.settings = serde_json::json!({});
            if !case.is_right_for(&config) {
                continue;
            }
        }
        return Some(format!(
            "the signature is right by the rules of {title}: the source should say provider = \"{name}\"",
            title = info.title,
            name = info.name,
        ));
    }
    None
}

/// What a verdict is worth saying about its key.
pub(super) fn scheme_and_key(verdict: &Verdict) -> String {
    match &*verdict.secret_label {
        "unsigned" => format!("it is not signed, as this source allows ({})", verdict.scheme),
        label if label.contains("://") => {
            format!("the signature ({}) was made with the key published at {label}", verdict.scheme)
        }
        label => format!("the signature ({}) was made with secret {label}", verdict.scheme),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_replaced_everywhere() {
        assert_eq!(replaced(b"a\r\nb\r\n", b"\r\n", b"\n"), b"a\nb\n");
        assert_eq!(replaced(b"\n\n", b"\n", b"\r\n"), b"\r\n\r\n");
        assert_eq!(replaced(b"a\r", b"\r\n", b"\n"), b"a\r");
    }

    #[test]
    fn only_variants_that_differ_are_tried() {
        assert!(line_end_variants(&Bytes::from_static(b"{}")).is_empty());
        assert_eq!(line_end_variants(&Bytes::from_static(b"{}\n")).len(), 2);
        assert_eq!(line_end_variants(&Bytes::from_static(b"{\r\n}")).len(), 1);
    }

    #[test]
    fn values_are_split_at_every_separator() {
        assert_eq!(split(b"a, b, c", b", "), [&b"a"[..], b"b", b"c"]);
        assert_eq!(split(b"a", b","), [&b"a"[..]]);
    }

    #[test]
    fn the_command_that_fetches_a_key_is_one_word_for_the_shell() {
        let text = fetch_the_key("https://keys.example/a'b", false);
        assert!(text.contains(r"'https://keys.example/a'\''b'"), "{text}");
        assert!(fetch_the_key("https://keys.example/a", true).contains("--key holds"));
    }
}
