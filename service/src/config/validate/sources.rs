//! Rules of sources: names, tiers, hydration, and no secrets among the settings.

use std::net::IpAddr;

use axum::http::Uri;

use super::{Config, DAY, MILLISECOND, MINUTE, Rules, SECOND, check_url};
use crate::config::settings;
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
            settings::check(&source.settings, &key("settings"), &mut |path, error| {
                rules.refuse(path, error.to_string());
            });
            for (index, name) in source.allow_provider_ips.iter().enumerate() {
                rules.require(
                    !name.is_empty(),
                    format!("{}.{index}", key("allow_provider_ips")),
                    "name one of the provider's lists of addresses, such as \"live\"",
                );
            }
            if let Some(Err(message)) = source.key_origin.as_deref().map(check_origin) {
                rules.refuse(key("key_origin"), message);
            }
            let Some(hydrate) = &source.hydrate else {
                continue;
            };
            if let Some(url) = &hydrate.url {
                check_placeholders(rules, key("hydrate.url"), url);
            }
            if let Some(url) = &hydrate.base_url
                && let Err(message) = check_base_url(url)
            {
                rules.refuse(key("hydrate.base_url"), message);
            }
            let (id, secret) = (hydrate.client_id.is_some(), hydrate.client_secret.is_some());
            if id != secret {
                let missing = if id { "hydrate.client_secret" } else { "hydrate.client_id" };
                rules.refuse(key(missing), "client_id and client_secret belong together");
            }
            if let Some(span) = hydrate.not_found_for {
                rules.span(key("hydrate.not_found_for"), span, SECOND, 7 * DAY);
            }
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

/// Whether `url` is a scheme, a host and perhaps a port, and nothing more.
fn check_origin(url: &str) -> Result<(), &'static str> {
    check_url(url)?;
    let (_, authority) = url.split_once("://").unwrap_or_default();
    if authority.contains(['/', '?', '#']) {
        return Err("write scheme, host and port alone, such as \"http://10.0.0.5:3000\"");
    }
    Ok(())
}

/// Scheme, host and port alone, and encrypted unless it is this computer: a token goes there.
fn check_base_url(url: &str) -> Result<(), &'static str> {
    check_url(url)?;
    let uri: Uri = url.parse().map_err(|_| "this is not a URL")?;
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") || url.ends_with('/') {
        return Err("write scheme, host and port alone, such as \"https://api.example.com\"");
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if uri.scheme_str() != Some("https") && !loopback {
        return Err(
            "credentials are sent there, so it must begin with https:// unless it is this computer",
        );
    }
    Ok(())
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
