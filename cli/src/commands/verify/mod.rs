//! `sluice verify`: checks the signature of a saved request and says in words what did not match, or
//! judges signature cases in the format of test vectors.
//!
//! * `explain`, `configuration`, `relayout`: why a request is rejected;
//! * `vectors`: many cases, one a line.

mod configuration;
mod explain;
mod relayout;
mod vectors;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use sluice_providers::{
    Acknowledgement, KeyDocument, PublishedKeys, Rejection, Request, Source, Verdict,
};

use crate::{
    args::Globals,
    context::{Audience, Context},
    exit::{Outcome, Usage},
    output::{Output, clean},
    request_file::{self, SavedRequest},
    when,
};
use explain::{Case, explain, scheme_and_key};

/// Largest file that is read: a body of the largest size with room for headers.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// After the help of `verify`.
pub const HELP: &str = "\
Examples:
  sluice verify --source stripe --request saved.http
  sluice verify --source stripe --request saved.http --now 1769860800
  sluice verify --source stripe --request - --output json
  sluice verify --source paypal --request saved.http --key certificate.pem
  sluice verify --vectors cases.jsonl
  sluice verify --vectors cases.jsonl --expect > verdicts.jsonl

The file of --request holds the request as it was sent: request line, headers, a blank line, the exact body.
  POST /webhooks/stripe HTTP/1.1
  Stripe-Signature: t=1769860800,v1=5257a8...

  {\"id\":\"evt_1\", ...}

The file of --vectors has one JSON object a line: id, provider, secret, method, url, headers (a list of
[name, value]), body, now (Unix seconds), and optionally tolerance_s and config. Each line is answered by one:
  {\"id\":\"...\",\"verdict\":\"accept\",\"reason\":\"stripe-v1\",\"event_id\":\"evt_1\",\"event_type\":\"...\"}
No configuration file is read for it.

Nothing is contacted and nothing is stored. Exit status 0: accepted, or all lines of --vectors were read;
3: rejected, or with --expect: a line that says `must` was decided otherwise.";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configured source whose secrets and rules apply
    #[arg(
        long,
        value_name = "NAME",
        requires = "request",
        required_unless_present = "vectors",
        conflicts_with = "vectors"
    )]
    source: Option<String>,
    /// File with the saved request; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with = "vectors")]
    request: Option<PathBuf>,
    /// Judge the age of the signature by this time instead of now, in Unix seconds or another form of time
    #[arg(long, value_name = "UNIX", requires = "source", conflicts_with = "vectors")]
    now: Option<String>,
    /// The key the provider publishes, for those that sign with one: certificates in PEM, or a JSON Web Key Set
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with = "vectors")]
    key: Option<PathBuf>,
    /// Judge signature cases, one JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Compare the verdicts with the `expect` of each line
    #[arg(long, requires = "vectors")]
    expect: bool,
}

/// Runs the command.
///
/// # Errors
/// No such source, a file that is no saved request, a line that is no case.
pub fn run(globals: &Globals, args: &Args) -> anyhow::Result<Outcome> {
    match (&args.vectors, &args.source, &args.request) {
        (Some(file), ..) => vectors::run(Output::new(globals.output), file, args.expect),
        (None, Some(source), Some(file)) => {
            let context = Context::load(globals, Audience::Client)?;
            saved_request(&context, args, source, file)
        }
        // The definition of the arguments leaves nothing else.
        _ => Err(Usage("write --source NAME --request FILE, or --vectors FILE".to_owned()).into()),
    }
}

/// The document of `--key`, whatever URL is asked for: the provider has checked it by then.
struct Given(Option<Arc<KeyDocument>>);

impl PublishedKeys for Given {
    fn get(&self, _url: &str) -> Option<Arc<KeyDocument>> {
        self.0.clone()
    }
}

/// What the gateway would make of a request.
enum Answer {
    Accepted(Verdict),
    /// No event: an endpoint challenge.
    Challenge(Acknowledgement),
    Rejected(Rejection),
}

fn saved_request(
    context: &Context,
    args: &Args,
    name: &str,
    file: &Path,
) -> anyhow::Result<Outcome> {
    let source = context.source(name)?;
    let config = context.config.source(name).context("the source was found before")?;
    let clock = when::now_ms();
    let now_ms = match &args.now {
        Some(text) => when::parse(text, clock).map_err(|error| Usage(format!("--now: {error}")))?,
        None => clock,
    };
    let keys = Given(args.key.as_deref().map(key_document).transpose()?);
    let saved = saved(file)?;
    let case = Case { context, config, source: &source, saved: &saved, keys: &keys, now_ms };
    match answer(&source, &request(&saved, &saved.body), &keys, now_ms) {
        Answer::Accepted(verdict) => accepted(&case, &verdict),
        Answer::Challenge(answer) => challenged(&case, &answer),
        Answer::Rejected(rejection) => rejected(&case, &rejection),
    }
}

fn answer(source: &Source, request: &Request<'_>, keys: &Given, now_ms: i64) -> Answer {
    if request.method == "GET" {
        if let Some(answer) = source.challenge(request) {
            return Answer::Challenge(answer);
        }
        if !source.accepts_get() {
            let problem = "this provider's events do not come with GET, and it is no challenge that may be answered";
            return Answer::Rejected(Rejection::Malformed(problem));
        }
    }
    match source.verify(request, keys, now_ms) {
        Ok(verdict) => Answer::Accepted(verdict),
        Err(rejection) => Answer::Rejected(rejection),
    }
}

/// Reads a file, or standard input for `-`, up to a size.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = || format!("reading {}", path.display());
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(failed)?;
    } else {
        let file = File::open(path).with_context(failed)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(failed)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(Usage(format!("{} is larger than {MAX_FILE} bytes", path.display())).into());
    }
    Ok(bytes)
}

fn saved(path: &Path) -> anyhow::Result<SavedRequest> {
    request_file::parse(&read(path)?)
        .map_err(|error| Usage(format!("{}: {error}", path.display())).into())
}

fn key_document(path: &Path) -> anyhow::Result<Arc<KeyDocument>> {
    let document = KeyDocument::parse(&read(path)?);
    document
        .map(Arc::new)
        .map_err(|error| Usage(format!("--key {}: {error}", path.display())).into())
}

fn request<'a>(saved: &'a SavedRequest, body: &'a Bytes) -> Request<'a> {
    Request { method: &saved.method, url: &saved.target, headers: &saved.headers, body }
}

fn accepted(case: &Case<'_>, verdict: &Verdict) -> anyhow::Result<Outcome> {
    let Case { context, source, saved, now_ms, .. } = *case;
    let events = source.identify(&request(saved, &saved.body));
    let output = context.output;
    if output.is_json() {
        let events: Vec<_> = events
            .iter()
            .map(|event| {
                json!({
                    "event_key": format!("{}:{}", source.name(), event.event_id),
                    "event_id": event.event_id, "event_type": event.event_type,
                    "object_id": event.object_id, "identified": event.identified,
                })
            })
            .collect();
        output.json(&json!({
            "accepted": true, "source": source.name(), "scheme": verdict.scheme,
            "secret": &*verdict.secret_label, "signed_at": verdict.signed_at_ms.map(when::format),
            "events": events, "remarks": saved.remarks,
        }))?;
        return Ok(Outcome::Done);
    }
    let age = verdict.signed_at_ms.map_or_else(String::new, |signed| {
        let seconds = now_ms.saturating_sub(signed).saturating_abs() / 1000;
        let side = if now_ms < signed { "after" } else { "before" };
        format!(", signed {} ({seconds} s {side} the time it is judged by)", when::format(signed))
    });
    output.line(format!("accepted: {}{age}", clean(&scheme_and_key(verdict))))?;
    for event in &events {
        let object =
            event.object_id.as_deref().map_or_else(String::new, |id| format!(", object {id}"));
        let digest = if event.identified { "" } else { " (no ID found: identified by its bytes)" };
        let line = format!(
            "event {}:{} of type {}{object}{digest}",
            source.name(),
            event.event_id,
            event.event_type
        );
        output.line(clean(&line))?;
    }
    notes(output, &saved.remarks)?;
    Ok(Outcome::Done)
}

fn challenged(case: &Case<'_>, answer: &Acknowledgement) -> anyhow::Result<Outcome> {
    let Case { context, source, saved, .. } = *case;
    let answered = answer.status < 300;
    let body = String::from_utf8_lossy(&answer.body);
    if context.output.is_json() {
        context.output.json(&json!({
            "accepted": answered, "source": source.name(), "challenge": true,
            "status": answer.status, "body": body, "remarks": saved.remarks,
        }))?;
    } else {
        let what = if answered { "answered" } else { "refused" };
        let line = format!("{what}: an endpoint challenge, no event; {} {body}", answer.status);
        context.output.line(clean(&line))?;
        notes(context.output, &saved.remarks)?;
    }
    Ok(if answered { Outcome::Done } else { Outcome::Differences })
}

fn rejected(case: &Case<'_>, rejection: &Rejection) -> anyhow::Result<Outcome> {
    let Case { context, source, saved, .. } = *case;
    let mut hints = saved.remarks.clone();
    hints.extend(explain(case, rejection));
    let output = context.output;
    if output.is_json() {
        output.json(&json!({
            "accepted": false, "source": source.name(), "reason": rejection.reason(),
            "detail": rejection.to_string(), "hints": hints,
            "status": source.rejection_status(),
        }))?;
    } else {
        // Without its key a request is neither right nor wrong yet.
        let undecided = matches!(rejection, Rejection::NeedsKey { .. });
        let verdict = if undecided { "not decided" } else { "rejected" };
        let line = format!("{verdict} ({}): {rejection}", rejection.reason());
        output.line(clean(&line))?;
        notes(output, &hints)?;
    }
    Ok(Outcome::Differences)
}

fn notes(output: Output, notes: &[String]) -> io::Result<()> {
    notes.iter().try_for_each(|note| output.line(clean(&format!("note: {note}"))))
}
