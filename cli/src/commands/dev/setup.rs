//! What `sluice dev` configures, writes into its data folder, and tells.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;
use sluice_service::config::{Config, GatewayConfig, ManagementConfig, ProcessorConfig, SecretRef};

use crate::context::{DEFAULT_FILE, DEV_DATA_DIR};

use super::{Addresses, sources};
use crate::{commands::send::base_url, files};

const HEADER: &str = "\
# Written by `sluice dev` at every start, so changes made here are lost.
# Copy it to ./sluice.toml to keep and change it.

";

/// Creates the data folder; returns its absolute path.
pub(super) fn data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    files::require_own(path)?;
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
        config.sources = sources::samples(data_dir, &public_url(config.gateway.listen))?;
    }
    make_absolute(&mut config)?;
    Ok(config)
}

/// What the providers that sign a URL are told it is. A port that is not known yet is left out: it need not
/// be the URL that requests are seen at.
fn public_url(listen: SocketAddr) -> String {
    if listen.port() == 0 {
        return format!("http://{}", listen.ip());
    }
    base_url(listen)
}

/// The file written for other commands lies elsewhere, and they may be started elsewhere.
fn make_absolute(config: &mut Config) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("asking for the working directory")?;
    config.processor.state_dir = here.join(&config.processor.state_dir);
    if let Some(cache) = &mut config.registry.cache_dir {
        *cache = here.join(&*cache);
    }
    for source in &mut config.sources {
        make_references_absolute(&mut source.settings, &here);
    }
    let sources = config.sources.iter_mut().flat_map(|source| {
        source.secrets.iter_mut().chain(source.hydrate.iter_mut().flat_map(|h| h.secrets_mut()))
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

/// Settings may be references too: `file:` is followed by a path.
fn make_references_absolute(settings: &mut Value, here: &Path) {
    match settings {
        Value::String(text) => {
            if let Ok(SecretRef::File(path)) = text.parse::<SecretRef>() {
                *text = SecretRef::File(here.join(path)).to_string();
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| make_references_absolute(item, here));
        }
        Value::Object(table) => {
            table.values_mut().for_each(|value| make_references_absolute(value, here));
        }
        _ => {}
    }
}

/// Nothing here is for other computers: an address for everybody becomes this computer's own.
fn listen(configured: SocketAddr, default: SocketAddr, ephemeral: bool) -> SocketAddr {
    if configured != default {
        return configured;
    }
    let port = if ephemeral { 0 } else { default.port() };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
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
  webhooks    {gateway}/webhooks/NAME
  NAME        {}
  management  {management}   /readyz /metrics
  kafka       {kafka}
  registry    {registry}
  config      {}
  data        {}\n",
        wrapped(&names, "              "),
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

/// Names in lines of readable length; all but the first begin with `indent`.
fn wrapped(names: &[&str], indent: &str) -> String {
    const WIDTH: usize = 96;
    let mut text = String::new();
    let mut column = 0;
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push(',');
            if column + name.len() > WIDTH {
                text.push('\n');
                text.push_str(indent);
                column = 0;
            } else {
                text.push(' ');
            }
        }
        text.push_str(name);
        column += name.len() + 2;
    }
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
    use serde_json::json;
    use sluice_service::config::SourceConfig;

    #[test]
    fn names_are_wrapped_and_none_is_lost() {
        let names: Vec<String> = (0..30).map(|number| format!("provider-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = wrapped(&names, "  ");
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(text.split(',').map(str::trim).collect::<Vec<_>>(), names);
        assert_eq!(wrapped(&["a", "b"], "  "), "a, b");
        assert_eq!(wrapped(&[], "  "), "");
    }

    #[test]
    fn references_in_settings_become_absolute_and_other_texts_stay() {
        let mut settings = json!({
            "certificate": "file:ca.pem", "list": ["file:/abs", "env:X", "profile:x"], "n": 1,
        });
        make_references_absolute(&mut settings, Path::new("/here"));
        let wanted = json!({
            "certificate": "file:/here/ca.pem", "list": ["file:/abs", "env:X", "profile:x"], "n": 1,
        });
        assert_eq!(settings, wanted);
    }

    #[test]
    fn the_signed_url_is_the_gateways() {
        assert_eq!(public_url("127.0.0.1:8080".parse().unwrap()), "http://127.0.0.1:8080");
        assert_eq!(public_url("127.0.0.1:0".parse().unwrap()), "http://127.0.0.1");
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
