//! What `sluice dev` configures, writes into its data folder, and tells.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::json;
use sluice_service::config::{
    Config, GatewayConfig, ManagementConfig, ProcessorConfig, SecretRef, SourceConfig,
};

use crate::context::{DEFAULT_FILE, DEV_DATA_DIR};

use super::Addresses;

const HEADER: &str = "\
# Written by `sluice dev` at every start, so changes made here are lost.
# Copy it to ./sluice.toml to keep and change it.

";

/// Creates the data folder; returns its absolute path.
pub(super) fn data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    path.canonicalize().with_context(|| format!("resolving {}", path.display()))
}

/// The configuration for this computer. What a file or the environment set to other than the default stays.
pub(super) fn config(base: &Config, data_dir: &Path, ephemeral: bool) -> anyhow::Result<Config> {
    let mut config = base.clone();
    // One broker holds one copy.
    config.topics.replication_factor = 1;
    config.topics.min_insync_replicas = 1;
    config.gateway.listen =
        listen(config.gateway.listen, GatewayConfig::default().listen, ephemeral);
    config.management.listen =
        listen(config.management.listen, ManagementConfig::default().listen, ephemeral);
    if config.processor.state_dir == ProcessorConfig::default().state_dir {
        config.processor.state_dir = data_dir.join("state");
    }
    if config.sources.is_empty() {
        config.sources = sample_sources(data_dir)?;
    }
    make_absolute(&mut config)?;
    Ok(config)
}

/// The file written for other commands lies elsewhere, and they may be started elsewhere.
fn make_absolute(config: &mut Config) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("asking for the working directory")?;
    config.processor.state_dir = here.join(&config.processor.state_dir);
    if let Some(cache) = &mut config.registry.cache_dir {
        *cache = here.join(&*cache);
    }
    let sources = config.sources.iter_mut().flat_map(|source| {
        source.secrets.iter_mut().chain(source.hydrate.iter_mut().filter_map(|h| h.bearer.as_mut()))
    });
    let registry = &mut config.registry;
    let credentials = registry.username.iter_mut().chain(registry.password.iter_mut());
    for reference in sources.chain(credentials) {
        if let SecretRef::File(path) = reference {
            *path = here.join(&*path);
        }
    }
    Ok(())
}

/// Nothing here is for other computers: an address for everybody becomes this computer's own.
fn listen(configured: SocketAddr, default: SocketAddr, ephemeral: bool) -> SocketAddr {
    if configured != default {
        return configured;
    }
    let port = if ephemeral { 0 } else { default.port() };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn sample_sources(data_dir: &Path) -> anyhow::Result<Vec<SourceConfig>> {
    let mut stripe = SourceConfig::new("stripe", "stripe");
    stripe.secrets = vec![secret(data_dir, "stripe", "whsec_")?];
    let mut acme = SourceConfig::new("acme", "hmac");
    acme.secrets = vec![secret(data_dir, "acme", "acme_")?];
    acme.settings = json!({
        "header": "x-acme-signature",
        "prefix": "sha256=",
        "timestamp_header": "x-acme-timestamp",
        "template": "{ts}.{body}",
        "id_pointer": "/id",
        "type_pointer": "/type",
        "object_id_pointer": "/data/id",
        "amount_pointer": "/data/amount",
        "currency_pointer": "/data/currency",
    });
    Ok(vec![stripe, acme])
}

/// A secret in a file of its own, made once and readable by its owner alone.
fn secret(data_dir: &Path, name: &str, prefix: &str) -> anyhow::Result<SecretRef> {
    let folder = data_dir.join("secrets");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(name);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            // Two of them, because part of each is the time.
            let random =
                [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()].map(|id| id.simple().to_string());
            writeln!(file, "{prefix}{}", random.concat())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("creating {}", path.display())),
    }
    Ok(SecretRef::File(path))
}

/// Writes the configuration in force beside the data, for other commands; returns the file.
pub(super) fn write_config(config: &Config, data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join(DEFAULT_FILE);
    let text = format!("{HEADER}{}", config.to_toml_redacted()?);
    replace(&path, text.as_bytes())?;
    Ok(path)
}

/// Replaces a file as a whole: a reader sees the old one or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// What a person reads when everything is ready.
pub(super) fn summary(
    config: &Config,
    addresses: &Addresses,
    data_dir: &Path,
    file: &Path,
) -> String {
    let Addresses { gateway, management, kafka, registry } = addresses;
    let usual = data_dir.file_name().is_some_and(|name| name == DEV_DATA_DIR)
        && std::env::current_dir()
            .is_ok_and(|here| data_dir.parent() == here.canonicalize().ok().as_deref())
        && !Path::new(DEFAULT_FILE).exists();
    // Where the other commands would not find this configuration by themselves.
    let options = if usual { String::new() } else { format!("--config {} ", file.display()) };
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    let mut text = format!(
        "\nsluice is ready.\n
  webhooks    {gateway}/webhooks/NAME   NAME: {}
  management  {management}   /readyz /metrics
  kafka       {kafka}
  registry    {registry}
  config      {}
  data        {}\n",
        names.join(", "),
        file.display(),
        data_dir.display(),
    );
    if let Some(first) = names.first() {
        text.push_str(&format!(
            "\nTry in another terminal:\n
  sluice {options}send {first} --count 5
  sluice {options}tail processed
  sluice {options}status\n"
        ));
    }
    if let Some(example) = curl_example(config, gateway) {
        text.push_str("\nOr sign a request by hand:\n\n");
        text.push_str(&example);
    }
    text.push_str("\nCtrl-C stops everything; the data stays.");
    text
}

/// A request that anybody with curl and openssl can send.
fn curl_example(config: &Config, gateway: &str) -> Option<String> {
    let source = config.sources.iter().find(|source| source.provider == "stripe")?;
    let SecretRef::File(secret) = source.secrets.first()? else {
        return None;
    };
    let (name, secret) = (&source.name, secret.display());
    Some(format!(
        r#"  body='{{"id":"evt_by_hand_1","object":"event","type":"payment_intent.succeeded","data":{{"object":{{"id":"pi_1","amount_received":1250,"currency":"eur","status":"succeeded"}}}}}}'
  now=$(date +%s)
  signature=$(printf '%s.%s' "$now" "$body" | openssl dgst -sha256 -hmac "$(cat '{secret}')" -r | cut -d' ' -f1)
  curl -i {gateway}/webhooks/{name} -H "Stripe-Signature: t=$now,v1=$signature" -d "$body"
"#
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::context::build_source;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_sample_sources_are_complete_and_keep_their_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&Config::default(), folder.path(), false).unwrap();
        assert_eq!(config.sources.len(), 2);
        for source in &config.sources {
            let built = build_source(source).unwrap();
            let spec = sluice_providers::SampleSpec {
                event_type: None,
                seed: 1,
                now_ms: 1_769_860_800_000,
            };
            assert!(built.sample(&spec).is_some(), "{}", source.name);
        }
        let path = folder.path().join("secrets/stripe");
        let first = fs::read_to_string(&path).unwrap();
        assert!(first.starts_with("whsec_") && first.len() > 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        super::config(&Config::default(), folder.path(), false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
    }

    #[test]
    fn what_is_configured_stays_and_defaults_stay_at_home() {
        let folder = tempfile::tempdir().unwrap();
        let plain = config(&Config::default(), folder.path(), false).unwrap();
        assert_eq!(plain.gateway.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(plain.management.listen, "127.0.0.1:8090".parse().unwrap());
        assert_eq!(plain.topics.replication_factor, 1);
        let ephemeral = config(&Config::default(), folder.path(), true).unwrap();
        assert_eq!(ephemeral.gateway.listen.port(), 0);
        let mut own = Config::default();
        own.gateway.listen = "192.0.2.1:9000".parse().unwrap();
        let mut source = SourceConfig::new("mine", "stripe");
        source.secrets = vec![SecretRef::File("secret".into()), SecretRef::Env("SECRET".into())];
        own.sources = vec![source];
        own.processor.state_dir = "/var/lib/sluice".into();
        let kept = config(&own, folder.path(), true).unwrap();
        assert_eq!(kept.gateway.listen, own.gateway.listen);
        assert_eq!(kept.sources.len(), 1);
        let here = std::env::current_dir().unwrap();
        let wanted = [SecretRef::File(here.join("secret")), SecretRef::Env("SECRET".into())];
        assert_eq!(kept.sources[0].secrets, wanted);
        assert_eq!(kept.processor.state_dir, own.processor.state_dir);
    }

    #[test]
    fn the_written_configuration_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&Config::default(), folder.path(), false).unwrap();
        let path = write_config(&config, folder.path()).unwrap();
        let read = Config::load(Some(&path), std::iter::empty()).unwrap();
        assert_eq!(read.to_toml_redacted().unwrap(), config.to_toml_redacted().unwrap());
        let secret = fs::read_to_string(folder.path().join("secrets/acme")).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(secret.trim()));
    }
}
