//! `sluice dlq show`: one letter, everything in it.

use std::{fmt::Write as _, ops::ControlFlow};

use serde_json::{Value, json};
use sluice_kafka::inspect::{End, Isolation, OwnedRecord, Reader};
use sluice_schemas::{DeadLetter, FailureClass, RawWebhook};

use crate::{
    context::Context,
    decode::{self, Decoder},
    exit::Outcome,
    output::{clean, one_line},
    when,
};

use super::letters::{Position, absent, or_absent, reason_word, start_at};

/// Shows the letter at `position`.
///
/// # Errors
/// There is none, or Kafka or the registry does not answer.
pub async fn run(context: &Context, position: Position) -> anyhow::Result<Outcome> {
    let reader = Reader::new(&context.kafka()?, Isolation::ReadCommitted)?;
    let decoder = Decoder::new(context.registry()?);
    let topic = context.topics()?.dlq().to_owned();
    let json_wanted = context.output.is_json();
    let work = move || -> anyhow::Result<String> {
        let record = find(&reader, &topic, position)?;
        if json_wanted { as_json(&decoder, &record) } else { as_text(&decoder, &record) }
    };
    let shown = tokio::task::spawn_blocking(work).await??;
    context.output.line(shown)?;
    Ok(Outcome::Done)
}

fn find(reader: &Reader, topic: &str, position: Position) -> anyhow::Result<OwnedRecord> {
    let mut found = None;
    reader
        .read_range(topic, &start_at([&position]), End::LastStable, |record| {
            if record.offset == position.offset {
                found = Some(record);
            }
            // The first record at or after the offset settles it: later ones are others.
            ControlFlow::Break(())
        })
        .map_err(or_absent)?;
    found.ok_or_else(|| absent(position, topic))
}

fn as_json(decoder: &Decoder, record: &OwnedRecord) -> anyhow::Result<String> {
    let mut shown = decoder.record(record)?;
    let letter = decoder.decode::<DeadLetter>(record.value.as_deref())?.ok();
    if let Value::Object(shown) = &mut shown {
        let raw = letter.as_ref().and_then(|letter| letter.raw_value.as_deref());
        shown.insert("raw_value_base64".to_owned(), json!(raw.map(decode::base64)));
        if letter.is_none() {
            let bytes = record.value.as_deref().map(decode::base64);
            shown.insert("value_base64".to_owned(), json!(bytes));
        }
    }
    Ok(serde_json::to_string(&shown)?)
}

fn as_text(decoder: &Decoder, record: &OwnedRecord) -> anyhow::Result<String> {
    let mut text = String::new();
    let place = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
    let letter = match decoder.decode::<DeadLetter>(record.value.as_deref())? {
        Ok(letter) => letter,
        Err(error) => {
            let bytes = record.value.as_deref().map_or_else(|| "none".to_owned(), decode::base64);
            return Ok(clean(&format!(
                "{place}\ncannot be read: {error}\nvalue (base64): {bytes}"
            )));
        }
    };
    let webhook = decoder.decode::<RawWebhook>(letter.raw_value.as_deref())?;
    write_letter(&mut text, &place, record, &letter)?;
    write_errors(&mut text, &letter)?;
    match webhook {
        Ok(webhook) => write_webhook(&mut text, &webhook)?,
        Err(error) => writeln!(text, "\nwebhook    cannot be decoded: {error}")?,
    }
    let raw =
        letter.raw_value.as_deref().map_or_else(|| "none (tombstone)".to_owned(), decode::base64);
    write!(text, "\nraw record value (base64)\n  {raw}")?;
    Ok(clean(&text))
}

fn write_letter(
    text: &mut String,
    place: &str,
    record: &OwnedRecord,
    letter: &DeadLetter,
) -> std::fmt::Result {
    let or_none = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
    writeln!(text, "letter     {place}")?;
    writeln!(text, "event      {}", one_line(&letter.event_key))?;
    writeln!(text, "type       {}", or_none(&letter.event_type))?;
    writeln!(text, "provider   {}", or_none(&letter.provider))?;
    writeln!(text, "reason     {}", reason_word(letter.reason))?;
    writeln!(text, "dead at    {}", when::format(letter.dead_at))?;
    let (topic, partition, offset) =
        (&letter.found_topic, letter.found_partition, letter.found_offset);
    writeln!(text, "found in   {topic}[{partition}]@{offset}")?;
    let written = when::format(letter.raw_timestamp);
    writeln!(
        text,
        "origin     raw partition {} offset {}, written {written}",
        letter.raw_partition, letter.raw_offset
    )?;
    writeln!(text, "replay     {}", if letter.replay { "yes" } else { "no" })?;
    writeln!(text, "chain      {}", letter.chain_id)?;
    writeln!(text, "request    {}", or_none(&letter.request_id))?;
    for (name, value) in &record.headers {
        if name == "traceparent" {
            writeln!(text, "trace      {}", one_line(&String::from_utf8_lossy(value)))?;
        }
    }
    Ok(())
}

fn write_errors(text: &mut String, letter: &DeadLetter) -> std::fmt::Result {
    writeln!(text, "\nattempts   {}", letter.attempt)?;
    for error in &letter.errors {
        let class = match error.class {
            FailureClass::Permanent => "permanent",
            FailureClass::Transient => "transient",
        };
        let wait =
            error.retry_after_ms.map_or_else(String::new, |ms| format!(", asked to wait {ms} ms"));
        let (attempt, at) = (error.attempt, when::format(error.at));
        let (code, message) = (one_line(&error.code), one_line(&error.message));
        writeln!(text, "  {attempt:>2}  {at}  {class}  {code}: {message}{wait}")?;
    }
    Ok(())
}

fn write_webhook(text: &mut String, webhook: &RawWebhook) -> std::fmt::Result {
    writeln!(
        text,
        "\nwebhook    {} {} from {}",
        one_line(&webhook.method),
        one_line(&webhook.url),
        one_line(&webhook.remote_address)
    )?;
    writeln!(text, "received   {}", when::format(webhook.received_at))?;
    writeln!(text, "verified   {} with {}", webhook.verdict.scheme, webhook.verdict.secret)?;
    for header in &webhook.headers {
        let value = String::from_utf8_lossy(&header.value);
        let value = if decode::may_be_shown(&header.name, &header.value) {
            one_line(&value)
        } else {
            decode::NOT_SHOWN.to_owned()
        };
        writeln!(text, "  {}: {value}", one_line(&header.name))?;
    }
    let body = match decode::text(webhook.payload()) {
        Value::String(body) => body,
        other => other.to_string(),
    };
    writeln!(text, "\n{body}")
}
