//! Which configuration is used, and what its sections become for each client.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sluice_kafka::{
    client::{ClientSettings, PublisherOptions},
    settings,
    topics::Topics,
};
use sluice_providers::{Secret, SourceSpec};
use sluice_schemas::registry::Registry;
use sluice_service::config::{Config, SourceConfig, process_env};

use crate::{args::Globals, exit::Usage, output::Output};

/// The file that is used where none is named.
pub const DEFAULT_FILE: &str = "sluice.toml";
/// The data folder of `sluice dev` where none is named.
pub const DEV_DATA_DIR: &str = ".sluice-dev";

/// The name that brokers see for the tools.
pub const CLIENT_ID: &str = "sluice-cli";

/// Who asks for the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A role, or `dev`: never runs on what an earlier `dev` left behind.
    Role,
    /// A tool: works against the pipeline that `sluice dev` runs in this folder, if there is one.
    Client,
}

/// The configuration in force and the form of the output.
#[derive(Debug, Clone)]
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// The file it came from; `None` where only defaults and the environment count.
    pub path: Option<PathBuf>,
    /// Standard output.
    pub output: Output,
}

impl Context {
    /// Finds and reads the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(globals: &Globals, audience: Audience) -> anyhow::Result<Self> {
        let path = locate(globals.config.as_deref(), audience, |path| path.is_file());
        let config = Config::load(path.as_deref(), process_env())?;
        Ok(Self { config: Arc::new(config), path, output: Output::new(globals.output) })
    }

    /// Names and settings of all topics.
    ///
    /// # Errors
    /// Settings that Kafka would refuse or that would lose records.
    pub fn topics(&self) -> anyhow::Result<Topics> {
        settings::topics(&self.config).map_err(usage)
    }

    /// Full names of the topics that routing rules write to.
    pub fn routes(&self) -> Vec<String> {
        settings::routes(&self.config)
    }

    /// How Kafka clients of this command connect.
    ///
    /// # Errors
    /// A secret that cannot be read.
    pub fn kafka(&self) -> anyhow::Result<ClientSettings> {
        settings::client(&self.config, CLIENT_ID).map_err(usage)
    }

    /// A client of the schema registry. Tools keep no answers on disk.
    ///
    /// # Errors
    /// A secret that cannot be read, or an address that is none.
    pub fn registry(&self) -> anyhow::Result<Registry> {
        settings::registry(&self.config, false).map_err(usage)
    }

    /// What the producer of this command is set to.
    pub fn publisher_options(&self) -> PublisherOptions {
        let kbytes = u32::try_from(self.config.gateway.queue_max_bytes.0 / 1024);
        PublisherOptions {
            linger: Duration::from_millis(5),
            queue_kbytes: kbytes.unwrap_or(u32::MAX),
            message_timeout: Duration::from_secs(30),
        }
    }

    /// A configured source by name.
    ///
    /// # Errors
    /// There is none of this name, or it is not configured as its provider needs it.
    pub fn source(&self, name: &str) -> anyhow::Result<sluice_providers::Source> {
        let source = self.config.source(name).ok_or_else(|| {
            let names: Vec<&str> = self.config.sources.iter().map(|s| s.name.as_str()).collect();
            let known = if names.is_empty() { "none is".to_owned() } else { names.join(", ") };
            let file = match &self.path {
                Some(path) => path.display().to_string(),
                None => {
                    "the configuration (no file found: is `sluice dev` running here?)".to_owned()
                }
            };
            Usage(format!("there is no source `{name}` in {file}; configured: {known}"))
        })?;
        build_source(source)
    }
}

/// Builds a source with its secrets.
pub fn build_source(source: &SourceConfig) -> anyhow::Result<sluice_providers::Source> {
    let secrets = source
        .resolve_secrets()
        .map_err(usage)?
        .into_iter()
        .map(|(reference, value)| Secret::new(reference.to_string(), value))
        .collect();
    let settings = source.resolve_settings().map_err(usage)?;
    sluice_providers::build(SourceSpec {
        name: &source.name,
        provider: &source.provider,
        secrets,
        tolerance: source.tolerance,
        settings: &settings,
    })
    .map_err(usage)
}

fn usage(error: impl std::error::Error) -> anyhow::Error {
    Usage(error.to_string()).into()
}

fn locate(
    named: Option<&Path>,
    audience: Audience,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    if let Some(path) = named {
        // A named file that does not exist is a mistake, which loading reports.
        return Some(path.to_owned());
    }
    let dev = Path::new(DEV_DATA_DIR).join(DEFAULT_FILE);
    let mut candidates = vec![PathBuf::from(DEFAULT_FILE)];
    if audience == Audience::Client {
        candidates.push(dev);
    }
    candidates.into_iter().find(|path| exists(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_named_file_wins_then_the_usual_one_then_that_of_dev_for_tools_alone() {
        let dev = Path::new(DEV_DATA_DIR).join(DEFAULT_FILE);
        let both = |_: &Path| true;
        let only_dev = |path: &Path| path == dev;
        let named = Path::new("x.toml");
        assert_eq!(locate(Some(named), Audience::Client, both), Some(named.to_owned()));
        assert_eq!(locate(None, Audience::Client, both), Some(DEFAULT_FILE.into()));
        assert_eq!(locate(None, Audience::Client, only_dev), Some(dev.clone()));
        assert_eq!(locate(None, Audience::Role, only_dev), None);
        assert_eq!(locate(None, Audience::Client, |_| false), None);
    }
}
