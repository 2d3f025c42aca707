//! Reading by position, offsets by time, lag.

use super::*;

pub(super) async fn transactions_and_positions(settings: &ClientSettings) {
    let topics = created(settings, "t.").await;
    let topic = topics.processed().to_owned();
    let own = settings.clone();
    let producer = blocking({
        let topic = topic.clone();
        move || {
            let producer = transactional(&own, "t-1");
            for (value, commits) in [("a", true), ("b", false), ("c", true), ("d", false)] {
                producer.begin_transaction().unwrap();
                send(&producer, &topic, 0, value.as_bytes());
                producer.flush(LIMIT).unwrap();
                if commits {
                    producer.commit_transaction(LIMIT).unwrap();
                } else {
                    producer.abort_transaction(LIMIT).unwrap();
                }
            }
            producer
        }
    })
    .await;

    // The last offsets of the partition are an aborted record and markers that nobody is given:
    // reading ends by position, soon.
    let began = Instant::now();
    let committed =
        read(settings, Isolation::ReadCommitted, &topic, Start::Earliest, End::HighWatermark).await;
    assert_eq!(values(&committed.unwrap()), ["a", "c"]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let all =
        read(settings, Isolation::ReadUncommitted, &topic, Start::Earliest, End::HighWatermark)
            .await;
    assert_eq!(values(&all.unwrap()), ["a", "b", "c", "d"]);

    // An open transaction: below it is stable, above it a committed reader waits and then says so.
    let producer = blocking({
        let topic = topic.clone();
        move || {
            producer.begin_transaction().unwrap();
            send(&producer, &topic, 0, b"e");
            producer.flush(LIMIT).unwrap();
            producer
        }
    })
    .await;
    let reader = Reader::new(settings, Isolation::ReadCommitted).unwrap();
    let (marks, stable) = blocking({
        let topic = topic.clone();
        move || (reader.watermarks(&topic).unwrap(), reader.last_stable_offsets(&topic).unwrap())
    })
    .await;
    assert_eq!((marks[0], stable[0]), ((0, 0, 9), (0, 8)));
    let stable =
        read(settings, Isolation::ReadCommitted, &topic, Start::Earliest, End::LastStable).await;
    assert_eq!(values(&stable.unwrap()), ["a", "c"]);
    let waits =
        read(settings, Isolation::ReadCommitted, &topic, Start::Earliest, End::HighWatermark).await;
    assert!(
        matches!(&waits, Err(ClientError::Stalled { partitions, .. }) if partitions == &[0]),
        "{waits:?}"
    );
    blocking(move || {
        producer.commit_transaction(LIMIT).unwrap();
    })
    .await;
    let after = read(
        settings,
        Isolation::ReadCommitted,
        &topic,
        Start::Offsets([(0, 8)].into()),
        End::HighWatermark,
    )
    .await;
    assert_eq!(values(&after.unwrap()), ["e"]);

    let beyond = read(
        settings,
        Isolation::ReadCommitted,
        &topic,
        Start::Offsets([(0, 99)].into()),
        End::HighWatermark,
    )
    .await;
    assert!(
        matches!(beyond, Err(ClientError::OffsetOutOfRange { low: 0, high: 10, .. })),
        "{beyond:?}"
    );
    let beside = read(
        settings,
        Isolation::ReadCommitted,
        &topic,
        Start::Offsets([(7, 0)].into()),
        End::HighWatermark,
    )
    .await;
    assert!(matches!(beside, Err(ClientError::UnknownPartition { last: 2, .. })), "{beside:?}");
}

pub(super) async fn times_and_lag(settings: &ClientSettings) {
    let topics = created(settings, "l.").await;
    let publisher = Publisher::connect(settings, PublisherOptions::default()).unwrap();
    let mut stamps = Vec::new();
    for value in ["a", "b", "c"] {
        let record = outgoing(topics.raw(), Some(1), b"k", value.as_bytes());
        let stored = publisher.enqueue(record).unwrap().await.unwrap();
        stamps.push(stored.timestamp_ms.unwrap());
        // The next record gets a later millisecond.
        while std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis()
            <= u128::try_from(stamps[stamps.len() - 1]).unwrap()
        {
            tokio::task::yield_now().await;
        }
    }
    let (topic, middle) = (topics.raw().to_owned(), stamps[1]);
    let own = settings.clone();
    let (at, late) = blocking(move || {
        let reader = Reader::new(&own, Isolation::ReadCommitted).unwrap();
        (
            reader.offsets_for_time(&topic, middle).unwrap(),
            reader.offsets_for_time(&topic, middle + 3_600_000).unwrap(),
        )
    })
    .await;
    assert_eq!(at, [(0, 0), (1, 1), (2, 0)]);
    assert_eq!(late, [(0, 0), (1, 3), (2, 0)]);
    let since = read(
        settings,
        Isolation::ReadCommitted,
        topics.raw(),
        Start::Time(middle),
        End::HighWatermark,
    )
    .await;
    assert_eq!(values(&since.unwrap()), ["b", "c"]);
    let latest =
        read(settings, Isolation::ReadCommitted, topics.raw(), Start::Latest, End::HighWatermark)
            .await;
    assert_eq!(latest.unwrap(), []);

    // Without an end, until the callback breaks.
    let (own, topic) = (settings.clone(), topics.raw().to_owned());
    let taken = blocking(move || {
        let mut taken = 0;
        let reader = Reader::new(&own, Isolation::ReadCommitted).unwrap();
        let outcome = reader.read_range(&topic, &Start::Earliest, End::Never, |_| {
            taken += 1;
            if taken == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        outcome.map(|()| taken)
    })
    .await;
    assert_eq!(taken, Ok(2));

    // Two records in two transactions take four offsets; the markers are no lag.
    let (own, topic) = (settings.clone(), topics.failed().to_owned());
    blocking(move || {
        let producer = transactional(&own, "l-1");
        for _ in 0..2 {
            producer.begin_transaction().unwrap();
            send(&producer, &topic, 0, b"x");
            producer.flush(LIMIT).unwrap();
            producer.commit_transaction(LIMIT).unwrap();
        }
    })
    .await;
    let (own, topic) = (settings.clone(), topics.failed().to_owned());
    let admin = Admin::connect(settings).unwrap();
    for (offset, records) in [(0, 2), (1, 1), (3, 0), (4, 0)] {
        let offsets = BTreeMap::from([(topic.clone(), BTreeMap::from([(0, offset)]))]);
        admin.reset_offsets("l-group", &offsets).await.unwrap();
        let (own, topic) = (own.clone(), topic.clone());
        let lag = blocking(move || {
            Reader::new(&own, Isolation::ReadCommitted).unwrap().lag("l-group", &topic)
        })
        .await
        .unwrap();
        assert_eq!((lag[0].committed, lag[0].end), (Some(offset), 4));
        assert_eq!((lag[0].records, lag[0].exact), (records, true), "from {offset}");
        assert_eq!((lag[1].committed, lag[1].records), (None, 0));
    }
}

pub(super) async fn the_last_of_the_first_kind(settings: &ClientSettings) {
    let topics = created(settings, "s.").await;
    let topic = topics.raw().to_owned();
    let publisher = Publisher::connect(settings, PublisherOptions::default()).unwrap();
    let marked = [("kind", &b"old"[..])];
    let mut newest = None;
    // Partition 0 holds both kinds, 1 the second alone, 2 the first alone; so the newest is to be found in 2.
    let plan = [(0, 5, 8), (1, 0, 3), (2, 2, 0)];
    for (partition, old, new) in plan {
        for number in 0..old + new {
            let mut record = outgoing(&topic, Some(partition), b"k", b"v");
            if number < old {
                record.headers = &marked;
            }
            let stored = publisher.enqueue(record).unwrap().await.unwrap();
            if number < old {
                newest = newest.max(stored.timestamp_ms);
            }
        }
    }
    let reader = Reader::new(settings, Isolation::ReadUncommitted).unwrap();
    let (found, none) = blocking(move || {
        let is_old = |record: &OwnedRecord| !record.headers.is_empty();
        let found = reader.newest_of_the_first(&topic, is_old).unwrap();
        (found, reader.newest_of_the_first(&topic, |_| false).unwrap())
    })
    .await;
    assert!(newest.is_some());
    assert_eq!((found, none), (newest, None));
}
