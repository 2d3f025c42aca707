//! `sluice providers`: what is known about each sender of webhooks, from the code that handles it.

use serde_json::{Value, json};
use sluice_providers::{Credentials, ProviderInfo, documentation, known_providers};

use crate::{
    args::Globals,
    exit::{Outcome, Usage},
    output::{Output, number, text},
};

/// After the help of `providers`.
pub const HELP: &str = "\
Examples:
  sluice providers
  sluice providers stripe
  sluice providers stripe --output json

A name is what stands in a source as provider = \"NAME\". SECRET says whether a source needs one, KINDS how many
canonical kinds its events become, API whether events can be completed from the provider's own API, and ADDRESSES
which lists of its addresses there are for allow_provider_ips.";

/// Arguments of `providers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print all about this provider
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs the command; it reads no configuration.
///
/// # Errors
/// No such provider.
pub fn run(globals: &Globals, args: &Args) -> anyhow::Result<Outcome> {
    let output = Output::new(globals.output);
    match &args.name {
        None => list(output)?,
        Some(name) => {
            let info =
                known_providers().iter().find(|info| info.name == name).ok_or_else(|| {
                    let names: Vec<&str> = known_providers().iter().map(|info| info.name).collect();
                    Usage(format!("there is no provider `{name}`; known: {}", names.join(", ")))
                })?;
            if output.is_json() {
                output.json(&everything(info))?;
            } else {
                output.raw(&description(info))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn list(output: Output) -> std::io::Result<()> {
    if output.is_json() {
        return known_providers().iter().try_for_each(|info| output.json(&everything(info)));
    }
    let rows = known_providers().iter().map(|info| {
        let yes = |known: bool| if known { "yes" } else { "" }.to_owned();
        let lists: Vec<&str> = info.addresses.iter().map(|list| list.name).collect();
        vec![
            info.name.to_owned(),
            info.title.to_owned(),
            yes(documentation::needs_secret(info)),
            kinds(info).to_string(),
            yes(info.api.is_some()),
            lists.join(", "),
            signature(info.scheme),
        ]
    });
    let columns = [
        text("NAME"),
        text("TITLE"),
        text("SECRET"),
        number("KINDS"),
        text("API"),
        text("ADDRESSES"),
        text("SIGNATURE"),
    ];
    output.table(&columns, rows.collect())
}

/// The gist of a scheme: its first clause, which names header and MAC.
fn signature(scheme: &str) -> String {
    const WIDTH: usize = 60;
    let plain = scheme.replace('`', "");
    let end = plain.find(';').unwrap_or(plain.len());
    crate::output::shorten(&plain[..end], WIDTH)
}

fn kinds(info: &ProviderInfo) -> usize {
    let mut kinds: Vec<&str> = info.mappings.iter().map(|row| row.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.len()
}

/// All of it, for machines.
fn everything(info: &ProviderInfo) -> Value {
    let settings: Vec<Value> = info
        .settings
        .iter()
        .map(|setting| {
            let required = documentation::is_required(setting);
            json!({ "name": setting.name, "summary": setting.summary, "required": required })
        })
        .collect();
    let mappings: Vec<Value> = info
        .mappings
        .iter()
        .map(|row| {
            let when: Vec<String> = row.when.iter().map(ToString::to_string).collect();
            json!({ "type": row.event_type, "when": when, "kind": row.kind, "amount": row.amount })
        })
        .collect();
    let addresses: Vec<Value> = info
        .addresses
        .iter()
        .map(|list| {
            json!({ "name": list.name, "url": list.url, "as_of": list.as_of, "networks": list.networks })
        })
        .collect();
    let api = info.api.as_ref().map(|api| {
        json!({
            "base_url": api.base_url, "test_base_url": api.test_base_url,
            "summary": api.summary, "credentials": credentials(&api.credentials),
        })
    });
    json!({
        "name": info.name, "title": info.title, "summary": info.summary, "scheme": info.scheme,
        "secret": info.secret, "needs_secret": documentation::needs_secret(info),
        "identity": info.identity, "answer": info.answer, "notes": info.notes,
        "settings": settings, "addresses": addresses, "api": api, "samples": info.samples,
        "mappings": mappings, "example": documentation::example_source(info),
    })
}

fn credentials(credentials: &Credentials) -> String {
    match credentials {
        Credentials::Bearer { token } => format!("a bearer token: {token}"),
        Credentials::ClientCredentials { token_path, client } => {
            format!("a token from {token_path} for a client ID and secret: {client}")
        }
    }
}

/// All of it, for people.
fn description(info: &ProviderInfo) -> String {
    let plain = |text: &str| text.replace('`', "");
    let mut page = format!("{} (provider = \"{}\")\n{}\n", info.title, info.name, info.summary);
    let secret = if documentation::needs_secret(info) { "secret" } else { "secret, optional" };
    for (what, said) in [
        ("signature", info.scheme),
        (secret, info.secret),
        ("identity", info.identity),
        ("answer", info.answer),
    ] {
        page.push_str(&format!("\n{what}\n  {}\n", plain(said)));
    }
    section(&mut page, "notes", info.notes.iter().map(|note| plain(note)));
    let settings = info.settings.iter();
    section(
        &mut page,
        "settings",
        settings.map(|setting| format!("{}: {}", setting.name, plain(setting.summary))),
    );
    let api = info.api.iter();
    section(
        &mut page,
        "api",
        api.map(|api| {
            format!(
                "{}, at {}; {}",
                plain(api.summary),
                api.base_url,
                credentials(&api.credentials)
            )
        }),
    );
    let addresses = info.addresses.iter();
    section(
        &mut page,
        "addresses",
        addresses.map(|list| {
            format!("{} ({}, {}): {}", list.name, list.url, list.as_of, list.networks.join(", "))
        }),
    );
    let mappings = info.mappings.iter();
    let widest = info.mappings.iter().map(|row| row.event_type.len()).max().unwrap_or(0);
    section(
        &mut page,
        "event types with a canonical kind (any other is provider.<type>)",
        mappings.map(|row| {
            let when = documentation::conditions(row);
            let when = if when.is_empty() { when } else { format!("  when {when}") };
            format!("{:<widest$}  {}{when}", row.event_type, row.kind)
        }),
    );
    section(&mut page, "samples", info.samples.iter().map(|sample| (*sample).to_owned()));
    let example = documentation::example_source(info);
    section(&mut page, "in sluice.toml", example.lines().map(str::to_owned));
    page
}

/// A heading with indented lines below; nothing where there are no lines.
fn section(page: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        page.push_str(&format!("\n{title}\n"));
    }
    for line in lines {
        page.push_str(format!("  {line}").trim_end());
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_provider_is_told_in_full() {
        for info in known_providers() {
            let page = description(info);
            for part in [info.name, info.title, info.samples[0]] {
                assert!(page.contains(part), "{}: {part}", info.name);
            }
            for setting in info.settings {
                assert!(page.contains(setting.name), "{}: {}", info.name, setting.name);
            }
            for row in info.mappings {
                assert!(page.contains(row.event_type) && page.contains(row.kind), "{row:?}");
            }
            assert_eq!(everything(info)["mappings"].as_array().unwrap().len(), info.mappings.len());
        }
    }

    #[test]
    fn a_scheme_is_told_by_its_first_clause() {
        assert_eq!(signature("`X-Sig`: HMAC; any may match"), "X-Sig: HMAC");
        assert!(signature(&"é".repeat(200)).chars().count() <= 60);
    }
}
