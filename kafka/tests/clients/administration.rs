//! Topics and consumer groups.

use super::*;

pub(super) async fn create_and_check(settings: &ClientSettings) {
    let admin = Admin::connect(settings).unwrap();
    admin.reachable(LIMIT).await.unwrap();
    let specs = topics("a.").spec(&["a.refunds".into()], true);

    let absent = admin.check(&specs).await.unwrap();
    assert_eq!(absent.len(), specs.len());
    assert!(absent.iter().all(|d| d.what == "existence" && d.severity == Severity::Refuse));

    let first = admin.create(&specs).await.unwrap();
    assert!(first.iter().all(|(_, done)| *done == Creation::Created));
    assert_eq!(admin.check(&specs).await.unwrap(), []);
    let second = admin.create(&specs).await.unwrap();
    assert!(second.iter().all(|(_, done)| *done == Creation::Existed));

    // The same topics, wanted differently: every difference is seen on the real broker's answers.
    let mut wanted = topic_settings("a.");
    wanted.partitions = 6;
    wanted.replication_factor = 3;
    wanted.min_insync_replicas = 2;
    wanted.journal_retention = DAY * 400;
    let wanted = Topics::new(wanted, Vec::new()).unwrap();
    let specs = wanted.spec(&[], false);
    let differences = admin.check(&specs).await.unwrap();
    let of = |topic: &str| -> Vec<(&str, Severity)> {
        differences
            .iter()
            .filter(|d| d.topic == topic)
            .map(|d| (d.what.as_str(), d.severity))
            .collect()
    };
    let common = [
        ("partitions", Severity::Refuse),
        ("replication", Severity::Warn),
        ("min.insync.replicas", Severity::Warn),
    ];
    assert_eq!(of("a.webhooks.raw"), common);
    assert_eq!(of("a.webhooks.dedup")[..3], common);
    assert_eq!(of("a.webhooks.dedup")[3..], [("retention.ms", Severity::Refuse)]);

    // More replicas than brokers: not created, with the reason.
    let mut specs = topics("b.").spec(&[], false);
    specs[0].replication = 3;
    let Err(ClientError::TopicsNotCreated { failures }) = admin.create(&specs[..1]).await else {
        panic!("one broker cannot hold three replicas");
    };
    assert!(failures[0].1.contains("topics.replication_factor"), "{failures:?}");
}

pub(super) async fn groups_and_offsets(settings: &ClientSettings) {
    let topics = created(settings, "g.").await;
    let publisher = Publisher::connect(settings, PublisherOptions::default()).unwrap();
    for _ in 0..5 {
        publisher.enqueue(outgoing(topics.raw(), Some(0), b"k", b"{}")).unwrap().await.unwrap();
    }
    let admin = Admin::connect(settings).unwrap();
    let group = "g-group";
    let state = admin.consumer_group_state(group).await.unwrap();
    assert_eq!((state.state.as_str(), state.members.len()), ("Absent", 0));

    let offsets = |partition, offset| {
        BTreeMap::from([(topics.raw().to_owned(), BTreeMap::from([(partition, offset)]))])
    };
    admin.reset_offsets(group, &offsets(0, 2)).await.unwrap();
    admin.reset_offsets(group, &offsets(1, 0)).await.unwrap();
    let committed = |settings: ClientSettings, topic: String| {
        blocking(move || {
            Reader::new(&settings, Isolation::ReadCommitted)
                .unwrap()
                .committed(group, &topic)
                .unwrap()
        })
    };
    assert_eq!(committed(settings.clone(), topics.raw().into()).await, [Some(2), Some(0), None]);
    let beyond = admin.reset_offsets(group, &offsets(0, 6)).await;
    assert!(matches!(beyond, Err(ClientError::OffsetOutOfRange { .. })), "{beyond:?}");

    // A member joins: from then on its offsets are its own.
    let (own, topic) = (settings.clone(), topics.raw().to_owned());
    let member = blocking(move || {
        let member: BaseConsumer = own
            .worker_consumer_config(&WorkerConsumerOptions {
                group: group.into(),
                instance_id: "g-0".into(),
                session_timeout: Duration::from_secs(15),
                transaction_timeout: Duration::from_secs(10),
            })
            .unwrap()
            .create()
            .unwrap();
        member.subscribe(&[&topic]).unwrap();
        let deadline = Instant::now() + LIMIT;
        while member.assignment().unwrap().count() < 3 {
            // Partition 2 has no offset, which this consumer must not make up: an error, no record.
            let _ = member.poll(Duration::from_millis(50));
            assert!(Instant::now() < deadline, "no assignment");
        }
        member
    })
    .await;
    let state = admin.consumer_group_state(group).await.unwrap();
    assert_eq!(state.members.len(), 1, "{state:?}");
    assert_eq!(state.members[0].client_id, "clients-test");
    let refused = admin.reset_offsets(group, &offsets(0, 0)).await;
    assert!(matches!(refused, Err(ClientError::GroupNotEmpty { members: 1, .. })), "{refused:?}");
    assert_eq!(committed(settings.clone(), topics.raw().into()).await, [Some(2), Some(0), None]);
    blocking(move || drop(member)).await;
}
