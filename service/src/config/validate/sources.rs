//! Rules of sources: names, tiers, hydration, and no secrets among the settings.

use super::{Config, DAY, MILLISECOND, MINUTE, Rules, SECOND, check_url};
use crate::config::secret::SecretRef;
use crate::config::units::format_duration;

impl Config {
    pub(super) fn source_values(&self, rules: &mut Rules) {
        for (index, source) in self.sources.iter().enumerate() {
            let key = |name: &str| format!("source.{index}.{name}");
            let legal = |c: char| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
            };
            let name = &source.name;
            rules.require(
                (1..=64).contains(&name.len())
                    && name.chars().all(legal)
                    && name.starts_with(|c: char| c.is_ascii_alphanumeric()),
                key("name"),
                "a source name has 1 to 64 characters of lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit",
            );
            rules.require(
                !source.provider.is_empty(),
                key("provider"),
                "name the provider, such as \"stripe\"",
            );
            if let Some(tolerance) = source.tolerance {
                rules.span(key("tolerance"), tolerance, SECOND, 7 * DAY);
            }
            if let Some(tenant) = &source.tenant {
                let legal = (1..=128).contains(&tenant.len()) && !tenant.contains(char::is_control);
                rules.require(
                    legal,
                    key("tenant"),
                    "a tenant has 1 to 128 bytes and no control characters",
                );
            }
            rules.require(source.settings.is_object(), key("settings"), "expected a table");
            refuse_secret_settings(rules, &key("settings"), &source.settings);
            let Some(hydrate) = &source.hydrate else {
                continue;
            };
            check_placeholders(rules, key("hydrate.url"), &hydrate.url);
            rules.span(key("hydrate.timeout"), hydrate.timeout, 10 * MILLISECOND, MINUTE);
            rules.range(key("hydrate.concurrency"), hydrate.concurrency, 1, 1_024);
            rules.range(key("hydrate.breaker_failures"), hydrate.breaker_failures, 1, 10_000);
            rules.span(key("hydrate.breaker_reset"), hydrate.breaker_reset, 10 * MILLISECOND, DAY);
        }
    }

    pub(super) fn source_relations(&self, rules: &mut Rules) {
        for (index, source) in self.sources.iter().enumerate() {
            if self.sources[..index].iter().any(|other| other.name == source.name) {
                rules.refuse(
                    format!("source.{index}.name"),
                    format!("there is another source `{}`; names are unique", source.name),
                );
            }
            let key = format!("source.{index}.retry");
            let tiers = source.retry.as_deref().unwrap_or_default();
            rules.require(
                tiers.is_sorted_by(|a, b| a < b),
                key.clone(),
                "each tier must be longer than the one before it",
            );
            if let Some(unknown) = tiers.iter().find(|tier| !self.retry.tiers.contains(tier)) {
                let known: Vec<String> =
                    self.retry.tiers.iter().copied().map(format_duration).collect();
                rules.refuse(
                    key,
                    format!(
                        "there is no tier {}; retry.tiers has {}",
                        format_duration(*unknown),
                        known.join(" ")
                    ),
                );
            }
        }
    }
}

/// A secret among a provider's settings would be printed with them.
fn refuse_secret_settings(rules: &mut Rules, path: &str, settings: &serde_json::Value) {
    let Some(table) = settings.as_object() else {
        return;
    };
    for (name, value) in table {
        let path = format!("{path}.{name}");
        let secret = ["secret", "secrets", "password", "token", "private_key", "api_key"]
            .iter()
            .any(|end| name.to_ascii_lowercase().ends_with(end));
        if secret && value.as_str().is_some_and(|text| text.parse::<SecretRef>().is_err()) {
            rules.refuse(
                path,
                "secrets do not belong among the settings; list them under the source's `secrets` as \"env:NAME\" or \"file:PATH\"",
            );
        } else {
            refuse_secret_settings(rules, &path, value);
        }
    }
}

fn check_placeholders(rules: &mut Rules, key: String, url: &str) {
    const KNOWN: [&str; 2] = ["object_id", "event_id"];
    let mut plain = String::new();
    let mut rest = url;
    let mut found = false;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return rules.refuse(key, "a `{` has no `}` after it");
        };
        if !KNOWN.contains(&name) {
            return rules.refuse(
                key,
                format!("unknown placeholder {{{name}}}; known are {{object_id}} and {{event_id}}"),
            );
        }
        found = true;
        plain.push_str(before);
        plain.push('x');
        rest = after;
    }
    plain.push_str(rest);
    if let Err(message) = check_url(&plain) {
        rules.refuse(key, message);
    } else if !found {
        rules.refuse(
            key,
            "the URL needs {object_id} or {event_id}, or every event fetches the same",
        );
    } else if url.split('/').nth(2).is_some_and(|authority| authority.contains('{')) {
        rules.refuse(key, "placeholders belong in the path or query, not in the host: an event must not choose where the token is sent");
    }
}
