//! Publishing: acknowledgements, failures, bounds.

use super::*;

pub(super) async fn publish_and_read(settings: &ClientSettings) {
    let topics = created(settings, "p.").await;
    let publisher = Publisher::connect(settings, PublisherOptions::default()).unwrap();
    assert_eq!(publisher.status(), BrokerStatus::Unknown);
    let before = std::time::SystemTime::now();

    let headers: [(&str, &[u8]); 3] = [("ce_id", b"1"), ("twice", b"a"), ("twice", b"\xff")];
    let stored = publisher
        .enqueue(Outgoing {
            headers: &headers,
            ..outgoing(topics.raw(), None, b"stripe:evt_1", b"{}")
        })
        .unwrap()
        .await
        .unwrap();
    assert_eq!(publisher.status(), BrokerStatus::Reachable);
    assert_eq!(stored.offset, 0);
    let before_ms = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let stamped = stored.timestamp_ms.unwrap();
    assert!(u128::try_from(stamped).unwrap() + 1_000 >= before_ms);

    let records =
        read(settings, Isolation::ReadCommitted, topics.raw(), Start::Earliest, End::HighWatermark)
            .await
            .unwrap();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record.partition, stored.partition);
    assert_eq!(record.key.as_deref(), Some(&b"stripe:evt_1"[..]));
    assert_eq!(record.timestamp_ms, Some(stamped));
    let names: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    assert_eq!(names, headers);

    // What Java's default partitioner computes for these keys and three partitions.
    assert_eq!(stored.partition, 2);
    for (key, partition) in [("stripe:evt_2", 1), ("stripe:evt_5", 0), ("stripe:evt_1", 2)] {
        let record = outgoing(topics.raw(), None, key.as_bytes(), b"{}");
        let stored = publisher.enqueue(record).unwrap().await.unwrap();
        assert_eq!(stored.partition, partition, "{key}");
    }

    // Sequential acknowledgements: a wait hidden in the polling thread would show in the median.
    let mut waits = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let record = outgoing(topics.raw(), Some(1), b"", b"{}");
        publisher.enqueue(record).unwrap().await.unwrap();
        waits.push(began.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[100] < Duration::from_millis(25), "median {:?}", waits[100]);

    // Futures dropped at once: the records are stored all the same.
    for _ in 0..1_000 {
        drop(publisher.enqueue(outgoing(topics.raw(), Some(2), b"k", b"{}")).unwrap());
    }
    publisher.flush(LIMIT).await.unwrap();
    assert_eq!(publisher.in_flight(), 0);
    publisher.reachable(LIMIT).await.unwrap();
    let records = read(
        settings,
        Isolation::ReadUncommitted,
        topics.raw(),
        Start::Earliest,
        End::HighWatermark,
    )
    .await
    .unwrap();
    assert_eq!(records.len(), 1 + 3 + 200 + 1_000);
    assert!(records.iter().filter(|r| r.partition == 1 && r.key.is_none()).count() >= 200);

    // A dropped publisher waits for what is in flight.
    for _ in 0..100 {
        drop(publisher.enqueue(outgoing(topics.raw(), Some(0), b"last", b"{}")).unwrap());
    }
    blocking(move || drop(publisher)).await;
    let records =
        read(settings, Isolation::ReadCommitted, topics.raw(), Start::Earliest, End::HighWatermark)
            .await
            .unwrap();
    assert_eq!(records.iter().filter(|r| r.key.as_deref() == Some(b"last")).count(), 100);
}

pub(super) async fn publish_failures(settings: &ClientSettings) {
    let topics = created(settings, "f.").await;
    let publisher = Publisher::connect(settings, PublisherOptions::default()).unwrap();
    let large = vec![b'x'; 16 * 1024 * 1024 + 1];
    let refused = publisher.enqueue(outgoing(topics.raw(), Some(0), b"", &large));
    assert_eq!(refused.map(|_| ()).unwrap_err(), PublishError::TooLarge);
    assert_eq!(publisher.in_flight(), 0);
    // Positive control: 15 MiB of what does not compress fits.
    let fits: Vec<u8> = (0_u64..15 * 1024 * 1024 / 8)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect();
    publisher.enqueue(outgoing(topics.raw(), Some(0), b"", &fits)).unwrap().await.unwrap();

    let nowhere = outgoing(topics.raw(), Some(99), b"", b"{}");
    let outcome = match publisher.enqueue(nowhere) {
        Ok(acknowledged) => acknowledged.await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(PublishError::Rejected(_))), "{outcome:?}");

    // A topic that is not there is refused, and not made by accident.
    let outcome = match publisher.enqueue(outgoing("f.nowhere", None, b"", b"{}")) {
        Ok(acknowledged) => acknowledged.await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(outcome.is_err());
    let there =
        read(settings, Isolation::ReadCommitted, "f.nowhere", Start::Earliest, End::HighWatermark)
            .await;
    assert_eq!(there, Err(ClientError::UnknownTopic { topic: "f.nowhere".into() }));

    // Nobody answers at this address: the local queue fills, then says so at once.
    let away = ClientSettings { bootstrap_servers: "127.0.0.1:1".into(), ..settings.clone() };
    let options = PublisherOptions {
        queue_kbytes: 64,
        message_timeout: Duration::from_secs(1),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::connect(&away, options).unwrap();
    let value = [b'x'; 1024];
    let mut waiting = Vec::new();
    let full = loop {
        let began = Instant::now();
        match publisher.enqueue(outgoing("t", None, b"k", &value)) {
            Ok(acknowledged) => waiting.push(acknowledged),
            Err(error) => break error,
        }
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(waiting.len() < 100, "64 KiB do not hold 100 KiB");
    };
    assert_eq!(full, PublishError::QueueFull);
    assert_eq!(publisher.in_flight(), waiting.len());
    assert_eq!(publisher.flush(Duration::from_millis(10)).await, Err(PublishError::TimedOut));
    for acknowledged in waiting {
        assert_eq!(acknowledged.await, Err(PublishError::TimedOut));
    }
    publisher.flush(LIMIT).await.unwrap();
    assert_eq!(publisher.status(), BrokerStatus::Unreachable);
    let unreachable = publisher.reachable(Duration::from_secs(1)).await;
    assert!(matches!(unreachable, Err(ClientError::Unreachable { .. })), "{unreachable:?}");

    // Dropped with records in flight that never arrive: bounded, and nobody waits for ever.
    let options = PublisherOptions { message_timeout: Duration::from_secs(300), ..options };
    let publisher = Publisher::connect(&away, options).unwrap();
    let lost = publisher.enqueue(outgoing("t", None, b"k", &value)).unwrap();
    let began = Instant::now();
    blocking(move || drop(publisher)).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(lost.await, Err(PublishError::TimedOut));
}
