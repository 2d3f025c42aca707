//! Every provider through running processes: its requests are verified, split into events, answered as it
//! expects, and each event is processed once in common terms; what is not its is refused.

mod answers;
mod batches;
mod configuration;
mod every;
mod hydrated;
mod published;
mod sign;
mod states;
mod told;
mod upgrade;

use std::path::Path;

use sluice_schemas::ProcessedEvent;
use sluice_tests::{
    account::Account,
    endpoints::Endpoint,
    read::{self, Isolation},
    sluice::{Pipeline, Role, Setup, binary},
    stack::Cluster,
};

/// A pipeline with these sources.
async fn pipeline(cluster: &Cluster, endpoints: &[Endpoint]) -> Pipeline {
    let setup = endpoints.iter().fold(Setup::new(), |setup, one| setup.source(&one.toml()));
    setup.create(cluster).await
}

/// Starts a role that can read the secrets of these sources, and further variables.
fn start(pipeline: &Pipeline, role: &str, endpoints: &[Endpoint], more: &[(&str, &str)]) -> Role {
    start_binary(&binary(), pipeline, role, endpoints, more)
}

/// As [`start`], of this release or another.
fn start_binary(
    binary: &Path,
    pipeline: &Pipeline,
    role: &str,
    endpoints: &[Endpoint],
    more: &[(&str, &str)],
) -> Role {
    let secrets: Vec<(String, String)> = endpoints.iter().map(Endpoint::env).collect();
    let secrets = secrets.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let env: Vec<(&str, &str)> = secrets.chain(more.iter().copied()).collect();
    pipeline.start_binary(binary, role, "a", &env)
}

/// How many records are in `webhooks.raw`.
async fn stored(pipeline: &Pipeline) -> i64 {
    let raw = pipeline.topic("raw");
    read::ends(&pipeline.cluster, &raw, Isolation::Uncommitted).await.iter().sum()
}

/// What was emitted of one source, in the order it was stored.
fn of_source<'a>(account: &'a Account, source: &str) -> Vec<&'a ProcessedEvent> {
    let mut events: Vec<&ProcessedEvent> = account
        .processed
        .iter()
        .map(|read| &read.value)
        .filter(|event| event.source == source)
        .collect();
    events.sort_by_key(|event| (event.raw_partition, event.raw_offset));
    events
}
