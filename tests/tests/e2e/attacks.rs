//! What anybody on the internet can do to the gateway without a secret: nothing. While each attack runs, a genuine event is
//! taken within a second, and what the attack costs is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use sluice_tests::{
    account::{Account, drained},
    read::{self, Isolation},
    send::{Samples, Sender, Webhook, stripe_body},
    sluice::{Pipeline, Role, Setup},
    stack::shared,
    wait::{secs, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What a genuine sender waits at most while an attack runs.
const SOON: Duration = Duration::from_secs(1);

/// A gateway with these settings, and its pipeline.
async fn gateway(setup: Setup) -> (Pipeline, Role) {
    let pipeline = setup.create(&shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    (pipeline, gateway)
}

/// A genuine event is stored, on a connection of its own.
async fn accepted(gateway: &Role, seed: u64) {
    let answer = Sender::new().post(&gateway.url(), &Samples::stripe().event(seed)).await;
    assert!(answer.is_success(), "{answer:?}\n{}", gateway.log());
    assert!(answer.took < SOON, "{answer:?}");
}

fn address(gateway: &Role) -> String {
    gateway.url().trim_start_matches("http://").to_owned()
}

async fn connect(gateway: &Role) -> TcpStream {
    TcpStream::connect(address(gateway)).await.unwrap()
}

/// An HTTP/2 connection, driven by a task of its own.
async fn http2(gateway: &Role) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(connect(gateway).await).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Begins a request over HTTP/2 with the head of a webhook.
async fn begin(
    client: &mut SendRequest<Bytes>,
    gateway: &Role,
    webhook: &Webhook,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = http::Request::builder().method("POST").uri(webhook.url(&gateway.url()));
    for (name, value) in &webhook.headers {
        request = request.header(name, value);
    }
    *client = client.clone().ready().await?;
    client.send_request(request.body(()).unwrap(), false)
}

/// Status and body of an answer.
async fn answer(response: ResponseFuture) -> (u16, String) {
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut body: RecvStream = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    (status, String::from_utf8(text).unwrap())
}

/// The head of a webhook over HTTP/1.1 with the last header lines open.
fn head(webhook: &Webhook, more: &str) -> String {
    let mut head = format!("POST /webhooks/{} HTTP/1.1\r\nhost: x\r\n", webhook.source);
    for (name, value) in &webhook.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + more
}

/// The value of a metric with these labels; 0 where there is none yet.
async fn metric(gateway: &Role, name: &str) -> f64 {
    let (_, text) = gateway.management("/metrics").await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_take_no_slot() {
    let (_pipeline, mut gateway) =
        gateway(Setup::new().set("gateway.body_read_timeout", "20s")).await;
    let event = Samples::stripe().event(1);
    let mut held = Vec::new();
    for _ in 0..32 {
        let mut client = http2(&gateway).await;
        for _ in 0..128 {
            held.push(begin(&mut client, &gateway, &event).await.unwrap());
        }
    }
    until("the gateway to take what it takes of them", secs(5), async || {
        let waiting = metric(&gateway, "sluice_gateway_in_flight").await;
        assert!(waiting <= 32.0 * 16.0, "{waiting}");
        (waiting >= 32.0 * 16.0).then_some(())
    })
    .await;
    accepted(&gateway, 2).await;
    // What lacks its signature, or is for nobody, is answered although its body never comes.
    let mut client = http2(&gateway).await;
    for (webhook, status) in [
        (Webhook { headers: Vec::new(), ..event.clone() }, 401),
        (Webhook { source: "nobody".to_owned(), ..event.clone() }, 404),
    ] {
        let (response, _stream) = begin(&mut client, &gateway, &webhook).await.unwrap();
        let (found, body) = timeout(SOON, answer(response)).await.unwrap();
        assert_eq!(found, status, "{body}");
        let mut stream = connect(&gateway).await;
        stream.write_all(head(&webhook, "content-length: 9\r\n\r\n").as_bytes()).await.unwrap();
        let mut line = [0; 12];
        timeout(SOON, stream.read_exact(&mut line)).await.unwrap().unwrap();
        assert_eq!(line, *format!("HTTP/1.1 {status}").as_bytes());
    }
    drop(held);
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_follows_the_budget_however_a_body_is_cut() {
    const BUDGET_KIB: u64 = 32 << 10;
    let setup = Setup::new()
        .set("gateway.body_memory", "32MiB")
        .set("gateway.body_memory_per_address", "32MiB")
        .set("gateway.max_connections_per_address", 1000)
        .set("gateway.body_read_timeout", "30s");
    let (_pipeline, mut gateway) = gateway(setup).await;
    accepted(&gateway, 1).await;
    let event = Samples::stripe().event(2);
    let before = gateway.resident_kib();

    // A mebibyte in chunks of one byte: it is taken as any other, and refused for its signature.
    let mut stream = connect(&gateway).await;
    stream.write_all(head(&event, "transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunks = b"1\r\nx\r\n".repeat(1 << 12);
    for _ in 0..(1 << 20) / (1 << 12) - 1 {
        stream.write_all(&chunks).await.unwrap();
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for a body of a mebibyte");
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    timeout(secs(10), stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 401", "control: it was read to its end");

    // Bodies of 900 kB of which half has come, many times what the budget holds.
    let head = head(&event, "content-length: 900000\r\n\r\n");
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..400 {
        let mut stream = connect(&gateway).await;
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&vec![b'x'; 450_000]).await
        };
        let _ = timeout(secs(5), sent).await;
        let mut status = [0; 12];
        if let Ok(Ok(_)) = timeout(Duration::from_millis(2), stream.read_exact(&mut status)).await {
            assert_eq!(&status, b"HTTP/1.1 429");
            refused += 1;
        }
        held.push(stream);
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(refused > 200, "{refused}");
    assert!(grown < BUDGET_KIB + BUDGET_KIB / 10 + (16 << 10), "{grown} KiB");
    drop(held);
    // What they held is free again.
    until("a genuine event to be taken", secs(5), async || {
        let answer = Sender::new().post(&gateway.url(), &Samples::stripe().event(3)).await;
        answer.is_success().then_some(())
    })
    .await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_and_end() {
    let setup = Setup::new()
        .set("gateway.max_connections", 64)
        .set("gateway.max_connections_per_address", 1000)
        .set("gateway.header_read_timeout", "3s")
        .set("gateway.idle_timeout", "2s");
    let (_pipeline, mut gateway) = gateway(setup).await;
    // Half of them say nothing, half have said that they speak HTTP/2.
    let mut held = Vec::new();
    let mut clients = Vec::new();
    for number in 0..160 {
        if number % 2 == 0 {
            held.push(connect(&gateway).await);
        } else {
            clients.push(http2(&gateway).await);
        }
    }
    accepted(&gateway, 1).await;
    assert!(metric(&gateway, "sluice_gateway_connections{state=\"opening\"}").await > 50.0);
    assert!(
        metric(&gateway, "sluice_gateway_connections_closed_total{reason=\"evicted\"}").await
            > 50.0
    );
    // A request does not keep a connection for ever either.
    let event = Samples::stripe().event(2);
    let mut client = http2(&gateway).await;
    let (response, mut body) = begin(&mut client, &gateway, &event).await.unwrap();
    body.send_data(event.body.clone().into(), true).unwrap();
    assert_eq!(answer(response).await.0, 200);
    until("all of them to have ended", secs(15), async || {
        let mut open = 0.0;
        for state in ["opening", "active", "idle"] {
            open +=
                metric(&gateway, &format!("sluice_gateway_connections{{state=\"{state}\"}}")).await;
        }
        (open == 0.0).then_some(())
    })
    .await;
    assert!(client.ready().await.is_err(), "this one too");
    accepted(&gateway, 3).await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_its_share_of_connections() {
    let setup = Setup::new().set("gateway.max_connections_per_address", 8);
    let (_pipeline, mut gateway) = gateway(setup).await;
    let event = Samples::stripe().event(1);
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&gateway).await;
        stream.write_all(head(&event, "content-length: 9\r\n\r\n").as_bytes()).await.unwrap();
        held.push(stream);
    }
    until("all of them to wait for answers", secs(5), async || {
        let active = metric(&gateway, "sluice_gateway_connections{state=\"active\"}").await;
        (active >= 8.0).then_some(())
    })
    .await;
    // Of those that have not sent all of their request the oldest gives way, and so for each that comes.
    accepted(&gateway, 2).await;
    let mut rest = Vec::new();
    let closed = timeout(SOON, held[0].read_to_end(&mut rest)).await.unwrap();
    assert!(closed.is_err() || rest.is_empty());
    let active = metric(&gateway, "sluice_gateway_connections{state=\"active\"}").await;
    assert!((6.0..=8.0).contains(&active), "control: the others are still there: {active}");
    drop(held);
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_not_held_for_ever() {
    let (_pipeline, mut gateway) = gateway(Setup::new().set("gateway.write_timeout", "1s")).await;
    let mut stream = connect(&gateway).await;
    // Answers to all of these are far more than the buffers between hold.
    let request =
        b"POST /webhooks/nobody HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".repeat(1000);
    let started = Instant::now();
    let ended = timeout(secs(30), async {
        loop {
            if stream.write_all(&request).await.is_err() {
                break;
            }
        }
    });
    assert!(ended.await.is_ok(), "the gateway closed it");
    assert!(started.elapsed() < secs(20), "{:?}", started.elapsed());
    assert!(
        metric(&gateway, "sluice_gateway_connections_closed_total{reason=\"unread\"}").await >= 1.0
    );
    accepted(&gateway, 1).await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_said_all_gets_its_answer() {
    let (_pipeline, mut gateway) = gateway(Setup::new()).await;
    let event = Samples::stripe().event(1);
    let mut stream = connect(&gateway).await;
    let length = format!("content-length: {}\r\n\r\n", event.body.len());
    stream.write_all(head(&event, &length).as_bytes()).await.unwrap();
    stream.write_all(&event.body).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(secs(5), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");

    // HTTP/2 by hand: preface, settings, a request, and the end of all that is sent.
    let event = Samples::stripe().event(2);
    let (client, server) = tokio::io::duplex(1 << 20);
    let last = Arc::new(AtomicBool::new(false));
    let relay = half_closing_relay(server, connect(&gateway).await, Arc::clone(&last));
    let relay = tokio::spawn(relay);
    let (mut client, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let (response, mut body) = begin(&mut client, &gateway, &event).await.unwrap();
    // The head is on its way; what comes after this is the body and its end.
    tokio::time::sleep(Duration::from_millis(300)).await;
    last.store(true, Ordering::SeqCst);
    body.send_data(event.body.clone().into(), true).unwrap();
    assert_eq!(timeout(secs(5), answer(response)).await.unwrap().0, 200);
    drop((client, body));
    relay.await.unwrap();
    gateway.terminate().await;
}

/// Hands on what comes until the body has ended, then shuts the sending side, before any answer to it is taken.
async fn half_closing_relay(
    mut client: tokio::io::DuplexStream,
    gateway: TcpStream,
    last: Arc<AtomicBool>,
) {
    let (mut from_gateway, mut to_gateway) = gateway.into_split();
    let mut sent = vec![0; 1 << 16];
    let mut answered = vec![0; 1 << 16];
    // The client's settings and request; those of the gateway have to be taken meanwhile.
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let read = read.unwrap();
                to_gateway.write_all(&sent[..read]).await.unwrap();
                if last.load(Ordering::SeqCst) {
                    break;
                }
            }
            read = from_gateway.read(&mut answered) => {
                client.write_all(&answered[..read.unwrap()]).await.unwrap();
            }
        }
    }
    to_gateway.shutdown().await.unwrap();
    while let Ok(read) = from_gateway.read(&mut answered).await {
        if read == 0 || client.write_all(&answered[..read]).await.is_err() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_fill_the_log() {
    let (_pipeline, mut gateway) = gateway(Setup::new()).await;
    let before = gateway.log().lines().count();
    let junk: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\n\r\n\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // An acknowledgement of a ping that nobody sent.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678",
        b"POST /webhooks/stripe HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ];
    for number in 0..500 {
        let mut stream = connect(&gateway).await;
        stream.write_all(junk[number % junk.len()]).await.unwrap();
    }
    let forged = Samples::stripe().event(1).header("stripe-signature", "t=1,v1=00");
    for _ in 0..100 {
        Sender::new().post(&gateway.url(), &forged).await;
    }
    accepted(&gateway, 2).await;
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert!(lines.len() < 60, "{} lines:\n{log}", lines.len());
    assert!(
        metric(&gateway, "sluice_gateway_connections_closed_total{reason=\"broken\"}").await > 50.0
    );
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_do_not_shut_out_a_probe() {
    let (_pipeline, mut gateway) = gateway(Setup::new()).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(gateway.management_address()).await.unwrap();
        stream.write_all(b"GET /heal").await.unwrap();
        held.push(stream);
    }
    let probed = timeout(SOON, gateway.management("/healthz")).await.unwrap().unwrap();
    assert_eq!(probed.0, 200);
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lets_its_holder_in_is_neither_stored_nor_shown() {
    let (pipeline, mut gateway) = gateway(Setup::new()).await;
    let event = Samples::stripe()
        .event(1)
        .header("authorization", "Bearer do-not-keep-me")
        .header("cookie", "session=do-not-keep-me")
        .header("x-shown", "as-it-came");
    let answer = Sender::new().post(&gateway.url(), &event).await;
    assert!(answer.is_success(), "{answer:?}");
    let raw = read::bytes(&pipeline.cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    let value = String::from_utf8_lossy(raw[0].value.as_deref().unwrap()).into_owned();
    assert!(!value.contains("do-not-keep-me") && value.contains("as-it-came"), "{value}");
    let tail = pipeline.run(&["tail", "raw", "--output", "json"]).await;
    assert!(tail.contains("authorization") && tail.contains("sha256:"), "{tail}");
    assert!(!tail.contains("do-not-keep-me") && !gateway.log().contains("do-not-keep-me"));
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_printed_safely_is_a_digest() {
    let (pipeline, mut gateway) = gateway(Setup::new()).await;
    let odd = "evt_\u{202e}1\\u001b[2J\\n";
    let body = format!(
        r#"{{"id":"{odd}","object":"event","type":"a\u0085b","data":{{"object":{{"id":"{}"}}}}}}"#,
        "x".repeat(100_000)
    );
    let answer = Sender::new().post(&gateway.url(), &stripe_body("odd", body.into_bytes())).await;
    assert!(answer.is_success(), "{answer:?}");
    let mut processor = pipeline.processor("p");
    processor.ready().await;
    drained(&pipeline, secs(30)).await;
    let account = Account::read(&pipeline).await;
    let event = &account.processed[0].value;
    for text in [&event.event_id, &event.event_type, &event.event_key, &event.kind] {
        assert!(text.is_ascii() && !text.contains(char::is_control), "{event:?}");
    }
    assert!(event.event_id.starts_with("sha256:") && event.event_type.starts_with("sha256:"));
    assert_eq!(event.kind, format!("provider.{}", event.event_type));
    assert_eq!(event.object_id, None, "an ID has 512 bytes at most");
    processor.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let pipeline = Setup::new().create(&shared().await).await;
    let state = pipeline.dir().join("state-p");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut processor = pipeline.processor("p");
    processor.ready().await;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let mut folders = vec![state];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
            }
        }
    }
    assert!(files > 0, "control: there is a lock, at least");
    processor.terminate().await;
}
