//! The proxy between sockets of the test's own: what passes, byte by byte.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use sluice_chaos::proxy::{Action, ApiKey, Fault, Proxy, Side};
use sluice_dev_stack::Route;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{LIMIT, SECOND, until};

/// A listener in the place of a broker, and a proxy in front of it.
async fn bench() -> (TcpListener, Proxy, u16) {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let upstream_port = upstream.local_addr().unwrap().port();
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let listen = free.local_addr().unwrap().port();
        drop(free);
        // Somebody else may be given the port in the meantime.
        let route = Route { broker: 1, listen, upstream: upstream_port };
        if let Ok(proxy) = Proxy::start(&[route]).await {
            return (upstream, proxy, listen);
        }
    }
}

async fn connect(upstream: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (broker, _) = timeout(LIMIT, upstream.accept()).await.unwrap().unwrap();
    (client, broker)
}

/// A Fetch request, version 4, of the client `c`.
fn request(correlation: i32, body: &[u8]) -> Vec<u8> {
    request_of([0, 1, 0, 4], correlation, body)
}

/// A request of the client `c`; the head has the key and the version.
fn request_of(head: [u8; 4], correlation: i32, body: &[u8]) -> Vec<u8> {
    let size = (head.len() + 4 + 3 + body.len()) as i32;
    let parts: [&[u8]; 5] =
        [&size.to_be_bytes(), &head, &correlation.to_be_bytes(), &[0, 1, b'c'], body];
    parts.concat()
}

fn response(correlation: i32, body: &[u8]) -> Vec<u8> {
    let size = (4 + body.len()) as i32;
    [&size.to_be_bytes(), &correlation.to_be_bytes(), body].concat()
}

async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut found = vec![0; wanted.len()];
    timeout(LIMIT, stream.read_exact(&mut found)).await.unwrap().unwrap();
    assert_eq!(found, wanted);
}

/// Whether the other side has closed the connection; nothing else may come.
async fn expect_closed(stream: &mut TcpStream) {
    let found = timeout(LIMIT, stream.read(&mut [0; 16])).await.unwrap();
    // A reset is a close as well.
    assert!(matches!(found, Ok(0) | Err(_)), "{found:?}");
}

#[tokio::test]
async fn rubbish_closes_the_connection_and_frames_pass() {
    let (upstream, proxy, port) = bench().await;
    for rubbish in
        [&b"\x7f\xff\xff\xff"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x0a\xff\xff\xff\xff"]
    {
        let (mut client, mut broker) = connect(&upstream, port).await;
        // The control: what makes sense passes on the same connection.
        client.write_all(&request(1, b"body")).await.unwrap();
        expect(&mut broker, &request(1, b"body")).await;
        client.write_all(rubbish).await.unwrap();
        expect_closed(&mut client).await;
        expect_closed(&mut broker).await;
    }
    let (mut client, mut broker) = connect(&upstream, port).await;
    broker.write_all(b"\x7f\xff\xff\xff").await.unwrap();
    expect_closed(&mut client).await;
    expect_closed(&mut broker).await;
    proxy.stop().await;
}

#[tokio::test]
async fn frames_in_any_pieces_are_told_apart() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    proxy.arm(Fault::new(ApiKey::Fetch, Side::Response, Action::Cut)).unwrap();
    // Not armed for what these are: an unknown answer, and answers to nothing.
    let before = [response(77, b"unasked"), response(78, &[7; 300_000])].concat();
    let writing = tokio::spawn(async move {
        for byte in &before[..40] {
            broker.write_all(&[*byte]).await.unwrap();
            broker.flush().await.unwrap();
        }
        broker.write_all(&before[40..]).await.unwrap();
        (broker, before)
    });
    let mut found = vec![0; 300_000 + 8 + 15];
    timeout(LIMIT, client.read_exact(&mut found)).await.unwrap().unwrap();
    let (mut broker, before) = writing.await.unwrap();
    assert!(found == before);

    // Two requests in one piece; the second one's answer comes with what precedes it, and is cut.
    let two = [request(1, b"a"), request(2, b"b")].concat();
    client.write_all(&two).await.unwrap();
    expect(&mut broker, &two).await;
    let asked = [response(99, b"unasked"), response(1, b"struck"), response(2, b"never")].concat();
    broker.write_all(&asked).await.unwrap();
    expect(&mut client, &response(99, b"unasked")).await;
    expect_closed(&mut client).await;
    assert_eq!(proxy.fired(), BTreeMap::from([("cut Fetch response".to_owned(), 1)]));
    proxy.stop().await;
}

#[tokio::test]
async fn an_end_on_one_side_ends_the_other_and_a_stop_ends_all() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, broker) = connect(&upstream, port).await;
    drop(broker);
    expect_closed(&mut client).await;
    let (client, mut broker) = connect(&upstream, port).await;
    drop(client);
    expect_closed(&mut broker).await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    client.write_all(&request(1, b"x")).await.unwrap();
    expect(&mut broker, &request(1, b"x")).await;
    proxy.stop().await;
    expect_closed(&mut client).await;
    expect_closed(&mut broker).await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
}

#[tokio::test]
async fn a_black_hole_swallows_until_the_client_gives_up() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    proxy.arm(Fault::new(ApiKey::Fetch, Side::Request, Action::Drop)).unwrap();
    client.write_all(&request(1, b"swallowed")).await.unwrap();
    until("the fault", || proxy.fired().contains_key("drop Fetch request")).await;
    client.write_all(&request(2, b"swallowed too")).await.unwrap();
    broker.write_all(&response(1, b"never arrives")).await.unwrap();
    let mut byte = [0];
    assert!(timeout(SECOND / 2, client.read(&mut byte)).await.is_err(), "open and silent");
    drop(client);
    expect_closed(&mut broker).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_is_refused_in_its_turn_and_what_is_behind_it_passes() {
    let (upstream, proxy, port) = bench().await;
    let refuse = |milliseconds| {
        let action = Action::Refuse(Duration::from_millis(milliseconds));
        Fault::new(ApiKey::Produce, Side::Request, action)
    };
    let produce = |correlation, records: &[u8]| {
        // No tagged fields; no transactional.id, acks of all, a time-out; the partition 7 of the topic `t`.
        let target = [0, 0, 0xff, 0xff, 0, 0, 0x75, 0x30, 2, 2, b't', 2, 0, 0, 0, 7];
        request_of([0, 0, 0, 10], correlation, &[target.as_slice(), records].concat())
    };
    let refusal = |correlation| {
        let told = [0, 2, 2 | 0x80, 0, b't', 2, 0, 0, 0, 7, 0, 6];
        let rest = [1, 0, 0, 0, 0, 0, 0, 0, 0];
        response(correlation, &[told.as_slice(), &[0xff; 24], &rest].concat())
    };

    let (mut client, mut broker) = connect(&upstream, port).await;
    proxy.arm(refuse(200).first_of_connection()).unwrap();
    client.write_all(&request(1, b"before")).await.unwrap();
    client.write_all(&produce(2, &[5; 300_000])).await.unwrap();
    client.write_all(&request(3, b"behind")).await.unwrap();
    expect(&mut broker, &[request(1, b"before"), request(3, b"behind")].concat()).await;
    broker.write_all(&[response(1, b"one"), response(3, b"three")].concat()).await.unwrap();
    let start = Instant::now();
    expect(&mut client, &[response(1, b"one"), refusal(2), response(3, b"three")].concat()).await;
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(proxy.fired(), BTreeMap::from([("refuse Produce request".to_owned(), 1)]));

    // It is the first no more: not meant.
    proxy.arm(refuse(0).first_of_connection()).unwrap();
    client.write_all(&produce(4, b"passes")).await.unwrap();
    expect(&mut broker, &produce(4, b"passes")).await;
    broker.write_all(&response(4, b"stored")).await.unwrap();
    expect(&mut client, &response(4, b"stored")).await;
    assert_eq!(proxy.disarm_all(), 1);
    // The broker is silent: nothing else brings the answer.
    proxy.arm(refuse(0)).unwrap();
    client.write_all(&produce(5, b"refused")).await.unwrap();
    expect(&mut client, &refusal(5)).await;

    // What cannot be refused is not passed on either.
    proxy.arm(refuse(0)).unwrap();
    client.write_all(&request_of([0, 0, 0, 8], 6, b"of an old version")).await.unwrap();
    expect_closed(&mut client).await;
    expect_closed(&mut broker).await;
    proxy.stop().await;
}

/// Run in release: `cargo test --release -p sluice-chaos --test proxy -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, of optimised code"]
async fn a_hundred_megabytes_a_second_pass_on_one_core() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    let frame = request(1, &vec![5; 1_000_000]);
    let count = 2_000;
    let start = Instant::now();
    let total = frame.len() * count;
    let writing = async {
        for _ in 0..count {
            client.write_all(&frame).await.unwrap();
        }
    };
    let reading = async {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = total;
        while left > 0 {
            left -= broker.read(&mut buffer).await.unwrap();
        }
    };
    tokio::join!(writing, reading);
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    std::io::Write::write_all(&mut std::io::stderr(), format!("{rate:.0} MB/s\n").as_bytes())
        .unwrap();
    assert!(rate >= 100.0, "{rate:.0} MB/s");
    proxy.stop().await;
}
