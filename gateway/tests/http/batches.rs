//! Batches of JSON lines: all of a batch is stored before its one answer, or nothing of it.

use sluice_schemas::RawWebhook;

use crate::support::{Answer, MAX_BATCH, QUEUE, Running, World, lines_signature};

fn batch(name: &str, size: usize) -> Vec<String> {
    (0..size).map(|at| format!(r#"{{"id":"{name}-{at}","type":"order.paid"}}"#)).collect()
}

/// The records of one request, in the order of their places in the batch.
async fn stored(world: &World, request_id: &str) -> Vec<RawWebhook> {
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    let of_request = records.into_iter().map(|(_, raw)| raw);
    let mut raw: Vec<_> = of_request.filter(|raw| raw.request_id == request_id).collect();
    raw.sort_by_key(|raw| raw.batch_index);
    raw
}

async fn post(
    world: &World,
    gateway: &Running,
    signature: &str,
    body: &str,
    more: &[(&str, &str)],
) -> Answer {
    let headers = [&[("x-signature", signature)], more].concat();
    world.send(gateway, "POST", "lines", &headers, body.as_bytes().to_vec()).await
}

pub async fn a_batch_of_lines_is_stored_whole_before_its_one_answer(
    world: &World,
    gateway: &Running,
) {
    let mut lines = batch("good", MAX_BATCH);
    lines[41] = r#"{"id":"cut off"#.to_owned();
    let body = format!("{}\r\n", lines.join("\n"));
    let signature = lines_signature(body.as_bytes());
    let answer = post(world, gateway, &signature, &body, &[]).await;
    answer.is_accepted();

    let raw = stored(world, answer.header("x-request-id")).await;
    assert_eq!(raw.len(), MAX_BATCH);
    for (at, (raw, line)) in raw.iter().zip(&lines).enumerate() {
        assert_eq!((raw.batch_index as usize, raw.batch_size as usize), (at, MAX_BATCH));
        assert_eq!(raw.payload(), line.as_bytes());
        // The signature covers the whole body, which one record carries for all.
        assert_eq!(raw.body, if at == 0 { body.as_bytes() } else { b"" });
        if at == 41 {
            assert!(raw.event_id.starts_with("sha256:"), "{}", raw.event_id);
            assert_eq!(raw.event_type, "unknown");
        } else {
            assert_eq!((&*raw.event_id, &*raw.event_type), (&*format!("good-{at}"), "order.paid"));
        }
    }
    // What holds no line is kept too, under its digest.
    let answer = post(world, gateway, &lines_signature(b"\n"), "\n", &[]).await;
    answer.is_accepted();
    let raw = stored(world, answer.header("x-request-id")).await;
    assert_eq!((raw.len(), &*raw[0].body, &*raw[0].event_type), (1, &b"\n"[..], "unknown"));
}

pub async fn a_batch_that_is_tampered_with_or_too_large_leaves_nothing(
    world: &World,
    gateway: &Running,
) {
    let before = world.read::<RawWebhook>(world.topics.raw()).await.len();
    let body = batch("bad", 3).join("\n");
    let signature = lines_signature(body.as_bytes());
    let tampered = body.replace("bad-1", "bad-7");
    post(world, gateway, &signature, &tampered, &[]).await.is_problem(401);
    // One line more than configured.
    let long = batch("bad", MAX_BATCH + 1).join("\n");
    let answer = post(world, gateway, &lines_signature(long.as_bytes()), &long, &[]).await;
    assert_eq!(answer.is_problem(413).json()["type"], "urn:sluice:problem:batch-too-large");
    // As many as configured, but every record repeats the headers: more than the send queue ever holds.
    let wide = "v".repeat(QUEUE.as_usize() / MAX_BATCH * 2);
    let full = batch("bad", MAX_BATCH).join("\n");
    let signed = lines_signature(full.as_bytes());
    let answer = post(world, gateway, &signed, &full, &[("x-wide", &wide)]).await;
    assert_eq!(answer.is_problem(413).json()["type"], "urn:sluice:problem:batch-too-large");
    assert_eq!(world.read::<RawWebhook>(world.topics.raw()).await.len(), before);

    post(world, gateway, &signed, &full, &[]).await.is_accepted();
    post(world, gateway, &signature, &body, &[]).await.is_accepted();
    let after = world.read::<RawWebhook>(world.topics.raw()).await.len();
    assert_eq!(after - before, MAX_BATCH + 3, "control: the same batches within bounds");
}
