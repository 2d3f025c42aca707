//! The two librdkafka calls that its Rust binding does not offer in the form needed here.
#![allow(unsafe_code)]

use rdkafka::{
    bindings as rdsys,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    producer::{BaseProducer, Producer, ProducerContext},
};

/// The consumer's generation in its group, negative while it is not a member. Offsets sent with a
/// negative generation would not be fenced at all.
pub(super) fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> i32 {
    // SAFETY: the client outlives both calls, and the metadata is destroyed exactly once, here.
    unsafe {
        let metadata = rdsys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return -1;
        }
        let generation = rdsys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        rdsys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation
    }
}

/// Sends what lingers at once and waits for at most a millisecond. (`Producer::flush` waits 100 ms at a
/// time, which would be the price of every commit.)
pub(super) fn flush_briefly<C: ProducerContext>(producer: &BaseProducer<C>) {
    // SAFETY: the client outlives the call; a time-out is an expected answer.
    unsafe {
        rdsys::rd_kafka_flush(producer.client().native_ptr(), 1);
    }
}
