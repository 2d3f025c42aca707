//! Hypotheses about the configuration: another URL, another secret, other settings.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sluice_providers::{Secret, SourceSpec, build, known_providers};
use sluice_service::config::SourceConfig;

use super::{explain::Case, request};
use crate::request_file::SavedRequest;

/// The setting that holds the URL a provider signs.
const PUBLIC_URL: &str = "public_url";

/// A signed URL that is written otherwise in the provider's dashboard than here.
pub(super) fn public_url(case: &Case<'_>) -> Option<String> {
    let configured = case.config.settings.get(PUBLIC_URL)?.as_str()?;
    for candidate in url_spellings(configured, case.saved) {
        let mut config = case.config.clone();
        config.settings[PUBLIC_URL] = candidate.clone().into();
        if case.is_right_for(&config) {
            return Some(format!(
                "the signature is right for the URL {candidate} ({}); the provider was given that one, so write it into settings.{PUBLIC_URL}, where now {configured} stands",
                difference(configured, &candidate)
            ));
        }
    }
    None
}

/// A URL in the parts that people write differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Url<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    /// Without a slash at its end.
    path: &'a str,
    slash: bool,
    query: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let rest = rest.split('#').next().unwrap_or(rest);
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority);
        let slash = path.ends_with('/');
        Some(Self {
            scheme,
            host,
            port,
            path: path.strip_suffix('/').unwrap_or(path),
            slash,
            query,
        })
    }
}

impl std::fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.path)?;
        if self.slash {
            f.write_str("/")?;
        }
        self.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Other spellings of a URL, the nearest first: scheme, port, slash, then host and path as requested.
fn url_spellings(configured: &str, saved: &SavedRequest) -> Vec<String> {
    let Some(url) = Url::parse(configured) else {
        return Vec::new();
    };
    let header = |name: &str| saved.headers.get(name).and_then(|value| value.to_str().ok());
    let mut authorities = vec![(url.host, url.port)];
    let seen = [header("host"), header("x-forwarded-host"), header("x-original-host")];
    authorities.extend(seen.into_iter().flatten().map(|text| split_port(text.trim())));
    let (saved_path, saved_query) = match saved.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (saved.target.as_str(), None),
    };
    let saved_path = saved_path.strip_suffix('/').unwrap_or(saved_path);
    let mut spellings: Vec<String> = Vec::new();
    for path in [url.path, saved_path] {
        for query in [url.query, None, saved_query] {
            for (host, port) in &authorities {
                for (scheme, standard) in [("https", "443"), ("http", "80")] {
                    for port in [*port, None, Some(standard)] {
                        for slash in [url.slash, !url.slash] {
                            let spelling =
                                Url { scheme, host, port, path, slash, query }.to_string();
                            if spelling != configured && !spellings.contains(&spelling) {
                                spellings.push(spelling);
                            }
                        }
                    }
                }
            }
        }
    }
    spellings
}

/// In what two URLs differ, in words.
fn difference(configured: &str, right: &str) -> String {
    let (Some(old), Some(new)) = (Url::parse(configured), Url::parse(right)) else {
        return "another one".to_owned();
    };
    let mut words = Vec::new();
    if old.scheme != new.scheme {
        words.push(format!("{}, not {}", new.scheme, old.scheme));
    }
    if old.host != new.host {
        words.push("another host".to_owned());
    }
    if old.port != new.port {
        words.push(match new.port {
            Some(port) => format!("with port {port}"),
            None => "without a port".to_owned(),
        });
    }
    if old.path != new.path {
        words.push("another path".to_owned());
    }
    if old.slash != new.slash {
        words.push(
            if new.slash { "with a slash at its end" } else { "without a slash at its end" }
                .to_owned(),
        );
    }
    if old.query != new.query {
        words.push(
            if new.query.is_some() { "with the query" } else { "without a query" }.to_owned(),
        );
    }
    words.join("; ")
}

/// Secrets of two endpoints that were exchanged: test and live, an old one and a new one.
pub(super) fn secret_of_another_source(case: &Case<'_>) -> Option<String> {
    let others = case.context.config.sources.iter();
    let mut others =
        others.filter(|other| other.name != case.config.name && !other.secrets.is_empty());
    others
        .find(|other| {
            let secrets = other.secrets.clone();
            case.is_right_for(&SourceConfig { secrets, ..case.config.clone() })
        })
        .map(|other| {
            format!(
                "the signature is right with the secret of source `{}`: the two were exchanged, or the provider sends to the wrong one of the two endpoints",
                other.name
            )
        })
}

/// A secret written otherwise; `None` where it cannot be.
type Form = fn(&str) -> Option<String>;

/// What people do to a secret on its way into a file.
const FORMS: &[(Form, &str)] = &[
    (
        |text| Some(text.strip_prefix(['"', '\''])?.strip_suffix(['"', '\''])?.to_owned()),
        "without the quotes around it",
    ),
    (|text| Some(text.trim().to_owned()), "without white space around it"),
    (|text| Some(format!("whsec_{text}")), "with whsec_ before it: the prefix is part of it"),
    (|text| text.strip_prefix("whsec_").map(str::to_owned), "without whsec_ before it"),
    (
        |text| String::from_utf8(STANDARD.decode(text).ok()?).ok(),
        "decoded from base64: it was encoded for storage and not decoded again",
    ),
    (|text| Some(STANDARD.encode(text)), "encoded in base64: it was decoded once too often"),
    (|text| Some(text.to_ascii_lowercase()), "in lower case"),
    (|text| Some(text.to_ascii_uppercase()), "in upper case"),
];

/// A secret of the right kind that was altered when it was stored.
pub(super) fn form_of_the_secret(case: &Case<'_>) -> Option<String> {
    let secrets = case.config.resolve_secrets().ok()?;
    for (reference, value) in secrets {
        let written = value.expose_secret();
        for (form, words) in FORMS {
            let Some(formed) = form(written).filter(|formed| formed != written) else {
                continue;
            };
            let source = build(SourceSpec {
                name: &case.config.name,
                provider: &case.config.provider,
                secrets: vec![Secret::new(reference.to_string(), formed)],
                tolerance: case.config.tolerance,
                settings: &case.config.settings,
            });
            let right = source
                .is_ok_and(|source| case.is_right(&source, &request(case.saved, &case.saved.body)));
            if right {
                return Some(format!("the signature is right with secret {reference} {words}"));
            }
        }
    }
    None
}

/// Settings of a scheme described by settings, and their values, written most usual first.
const SCHEME_SETTINGS: [(&str, &[&str]); 4] = [
    ("algorithm", &["sha256", "sha1", "sha512"]),
    ("encoding", &["hex", "base64"]),
    ("secret_encoding", &["text", "hex", "base64"]),
    ("prefix", &["", "sha256=", "sha1=", "sha512=", "v1="]),
];

/// A scheme described by settings, with some of them wrong.
pub(super) fn scheme_settings(case: &Case<'_>) -> Option<String> {
    let info = known_providers().iter().find(|info| info.name == case.config.provider)?;
    let has = |key: &str| info.settings.iter().any(|setting| setting.name == key);
    if !SCHEME_SETTINGS.iter().all(|(key, _)| has(key)) {
        return None;
    }
    // All combinations: a source that is new may have several wrong.
    let mut combinations: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for (key, values) in SCHEME_SETTINGS {
        let longer = combinations.iter().flat_map(|combination| {
            values.iter().map(move |value| [&combination[..], &[(key, *value)]].concat())
        });
        combinations = longer.collect();
    }
    for combination in combinations {
        let mut config = case.config.clone();
        if !config.settings.is_object() {
            config.settings = json!({});
        }
        let mut changed = Vec::new();
        for (key, value) in combination {
            let default = SCHEME_SETTINGS
                .iter()
                .find(|(name, _)| *name == key)
                .and_then(|(_, values)| values.first());
            let now = config.settings.get(key).and_then(Value::as_str).or(default.copied());
            if now != Some(value) {
                changed.push(format!("{key} = {value:?}"));
                config.settings[key] = value.into();
            }
        }
        if !changed.is_empty() && case.is_right_for(&config) {
            return Some(format!(
                "the signature is right with these settings of the source: {}",
                changed.join(", ")
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::request_file::parse;

    #[test]
    fn a_url_is_written_as_it_was_read() {
        for text in [
            "https://pay.example/hook",
            "http://pay.example:8080/a/b/?x=1",
            "https://pay.example",
            "https://[::1]:80/",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse("pay.example/hook"), None);
    }

    #[test]
    fn the_spellings_hold_what_people_confuse_and_not_the_configured_one() {
        let saved = parse(b"POST /hooks/sq?a=1 HTTP/1.1\nHost: seen.example:8443\n\n").unwrap();
        let configured = "https://pay.example/hook";
        let spellings = url_spellings(configured, &saved);
        for wanted in [
            "http://pay.example/hook",
            "https://pay.example/hook/",
            "https://pay.example:443/hook",
            "https://seen.example:8443/hook",
            "https://seen.example/hooks/sq",
            "https://pay.example/hook?a=1",
        ] {
            assert!(spellings.iter().any(|spelling| spelling == wanted), "{wanted}");
        }
        assert!(spellings.iter().all(|spelling| spelling != configured));
        assert!(spellings.len() < 400, "{}", spellings.len());
        assert!(url_spellings("nonsense", &saved).is_empty());
        assert_eq!(
            difference(configured, "http://pay.example/hook/"),
            "http, not https; with a slash at its end"
        );
        assert_eq!(
            difference(configured, "https://other.example:1/x"),
            "another host; with port 1; another path"
        );
    }
}
