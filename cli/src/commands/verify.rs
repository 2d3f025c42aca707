//! `sluice verify`: checks the signature of a saved request and says in words what did not match.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use sluice_providers::{Rejection, Request, Source, Verdict};

use crate::{
    context::Context,
    exit::{Outcome, Usage},
    output::clean,
    request_file::{self, SavedRequest},
    when,
};

/// Largest file that is read: a body of the largest size with room for headers.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// After the help of `verify`.
pub const HELP: &str = "\
Examples:
  sluice verify --source stripe --request saved.http
  sluice verify --source stripe --request saved.http --now 1769860800
  sluice verify --source stripe --request - --output json

The file holds the request as it was sent: request line, headers, a blank line, the exact body.
  POST /webhooks/stripe HTTP/1.1
  Stripe-Signature: t=1769860800,v1=5257a8...

  {\"id\":\"evt_1\", ...}

Nothing is contacted and nothing is stored. Exit status 0: accepted; 3: rejected.";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configured source whose secrets and rules apply
    #[arg(long, value_name = "NAME")]
    source: String,
    /// File with the saved request; `-` is standard input
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Judge the age of the signature by this time instead of now, in Unix seconds or another form of time
    #[arg(long, value_name = "UNIX")]
    now: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// No such source, or a file that is no saved request.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Outcome> {
    let source = context.source(&args.source)?;
    let clock = when::now_ms();
    let now_ms = match &args.now {
        Some(text) => when::parse(text, clock).map_err(|error| Usage(format!("--now: {error}")))?,
        None => clock,
    };
    let saved = read(&args.request)?;
    match source.verify(&request(&saved, &saved.body), now_ms) {
        Ok(verdict) => accepted(context, &source, &saved, &verdict, now_ms),
        Err(rejection) => rejected(context, &source, &saved, &rejection, now_ms),
    }
}

fn read(path: &PathBuf) -> anyhow::Result<SavedRequest> {
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
    request_file::parse(&bytes)
        .map_err(|error| Usage(format!("{}: {error}", path.display())).into())
}

fn request<'a>(saved: &'a SavedRequest, body: &'a Bytes) -> Request<'a> {
    Request { method: &saved.method, url: &saved.target, headers: &saved.headers, body }
}

fn accepted(
    context: &Context,
    source: &Source,
    saved: &SavedRequest,
    verdict: &Verdict,
    now_ms: i64,
) -> anyhow::Result<Outcome> {
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
        let seconds = (now_ms - signed).abs() / 1000;
        let side = if now_ms < signed { "after" } else { "before" };
        format!(", signed {} ({seconds} s {side} the time it is judged by)", when::format(signed))
    });
    let (scheme, secret) = (verdict.scheme, &verdict.secret_label);
    output
        .line(format!("accepted: the signature ({scheme}) was made with secret {secret}{age}"))?;
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
    for remark in &saved.remarks {
        output.line(format!("note: {remark}"))?;
    }
    Ok(Outcome::Done)
}

fn rejected(
    context: &Context,
    source: &Source,
    saved: &SavedRequest,
    rejection: &Rejection,
    now_ms: i64,
) -> anyhow::Result<Outcome> {
    let mut hints = saved.remarks.clone();
    hints.extend(explain(source, saved, rejection, now_ms));
    let output = context.output;
    if output.is_json() {
        output.json(&json!({
            "accepted": false, "source": source.name(), "reason": rejection.reason(),
            "detail": rejection.to_string(), "hints": hints,
            "status": source.rejection_status(),
        }))?;
    } else {
        output.line(format!("rejected ({}): {rejection}", rejection.reason()))?;
        for hint in &hints {
            output.line(format!("note: {hint}"))?;
        }
    }
    Ok(Outcome::Differences)
}

/// What an operator would try next, tried.
fn explain(
    source: &Source,
    saved: &SavedRequest,
    rejection: &Rejection,
    now_ms: i64,
) -> Vec<String> {
    match rejection {
        Rejection::Stale { age_ms, .. } => vec![format!(
            "the signature itself is right; to judge the request by the time it was signed, pass --now {}",
            (now_ms - age_ms) / 1000
        )],
        Rejection::FromFuture { ahead_ms, .. } => vec![format!(
            "the signature itself is right; to judge the request by the time it was signed, pass --now {}",
            (now_ms + ahead_ms) / 1000
        )],
        Rejection::NoMatch { .. } => {
            let fits = |body: &Bytes| match source.verify(&request(saved, body), now_ms) {
                Ok(_) | Err(Rejection::Stale { .. } | Rejection::FromFuture { .. }) => true,
                Err(_) => false,
            };
            let found = variants(&saved.body).into_iter().find(|(body, _)| fits(body));
            found.map(|(_, text)| text.to_owned()).into_iter().collect()
        }
        Rejection::MissingHeader(_) => {
            let names: Vec<&str> = saved.headers.keys().map(http::HeaderName::as_str).collect();
            vec![format!("the file has these headers: {}", names.join(", "))]
        }
        _ => Vec::new(),
    }
}

/// The body as it may have been before an editor or a tool saved it.
fn variants(body: &Bytes) -> Vec<(Bytes, &'static str)> {
    let trimmed = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
    let mut variants = Vec::new();
    if let Some(trimmed) = trimmed {
        variants.push((
            Bytes::copy_from_slice(trimmed),
            "the signature is right without the line break at the end of the file: an editor added it",
        ));
    }
    let unix = replaced(body, b"\r\n", b"\n");
    if unix[..] != body[..] {
        variants.push((
            Bytes::from(unix.clone()),
            "the signature is right with LF line ends in the body: they were changed to CRLF when it was saved",
        ));
    }
    let dos = replaced(&unix, b"\n", b"\r\n");
    if dos[..] != body[..] {
        variants.push((
            Bytes::from(dos),
            "the signature is right with CRLF line ends in the body: they were changed to LF when it was saved",
        ));
    }
    variants
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(*byte);
            rest = &rest[1..];
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_replaced_everywhere() {
        assert_eq!(replaced(b"a\r\nb\r\n", b"\r\n", b"\n"), b"a\nb\n");
        assert_eq!(replaced(b"\n\n", b"\n", b"\r\n"), b"\r\n\r\n");
        assert_eq!(replaced(b"a\r", b"\r\n", b"\n"), b"a\r");
    }

    #[test]
    fn only_variants_that_differ_are_tried() {
        assert!(variants(&Bytes::from_static(b"{}")).is_empty());
        assert_eq!(variants(&Bytes::from_static(b"{}\n")).len(), 2);
        assert_eq!(variants(&Bytes::from_static(b"{\r\n}")).len(), 1);
    }
}
