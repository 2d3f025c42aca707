//! Whether a delivery report is worth what it says.
//!
//! librdkafka reports records as stored that no broker has said to be: it infers it from a later record of the same
//! partition that was stored, or from a broker that says it has seen the sequence number before. The inference does not hold
//! when a partition's leader changes. Up to five records are on their way one by one; the first comes before the new leader
//! is ready and is refused, the second comes after. That leader has never heard of the producer, and from such a producer
//! Kafka takes any sequence number as the first. So the second is stored, and the first is taken for stored with it, and
//! lost. A report that is inferred has no offset, and that is how it is told apart: what became of its record is unknown.

use rdkafka::Message;
use sluice_service::faults::{Mutation, mutated};

/// Why a record without an offset is not known to be stored.
pub(crate) const INFERRED: &str =
    "the client takes it for stored, but no broker has told its offset";

/// Where the record was stored; `None` where no broker has said that it was.
pub(crate) fn offset(delivered: &impl Message) -> Option<i64> {
    let offset = delivered.offset();
    (offset >= 0 || mutated(Mutation::TrustInferred)).then_some(offset)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use rdkafka::{
        mocking::MockCluster,
        producer::DefaultProducerContext,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use crate::client::ClientSettings;

    /// A broker of the client's own, which can bring the client to infer.
    pub(crate) struct Inferring(MockCluster<'static, DefaultProducerContext>);

    impl Inferring {
        /// With one topic of one partition.
        pub(crate) fn start(topic: &str) -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic(topic, 1, 1).unwrap();
            Self(cluster)
        }

        pub(crate) fn settings(&self) -> ClientSettings {
            ClientSettings {
                bootstrap_servers: self.0.bootstrap_servers(),
                properties: BTreeMap::new(),
                client_id: "test".to_owned(),
            }
        }

        /// The next record is answered with its sequence number having been seen: one of the two ways to a report that
        /// is inferred. The other takes a leader that becomes ready between two records.
        pub(crate) fn infer(&self) {
            let seen = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
            self.0.request_errors(RDKafkaApiKey::Produce, &[seen]);
        }
    }
}
