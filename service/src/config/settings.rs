//! References among a provider's own settings.
//!
//! Some settings are secrets (an API's authorization value) and some are long (a certificate), so any text
//! in the table may be a reference: `env:NAME` or `file:PATH`. The configuration keeps the reference, which
//! is what is printed; only who builds the source asks for what is behind it.
//!
//! * References are replaced within lists and tables too.
//! * A key that sounds like a secret must hold a reference, or a list of them.
//! * A text that begins like a reference but is none is a mistake, not a value.

use secrecy::ExposeSecret;
use serde_json::Value;

use super::secret::{SecretError, SecretRef, SecretRefError};

/// How the keys end whose values are secrets.
const SECRET_ENDINGS: [&str; 8] = [
    "secret",
    "secrets",
    "password",
    "token",
    "private_key",
    "api_key",
    "authorization",
    "basic_auth",
];

/// Replaces every reference in `value`. What cannot be read stays as it is and is added to `errors`;
/// `owner` says whose it is, with the key.
pub(super) fn resolve(value: &mut Value, owner: &str, errors: &mut Vec<SecretError>) {
    match value {
        Value::String(text) => {
            let Ok(reference) = text.parse::<SecretRef>() else {
                return;
            };
            match reference.resolve(owner) {
                Ok(secret) => secret.expose_secret().clone_into(text),
                Err(error) => errors.push(error),
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                resolve(item, &format!("{owner}.{index}"), errors);
            }
        }
        Value::Object(table) => {
            for (name, item) in table {
                resolve(item, &format!("{owner}.{name}"), errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Tells `refuse` the path and the reason of every text that must not stand in the configuration. The text
/// itself is not repeated.
pub(super) fn check(value: &Value, path: &str, refuse: &mut impl FnMut(String, SecretRefError)) {
    check_below(value, path, false, refuse);
}

fn check_below(
    value: &Value,
    path: &str,
    secret: bool,
    refuse: &mut impl FnMut(String, SecretRefError),
) {
    match value {
        Value::String(text) => match text.parse::<SecretRef>() {
            // No reference and not meant as one.
            Err(SecretRefError::Literal) if !secret => {}
            Err(error) => refuse(path.to_owned(), error),
            Ok(_) => {}
        },
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_below(item, &format!("{path}.{index}"), secret, refuse);
            }
        }
        Value::Object(table) => {
            for (name, item) in table {
                let name_in_lower_case = name.to_ascii_lowercase();
                let secret = SECRET_ENDINGS.iter().any(|end| name_in_lower_case.ends_with(end));
                check_below(item, &format!("{path}.{name}"), secret, refuse);
            }
        }
        // A number can be a password; written as one it would be printed.
        Value::Number(_) if secret => refuse(path.to_owned(), SecretRefError::Literal),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::config::{Config, SourceConfig};

    fn refused(settings: &Value) -> Vec<String> {
        let mut paths = Vec::new();
        check(settings, "settings", &mut |path, error| {
            assert!(!error.to_string().contains("topsecret"));
            paths.push(path);
        });
        paths
    }

    #[test]
    fn secrets_must_be_references_wherever_they_stand() {
        for (settings, path) in [
            (json!({ "authorization": "topsecret" }), "settings.authorization"),
            (json!({ "Basic_Auth": "u:topsecret" }), "settings.Basic_Auth"),
            (json!({ "client_secrets": ["env:A", "topsecret"] }), "settings.client_secrets.1"),
            (json!({ "deep": { "api_key": "topsecret" } }), "settings.deep.api_key"),
            (json!({ "list": [{ "token": "topsecret" }] }), "settings.list.0.token"),
            (json!({ "password": 12345 }), "settings.password"),
            (json!({ "certificate": "env:not-a-name" }), "settings.certificate"),
            (json!({ "certificate": "file:" }), "settings.certificate"),
        ] {
            assert_eq!(refused(&settings), [path]);
        }
        let sound = json!({
            "authorization": "env:A", "client_secrets": ["file:/x"], "header": "X-Token",
            "accept_unsigned": true, "topics": ["arn:aws:sns:eu-west-1:1:t"],
        });
        assert_eq!(refused(&sound), [""; 0]);
    }

    #[test]
    fn references_are_replaced_everywhere_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "line 1\nline 2\r\n\n").unwrap();
        let reference = format!("file:{}", path.display());
        let mut source = SourceConfig::new("shop", "paypal");
        source.settings = json!({
            "certificate": reference, "keys": ["plain", reference], "deep": { "pem": reference },
            "flag": true, "count": 3,
        });
        let resolved = source.resolve_settings().unwrap();
        let text = "line 1\nline 2";
        let wanted = json!({
            "certificate": text, "keys": ["plain", text], "deep": { "pem": text },
            "flag": true, "count": 3,
        });
        assert_eq!(resolved, wanted);
        // What is printed keeps the references.
        let config = Config { sources: vec![source], ..Config::default() };
        for shown in [
            config.to_toml_redacted().unwrap(),
            format!("{config:?}"),
            serde_json::to_string(&config).unwrap(),
        ] {
            assert!(shown.contains("key.pem") && !shown.contains("line 1"), "{shown}");
        }
        assert_eq!(config.check_secrets(), []);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_source_and_key() {
        let mut source = SourceConfig::new("shop", "paypal");
        source.settings = json!({ "a": ["x", "file:/no/such/file"], "b": "env:SLUICE_NO_SUCH" });
        let error = source.resolve_settings().unwrap_err().to_string();
        assert!(error.starts_with("source `shop`, settings.a.1: secret file:/no/such/"), "{error}");
        let config = Config { sources: vec![source], ..Config::default() };
        let errors = config.check_secrets();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].to_string().contains("settings.b: secret env:SLUICE_NO_SUCH"));
    }
}
