//! The configured sources, built once at start: secrets read, key material parsed, limits in place.
//!
//! A mistake in any source ends the start; no request ever finds one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use governor::clock::DefaultClock;
use ipnet::IpNet;
use sluice_providers::{AddressList, Secret, SourceSpec};
use sluice_service::config::{
    Config, Environment, HydrateConfig, PartitionBy, RateLimit, SourceConfig,
};

use crate::keys::{Asker, Budget};
use crate::limits::{self, Limiter};
use crate::outbound::Origin;

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
    /// Where published keys and confirmation links are fetched instead of from the provider.
    pub(crate) key_origin: Option<Origin>,
    key_budget: Budget,
    allow: Vec<IpNet>,
    limiter: Option<Limiter>,
    unverified: Option<Limiter>,
}

impl Source {
    /// Builds one; every mistake in its configuration is found here.
    pub(crate) fn build(
        config: &SourceConfig,
        default_rate: Option<RateLimit>,
    ) -> anyhow::Result<Self> {
        let secrets = config
            .resolve_secrets()?
            .into_iter()
            .map(|(reference, value)| Secret::new(reference.to_string(), value))
            .collect();
        let settings = config.resolve_settings()?;
        let keys = config.hydrate.as_ref().map(HydrateConfig::keys);
        let environment = config.hydrate.as_ref().and_then(|hydrate| hydrate.environment);
        let test = environment == Some(Environment::Test);
        sluice_providers::check_fetching(
            &config.name,
            &config.provider,
            &config.settings,
            keys.as_deref(),
            test,
        )?;
        let provider = sluice_providers::build(SourceSpec {
            name: &config.name,
            provider: &config.provider,
            secrets,
            tolerance: config.tolerance,
            settings: &settings,
        })?;
        let rate = config.rate_limit.or(default_rate);
        let mut allow = config.allow_ips.clone();
        let info = provider.info();
        allow.extend(provider_networks(config, info.title, info.addresses)?);
        let key_origin = config.key_origin.as_deref().map(Origin::parse).transpose();
        let key_origin = key_origin
            .map_err(|problem| anyhow::anyhow!("source {:?}: key_origin {problem}", config.name))?;
        Ok(Self {
            name: Arc::from(config.name.as_str()),
            provider,
            tenant: config.tenant.clone(),
            partition_by: config.partition_by,
            key_origin,
            key_budget: Budget::new(),
            allow,
            limiter: rate.map(|rate| Limiter::new(rate, DefaultClock::default())),
            unverified: rate.map(|rate| Limiter::new(rate, DefaultClock::default())),
        })
    }

    /// For whom published keys are fetched when this source needs them.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker {
            origin: self.key_origin.as_ref(),
            budget: &self.key_budget,
            fixed_url: self.provider.fixed_key_url(),
        }
    }

    /// Whether this address may send; an empty list allows any.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || limits::contains(&self.allow, address)
    }

    /// Takes one refusal from the allowance of what is not verified, which is as large as the source's and apart from it:
    /// who has no secret cannot use up what those who have one need.
    pub(crate) fn check_unverified_rate(&self) -> Result<(), Duration> {
        self.unverified.as_ref().map_or(Ok(()), Limiter::check)
    }

    /// Takes one verified request from the source's allowance, or says after what time one would be there.
    pub(crate) fn check_rate(&self) -> Result<(), Duration> {
        self.limiter.as_ref().map_or(Ok(()), Limiter::check)
    }
}

/// The networks of the lists that `allow_provider_ips` of a source names.
///
/// # Errors
/// A name that is none of the provider's lists; the text says which it has.
fn provider_networks(
    config: &SourceConfig,
    title: &str,
    published: &[AddressList],
) -> anyhow::Result<Vec<IpNet>> {
    let mut networks = Vec::new();
    for name in &config.allow_provider_ips {
        let lists = published.iter().filter(|list| list.name == name);
        let before = networks.len();
        for text in lists.flat_map(|list| list.networks) {
            networks.push(
                network(text)
                    .with_context(|| format!("the list {name:?} of {title} holds {text:?}"))?,
            );
        }
        if networks.len() > before {
            continue;
        }
        let known: Vec<&str> = published.iter().map(|list| list.name).collect();
        let problem = if known.is_empty() {
            format!(
                "{title} publishes no dependable list of addresses; write the networks into allow_ips"
            )
        } else {
            format!("{title} has no list of this name; its lists: {}", known.join(", "))
        };
        bail!("source {:?}: allow_provider_ips has {name:?}: {problem}", config.name);
    }
    Ok(networks)
}

/// A network, or an address as the network of it alone.
fn network(text: &str) -> anyhow::Result<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    Ok(address.or_else(|_| text.parse::<IpNet>())?)
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

    /// Whether events of any source have moved since an earlier release.
    pub(crate) fn any_has_moved(&self) -> bool {
        self.0.values().any(|source| source.provider.has_moved())
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

    #[test]
    fn the_providers_lists_are_known_by_name() {
        let list = |name, networks| AddressList { name, url: "", as_of: "", networks };
        let lists = [
            list("live", &["192.0.2.7", "198.51.100.0/24", "2001:db8::/32"]),
            list("test", &["203.0.113.9"]),
        ];
        let with = |names: &[&str]| {
            let mut config = SourceConfig::new("shop", "example");
            config.allow_provider_ips = names.iter().map(|&name| name.to_owned()).collect();
            config
        };
        let allowed = |names: &[&str], address: &str| {
            let networks = provider_networks(&with(names), "Example", &lists).unwrap();
            limits::contains(&networks, address.parse().unwrap())
        };
        for address in ["192.0.2.7", "198.51.100.200", "2001:db8::1"] {
            assert!(allowed(&["live"], address), "{address}");
            assert!(!allowed(&["test"], address), "{address}");
        }
        assert!(!allowed(&["live"], "192.0.2.8"));
        assert!(allowed(&["live", "test"], "203.0.113.9"));
        let refused = |lists: &[AddressList]| {
            provider_networks(&with(&["live", "prod"]), "Example", lists).unwrap_err().to_string()
        };
        let text = refused(&lists);
        assert!(text.contains("\"prod\"") && text.contains("its lists: live, test"), "{text}");
        assert!(refused(&[]).contains("Example publishes no dependable list"));
    }

    #[test]
    fn the_lists_of_every_provider_can_be_read() {
        for info in sluice_providers::known_providers() {
            let mut config = SourceConfig::new("shop", info.name);
            config.allow_provider_ips =
                info.addresses.iter().map(|list| list.name.to_owned()).collect();
            let networks = provider_networks(&config, info.title, info.addresses).unwrap();
            assert_eq!(networks.is_empty(), info.addresses.is_empty(), "{}", info.name);
        }
    }

    #[test]
    fn an_unknown_list_or_origin_ends_the_start_naming_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "whsec_topsecret\n").unwrap();
        assert!(Sources::build(&config(&path)).is_ok());
        let mut unknown = config(&path);
        unknown.sources[0].allow_provider_ips = vec!["moon".to_owned()];
        let text = format!("{:#}", Sources::build(&unknown).unwrap_err());
        assert!(text.contains("shop") && text.contains("moon"), "{text}");
        assert!(crate::check_source(&unknown.sources[0]).is_err());
        assert!(crate::check_source(&config(&path).sources[0]).is_ok());
        let mut origin = config(&path);
        origin.sources[0].key_origin = Some("http://h/x".to_owned());
        let text = format!("{:#}", Sources::build(&origin).unwrap_err());
        assert!(text.contains("shop") && text.contains("key_origin"), "{text}");
        let mut settings = config(&path);
        settings.sources[0].settings = serde_json::json!({ "x": "file:/no/such/file" });
        let text = format!("{:#}", Sources::build(&settings).unwrap_err());
        assert!(text.contains("settings.x") && text.contains("/no/such/file"), "{text}");
    }
}
