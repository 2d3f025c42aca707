//! `sluice config`: find every mistake before a role does, and show what is in force.

use std::{collections::HashMap, path::Path};

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde_json::json;
use sluice_kafka::{admin::Admin, settings};
use sluice_providers::{BuildError, SourceSpec};
use sluice_service::config::{Config, ConfigErrors, Problem, SourceConfig};

use crate::{
    args::Globals,
    context::{self, Audience, Context},
    exit::Outcome,
    output::{Output, note},
};

const CHECK_HELP: &str = "\
Examples:
  sluice config check
  sluice config check --config /etc/sluice.toml --output json

Reads every secret and builds every source, as the roles do when they start; contacts nothing. All
mistakes are listed, one a line, and warnings of what works but should not be so. Exit status 0: usable; 2: mistakes.";

const PRINT_HELP: &str = "\
Examples:
  sluice config print
  SLUICE__PROCESSOR__WORKERS=4 sluice config print
  sluice config print --output json

Defaults, file and SLUICE__ variables together. Secrets are shown as the references they are.";

const DEFAULT_HELP: &str = "\
Examples:
  sluice config default > sluice.toml

Every key with its default and a line on what it does.";

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// List every mistake in the configuration
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Print the configuration in force
    #[command(after_help = PRINT_HELP)]
    Print,
    /// Print the commented default file
    #[command(after_help = DEFAULT_HELP)]
    Default,
}

/// Runs the command.
///
/// # Errors
/// Mistakes in the configuration, for `print`.
pub fn run(globals: &Globals, command: Command) -> anyhow::Result<Outcome> {
    let output = Output::new(globals.output);
    match command {
        Command::Default => {
            output.raw(Config::default_toml())?;
            Ok(Outcome::Done)
        }
        Command::Print => {
            let context = Context::load(globals, Audience::Client)?;
            if output.is_json() {
                output.json(&*context.config)?;
            } else {
                output.raw(&context.config.to_toml_redacted()?)?;
            }
            Ok(Outcome::Done)
        }
        Command::Check => match Context::load(globals, Audience::Client) {
            Ok(context) => {
                let mistakes = mistakes(&context.config);
                let warnings = warnings(&context.config);
                report(output, context.path.as_deref(), &context.config, &mistakes, &warnings)
            }
            Err(error) => match error.downcast::<ConfigErrors>() {
                Ok(errors) => report(output, None, &Config::default(), &errors.problems, &[]),
                Err(error) => Err(error),
            },
        },
    }
}

/// What loading does not find: secrets that cannot be read, sources that their provider refuses.
fn mistakes(config: &Config) -> Vec<Problem> {
    let mut found: Vec<Problem> = Vec::new();
    let mut add = |key: String, message: String| {
        found.push(Problem { place: None, key, message });
    };
    for error in config.check_secrets() {
        add(String::new(), error.to_string());
    }
    for (index, source) in config.sources.iter().enumerate() {
        if let Some(message) = refusal(source) {
            add(format!("source.{index}"), message);
        }
    }
    for (index, source) in config.sources.iter().enumerate() {
        let Some(hydrate) = &source.hydrate else { continue };
        let secret = hydrate.bearer.is_some() || hydrate.client_secret.is_some();
        let urls = [("url", &hydrate.url), ("base_url", &hydrate.base_url)];
        for (name, url) in urls {
            if secret && url.as_deref().is_some_and(is_plain_and_far) {
                let message = "sends its credentials over plain http: use https";
                add(format!("source.{index}.hydrate.{name}"), message.to_owned());
            }
        }
    }
    if let Err(error) = settings::topics(config) {
        add("topics".to_owned(), error.to_string());
    }
    if let Ok(client) = settings::client(config, context::CLIENT_ID)
        && let Err(error) = Admin::connect(&client)
    {
        add("kafka".to_owned(), error.to_string());
    }
    found
}

/// Whether a URL is of plain http and of another machine.
fn is_plain_and_far(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let near = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !near && host != "localhost"
}

/// Fewest characters of a secret that nobody guesses.
const SHORT: usize = 16;

/// What works, but should not be so.
fn warnings(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut owners: HashMap<String, &str> = HashMap::new();
    for (index, source) in config.sources.iter().enumerate() {
        for (number, reference) in source.secrets.iter().enumerate() {
            let Ok(secret) = reference.resolve(&source.name) else { continue };
            let mut warn = |message: String| {
                let key = format!("source.{index}.secrets.{number}");
                found.push(Problem { place: None, key, message: format!("{reference} {message}") });
            };
            let text = secret.expose_secret();
            let is_pem = text.contains("-----BEGIN");
            if text.chars().count() < SHORT {
                warn(format!(
                    "has fewer than {SHORT} characters: it can be guessed; let the provider make a longer one"
                ));
            }
            if text.contains('\n') && !is_pem {
                warn("has more than one line, and all of them are the secret: was a second one meant? Each has a file of its own".to_owned());
            }
            if reference.is_readable_by_others() {
                warn("can be read by every user of this machine: chmod 600".to_owned());
            }
            match owners.get(text) {
                Some(other) if *other != source.name => {
                    warn(format!(
                        "is also the secret of `{other}`: a request of the one is a request of the other"
                    ));
                }
                Some(_) => {}
                None => drop(owners.insert(text.to_owned(), &source.name)),
            }
        }
    }
    found
}

/// What the provider has against a source, apart from secrets that cannot be read: those are told already.
fn refusal(source: &SourceConfig) -> Option<String> {
    if source.resolve_secrets().is_ok() && source.resolve_settings().is_ok() {
        return sluice_gateway::check_source(source).err().map(|error| format!("{error:#}"));
    }
    // Without its secrets a source cannot be built, but everything else can still be checked.
    let spec = SourceSpec {
        name: &source.name,
        provider: &source.provider,
        secrets: Vec::new(),
        tolerance: source.tolerance,
        settings: &source.settings,
    };
    match sluice_providers::build(spec) {
        Ok(_) => None,
        Err(BuildError::NoSecret { .. }) => {
            sluice_providers::normaliser(&source.name, &source.provider, &source.settings)
                .err()
                .map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

fn report(
    output: Output,
    path: Option<&Path>,
    config: &Config,
    mistakes: &[Problem],
    warnings: &[Problem],
) -> anyhow::Result<Outcome> {
    let file = path.map(|path| path.display().to_string());
    if output.is_json() {
        let problems: Vec<_> = mistakes
            .iter()
            .map(|problem| {
                json!({ "place": problem.place, "key": problem.key, "message": problem.message })
            })
            .collect();
        let warnings: Vec<_> = warnings
            .iter()
            .map(|warning| json!({ "key": warning.key, "message": warning.message }))
            .collect();
        output.json(&json!({
            "ok": mistakes.is_empty(), "file": file, "problems": problems, "warnings": warnings,
        }))?;
    } else {
        for warning in warnings {
            note(&format!("warning: {warning}"));
        }
    }
    if mistakes.is_empty() {
        if !output.is_json() {
            let from = file.unwrap_or_else(|| "the defaults and the environment".to_owned());
            let sources = config.sources.len();
            let plural = if sources == 1 { "" } else { "s" };
            output.line(format!("ok: {from}: {sources} source{plural}, every secret readable"))?;
        }
        return Ok(Outcome::Done);
    }
    if !output.is_json() {
        for problem in mistakes {
            note(&problem.to_string());
        }
    }
    let count = mistakes.len();
    let plural = if count == 1 { "" } else { "s" };
    Err(crate::exit::Usage(format!("{count} mistake{plural} in the configuration")).into())
}
