//! What is refused, how, and that its harmless neighbour is not.

use std::time::{Duration, Instant};

use sluice_schemas::{RawWebhook, Rejected};

use crate::support::{
    MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, PER_ADDRESS, READ_TIMEOUT, Running, World, exchange,
    now_ms, stripe_signature,
};

pub async fn unknown_sources_methods_and_addresses_are_refused(world: &World, gateway: &Running) {
    let event = world.event();
    for unknown in ["nobody", "shop/", "Shop", "%73hop", ""] {
        world.post(gateway, unknown, &event).await.is_problem(404);
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = world.send(gateway, method, "shop", &[], Vec::new()).await;
        assert_eq!(answer.is_problem(405).header("allow"), "POST");
    }
    let answer = world.send(gateway, "HEAD", "shop", &[], Vec::new()).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    let from = |address: &'static str| {
        let mut event = world.event();
        event.headers.push(("x-forwarded-for".to_owned(), address.to_owned()));
        event
    };
    world.post(gateway, "office", &from("198.51.100.7")).await.is_problem(403);
    // What the sender claims left of its own address is not believed.
    world.post(gateway, "office", &from("192.0.2.9, 198.51.100.8")).await.is_problem(403);
    world.post(gateway, "office", &from("192.0.2.9")).await.is_accepted();
    world.post(gateway, "shop", &event).await.is_accepted();
}

pub async fn every_kind_of_bad_signature_is_401_and_counted(world: &World, gateway: &Running) {
    let event = world.event();
    let (_, good) = event
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("stripe-signature"))
        .unwrap();
    let before = world.read::<RawWebhook>(world.topics.raw()).await.len();
    let stale = stripe_signature(&event.body, now_ms() - 3_600_000);
    let future = stripe_signature(&event.body, now_ms() + 3_600_000);
    let mut forged = good[..good.len() - 1].to_owned();
    forged.push(if good.ends_with('0') { '1' } else { '0' });
    let cases: [&[(&str, &str)]; 6] = [
        &[("authorization", "Bearer topsecret")],
        &[("stripe-signature", "t=soon,v1=00")],
        &[("stripe-signature", good), ("stripe-signature", &forged)],
        &[("stripe-signature", &forged)],
        &[("stripe-signature", &stale)],
        &[("stripe-signature", &future)],
    ];
    for headers in cases {
        let answer = world.send(gateway, "POST", "shop", headers, event.body.to_vec()).await;
        let answer = answer.is_problem(401);
        assert!(!answer.header("www-authenticate").is_empty());
    }
    // Nothing of them was stored, but a note of each without body and without header values.
    let after = world.read::<RawWebhook>(world.topics.raw()).await;
    assert_eq!(after.len(), before);
    world.post(gateway, "shop", &event).await.is_accepted();
    let mut refused = Vec::new();
    let started = Instant::now();
    while refused.len() < cases.len() && started.elapsed() < Duration::from_secs(20) {
        refused = world.read::<Rejected>(world.topics.rejected()).await;
    }
    assert_eq!(refused.len(), cases.len());
    for (record, note) in &refused {
        assert_eq!(note.source, "shop");
        // Without its signature a request is refused before its body is read.
        let read = if note.reason == "missing" { 0 } else { event.body.len() };
        assert_eq!(note.body_bytes, i64::try_from(read).unwrap());
        let bytes = record.value.clone().unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("topsecret"));
    }
    let bearer = refused.iter().find(|(_, note)| note.reason == "missing").unwrap();
    assert!(bearer.1.header_names.contains(&"authorization".to_owned()));
}

pub async fn too_much_is_refused(world: &World, gateway: &Running) {
    // The largest body that is taken, signed, and one byte more.
    let body = vec![b'x'; MAX_BODY];
    let signature = stripe_signature(&body, now_ms());
    let headers = [("stripe-signature", &*signature)];
    world.send(gateway, "POST", "shop", &headers, body.clone()).await.is_accepted();
    let longer = vec![b'x'; MAX_BODY + 1];
    world.send(gateway, "POST", "shop", &headers, longer).await.is_problem(413);
    // Far more than socket buffers hold: the answer must survive the rest of the body.
    let huge = vec![b'x'; 100 * MAX_BODY];
    world.send(gateway, "POST", "shop", &headers, huge).await.is_problem(413);
    // Without a declared length, as soon as it is too long.
    let mut stream = gateway.connect().await;
    let head = format!(
        "POST /webhooks/shop HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {}\r\nstripe-signature: t=1\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.fresh_address()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(format!("{:x}\r\n", MAX_BODY + 1).as_bytes());
    request.extend_from_slice(&vec![b'x'; MAX_BODY + 1]);
    let answer = exchange(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let event = world.event();
    let with = |count: usize, value: &str| {
        let mut event = event.clone();
        let more = (0..count).map(|i| (format!("x-more-{i}"), value.to_owned()));
        event.headers.extend(more);
        event
    };
    world.post(gateway, "shop", &with(MAX_HEADERS / 2, "v")).await.is_accepted();
    assert_eq!(world.post(gateway, "shop", &with(MAX_HEADERS, "v")).await.status, 431);
    let large = "v".repeat(MAX_HEADER_BYTES / 2);
    world.post(gateway, "shop", &with(1, &large)).await.is_accepted();
    assert_eq!(world.post(gateway, "shop", &with(2, &large)).await.status, 431);
    // A target that hyper refuses is no reason to hang either.
    let mut stream = gateway.connect().await;
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "v".repeat(10 * MAX_HEADER_BYTES));
    let answer = exchange(&mut stream, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer}");
}

pub async fn too_slow_is_refused(world: &World, gateway: &Running) {
    let bound = READ_TIMEOUT * 2 + Duration::from_secs(2);
    // A head that never ends: before and after the protocol version is known.
    let heads: [&[u8]; 3] =
        [b"POST", b"PRI * HTTP/2.0\r\n", b"POST /webhooks/shop HTTP/1.1\r\nhost: x\r\nx-slow: "];
    for head in heads {
        let started = Instant::now();
        let answer = exchange(&mut gateway.connect().await, head).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    }
    // A connection that says nothing is closed without a word.
    let started = Instant::now();
    assert_eq!(exchange(&mut gateway.connect().await, b"").await, "");
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    // A body that never ends.
    let head = format!(
        "POST /webhooks/shop HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {}\r\nstripe-signature: t=1\r\n\
         content-length: 9\r\n\r\nabc",
        world.fresh_address()
    );
    let started = Instant::now();
    let answer = exchange(&mut gateway.connect().await, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request_id"), "{answer}");
    assert!(started.elapsed() < bound, "{:?}", started.elapsed());
}

pub async fn too_often_is_refused(world: &World, gateway: &Running) {
    for _ in 0..2 {
        world.post(gateway, "slow", &world.event()).await.is_accepted();
    }
    let answer = world.post(gateway, "slow", &world.event()).await;
    let wait = answer.is_problem(429).retry_after();
    assert!((1..=1800).contains(&wait), "{wait}");
    // What is not verified neither spends that allowance nor goes on for ever.
    let forged = [("stripe-signature", "t=1,v1=00")];
    for _ in 0..2 {
        world.send(gateway, "POST", "calm", &forged, b"{}".to_vec()).await.is_problem(401);
    }
    world.send(gateway, "POST", "calm", &forged, b"{}".to_vec()).await.is_problem(429);
    for _ in 0..2 {
        world.post(gateway, "calm", &world.event()).await.is_accepted();
    }
    // Other sources have their own allowance.
    world.post(gateway, "shop", &world.event()).await.is_accepted();

    let address = world.fresh_address();
    let from_one_address = || {
        let mut event = world.event();
        event.headers.push(("x-forwarded-for".to_owned(), address.clone()));
        event
    };
    for _ in 0..PER_ADDRESS {
        world.post(gateway, "shop", &from_one_address()).await.is_accepted();
    }
    let answer = world.post(gateway, "shop", &from_one_address()).await;
    assert!(answer.is_problem(429).retry_after() > 0);
    world.post(gateway, "shop", &world.event()).await.is_accepted();
}

pub async fn http2_has_the_same_limits(world: &World, gateway: &Running) {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/webhooks/shop", gateway.address);
    let post = |more: usize, body: Option<Vec<u8>>| {
        let event = world.event();
        let mut request = client.post(&url).header("x-forwarded-for", world.fresh_address());
        for (name, value) in &event.headers {
            request = request.header(name, value);
        }
        for i in 0..more {
            request = request.header(format!("x-more-{i}"), "v");
        }
        request.body(body.unwrap_or_else(|| event.body.to_vec())).send()
    };
    assert_eq!(post(0, None).await.unwrap().status(), 200);
    assert_eq!(post(MAX_HEADERS, None).await.unwrap().status(), 431);
    assert_eq!(post(0, Some(vec![b'x'; MAX_BODY + 1])).await.unwrap().status(), 413);
}
