//! The configured sources, built once at start: secrets read, key material parsed, limits in place.
//!
//! A mistake in any source ends the start; no request ever finds one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use governor::clock::DefaultClock;
use ipnet::IpNet;
use sluice_providers::{Secret, SourceSpec};
use sluice_service::config::{Config, PartitionBy, RateLimit, SourceConfig};

use crate::limits::{self, Limiter};

/// One endpoint, ready for requests.
#[derive(Debug)]
pub(crate) struct Source {
    /// Name, as in the URL; shared with metric labels.
    pub(crate) name: Arc<str>,
    /// What knows its provider's rules and holds its keys.
    pub(crate) provider: sluice_providers::Source,
    /// Tenant of events that name none.
    pub(crate) tenant: Option<String>,
    /// What decides the record key.
    pub(crate) partition_by: PartitionBy,
    allow: Vec<IpNet>,
    limiter: Option<Limiter>,
}

impl Source {
    fn build(config: &SourceConfig, default_rate: Option<RateLimit>) -> anyhow::Result<Self> {
        let secrets = config
            .resolve_secrets()?
            .into_iter()
            .map(|(reference, value)| Secret::new(reference.to_string(), value))
            .collect();
        let provider = sluice_providers::build(SourceSpec {
            name: &config.name,
            provider: &config.provider,
            secrets,
            tolerance: config.tolerance,
            settings: &config.settings,
        })?;
        let rate = config.rate_limit.or(default_rate);
        Ok(Self {
            name: Arc::from(config.name.as_str()),
            provider,
            tenant: config.tenant.clone(),
            partition_by: config.partition_by,
            allow: config.allow_ips.clone(),
            limiter: rate.map(|rate| Limiter::new(rate, DefaultClock::default())),
        })
    }

    /// Whether this address may send; an empty list allows any.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || limits::contains(&self.allow, address)
    }

    /// Takes one request from the source's allowance, or says after what time one would be there.
    pub(crate) fn check_rate(&self) -> Result<(), Duration> {
        self.limiter.as_ref().map_or(Ok(()), Limiter::check)
    }
}

/// All sources by name.
#[derive(Debug)]
pub(crate) struct Sources(HashMap<Arc<str>, Arc<Source>>);

impl Sources {
    /// Builds every configured source.
    pub(crate) fn build(config: &Config) -> anyhow::Result<Self> {
        let mut sources = HashMap::with_capacity(config.sources.len());
        for source in &config.sources {
            let built = Source::build(source, config.gateway.rate_limit)
                .context("the gateway cannot start")?;
            sources.insert(Arc::clone(&built.name), Arc::new(built));
        }
        Ok(Self(sources))
    }

    /// The source of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Source>> {
        self.0.get(name)
    }

    /// Number of sources.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use sluice_service::config::SecretRef;

    fn config(secret_file: &std::path::Path) -> Config {
        let mut source = SourceConfig::new("shop", "stripe");
        source.secrets = vec![SecretRef::File(secret_file.to_owned())];
        source.allow_ips = vec!["192.0.2.0/24".parse().unwrap()];
        source.rate_limit = Some("1/h".parse().unwrap());
        Config { sources: vec![source], ..Config::default() }
    }

    #[test]
    fn a_source_is_found_by_name_with_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "whsec_topsecret\n").unwrap();
        let sources = Sources::build(&config(&path)).unwrap();
        let source = sources.get("shop").unwrap();
        assert!(sources.get("shop2").is_none());
        assert!(source.allows("192.0.2.7".parse().unwrap()));
        assert!(!source.allows("198.51.100.7".parse().unwrap()));
        assert!(source.check_rate().is_ok());
        assert!(source.check_rate().is_err());
        assert!(!format!("{sources:?}").contains("topsecret"));
    }

    #[test]
    fn a_missing_secret_ends_the_start_naming_source_and_reference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent");
        let error = Sources::build(&config(&path)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("shop"), "{text}");
        assert!(text.contains("absent"), "{text}");
    }

    #[test]
    fn an_unknown_provider_ends_the_start() {
        let sources = vec![SourceConfig::new("shop", "strype")];
        let config = Config { sources, ..Config::default() };
        let text = format!("{:#}", Sources::build(&config).unwrap_err());
        assert!(text.contains("strype") && text.contains("stripe"), "{text}");
    }
}
