//! What Kafka and its client can do on this machine with nothing of sluice around them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::anyhow;
use rdkafka::producer::BaseRecord;

use super::{BODY, Outcome, processor};
use crate::{
    lab::{
        Lab,
        kafka::{self, Sender},
    },
    load::event::Events,
    noise::Window,
};

const PARTITIONS: u32 = 6;

/// L0: bodies as they are, keyed as the gateway keys them.
pub fn produce(lab: &Lab) -> anyhow::Result<Outcome> {
    let topic = lab.unique("l0");
    kafka::create_topic(lab, &topic, PARTITIONS)?;
    let events = Events::new("l0", BODY)?;
    let mut sender = Sender::as_gateway(lab)?;
    let counts = sender.counts();
    let stop = AtomicBool::new(false);
    let (before, after, usage) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut body = Vec::new();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                body.clear();
                events.body(number, &mut body);
                let key = events.key(number);
                let record = BaseRecord::<[u8], [u8], ()>::to(&topic).key(key.as_bytes());
                sender.send(record.payload(&body))?;
                number += 1;
            }
            sender.finish()
        });
        let watched = (|| {
            thread::sleep(Duration::from_secs(1));
            let (window, before) = (Window::open(&lab.children)?, counts.acknowledged());
            thread::sleep(Duration::from_secs(lab.scale(5, 3)));
            let after = counts.acknowledged();
            anyhow::Ok((before, after, window.close(&lab.children)?))
        })();
        stop.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| anyhow!("the producer panicked"))??;
        watched
    })?;
    kafka::delete_topics(lab, &[topic])?;
    Ok(Outcome::throughput("records", "1/s", (after - before) as f64, usage))
}

/// L3: the records of a raw topic, copied.
pub fn copy(lab: &Lab) -> anyhow::Result<Outcome> {
    let (from, to) = (lab.unique("l3-from"), lab.unique("l3-to"));
    kafka::create_topic(lab, &from, PARTITIONS)?;
    kafka::create_topic(lab, &to, PARTITIONS)?;
    let count = processor::records(lab);
    processor::fill(lab, &from, PARTITIONS, &Events::new("l3", BODY)?, 0..count)?;
    let window = Window::open(&lab.children)?;
    let rate = kafka::copy(lab, &from, &to, count)?;
    let usage = window.close(&lab.children)?;
    kafka::delete_topics(lab, &[from, to])?;
    let mut outcome = Outcome::throughput("records", "1/s", count as f64, usage);
    // The window also holds the connecting; the rate counts from the first record.
    if let Some(reading) = outcome.readings.first_mut() {
        reading.value = rate;
    }
    Ok(outcome)
}
