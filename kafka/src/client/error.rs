//! What every client of this crate fails with.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::{ClientSettings, is_secret};

/// Why something asked of Kafka was not done, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// librdkafka does not take a property.
    #[error(
        "the Kafka property `{name}` was refused: {reason}; correct it under kafka.properties (names and values are librdkafka's)"
    )]
    Property {
        /// Name of the property.
        name: String,
        /// Why, without the value if that is secret.
        reason: String,
    },
    /// The time-outs of a worker contradict each other.
    #[error(
        "the session time-out of {session_ms} ms is not above the transaction time-out of {transaction_ms} ms: another worker could take over partitions whose transaction is still open; raise the session time-out"
    )]
    Timeouts {
        /// Session time-out in milliseconds.
        session_ms: u128,
        /// Transaction time-out in milliseconds.
        transaction_ms: u128,
    },
    /// The client could not be made.
    #[error("the Kafka client could not be created: {reason}; check kafka.properties")]
    Create {
        /// The client library's reason.
        reason: String,
    },
    /// No broker answered in time.
    #[error(
        "Kafka at {bootstrap_servers} did not answer ({operation}): {reason}; check that it runs and that kafka.bootstrap_servers and the security properties are right"
    )]
    Unreachable {
        /// What was asked.
        operation: String,
        /// The configured address.
        bootstrap_servers: String,
        /// What the client saw last.
        reason: String,
    },
    /// The broker refused this client.
    #[error(
        "Kafka refused this client ({operation}): {reason}; check its credentials and its access rights"
    )]
    Denied {
        /// What was asked.
        operation: String,
        /// The broker's reason.
        reason: String,
    },
    /// The topic does not exist.
    #[error(
        "the topic `{topic}` does not exist: create it with `sluice topics create`, or check topics.prefix"
    )]
    UnknownTopic {
        /// Its full name.
        topic: String,
    },
    /// The partition does not exist.
    #[error("the topic `{topic}` has no partition {partition}: it has 0 to {last}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// The topic's last partition.
        last: i32,
    },
    /// Topics could not be created.
    #[error("topics were not created: {}", failures.iter().map(|(topic, reason)| format!("`{topic}`: {reason}")).collect::<Vec<_>>().join("; "))]
    TopicsNotCreated {
        /// Name and reason of each.
        failures: Vec<(String, String)>,
    },
    /// Offsets of a group can only be set while nobody is in it.
    #[error(
        "the consumer group `{group}` has {members} member(s) and is in state {state}: stop every worker of the group first; one that was killed counts until its session time-out is over"
    )]
    GroupNotEmpty {
        /// The group.
        group: String,
        /// The broker's word for its state.
        state: String,
        /// Number of members.
        members: usize,
    },
    /// An offset outside of what the partition holds.
    #[error(
        "offset {offset} of `{topic}` partition {partition} is not there: the partition holds {low} up to (not including) {high}; choose an offset in that range"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// First offset still kept.
        low: i64,
        /// One past the last offset.
        high: i64,
    },
    /// Reading made no progress.
    #[error(
        "reading `{topic}` made no progress for {waited_s} s on partitions {partitions:?}: {reason}"
    )]
    Stalled {
        /// The topic.
        topic: String,
        /// The partitions that are not finished.
        partitions: Vec<i32>,
        /// How long was waited, in seconds.
        waited_s: u64,
        /// What the client saw last, or the likely cause.
        reason: String,
    },
    /// Anything else the broker or the client answered.
    #[error("Kafka could not {operation}: {reason}")]
    Broker {
        /// What was asked.
        operation: String,
        /// The reason given.
        reason: String,
    },
}

impl ClientSettings {
    /// Explains `error`, which came while doing `operation`; `seen` is what the client reported
    /// of its connections, for time-outs that say nothing themselves.
    pub(crate) fn explain(
        &self,
        operation: impl Into<String>,
        error: &KafkaError,
        seen: Option<String>,
    ) -> ClientError {
        let operation = operation.into();
        match error {
            KafkaError::ClientConfig(_, reason, name, _) => ClientError::Property {
                name: name.clone(),
                // The library's text repeats the value.
                reason: if is_secret(name) {
                    "its value is not valid".into()
                } else {
                    reason.clone()
                },
            },
            KafkaError::ClientCreation(reason) => ClientError::Create { reason: reason.clone() },
            other => match other.rdkafka_error_code() {
                Some(code) => self.explain_code(operation, code, seen),
                None => ClientError::Broker { operation, reason: other.to_string() },
            },
        }
    }

    /// As [`ClientSettings::explain`], for a bare code.
    pub(crate) fn explain_code(
        &self,
        operation: impl Into<String>,
        code: Code,
        seen: Option<String>,
    ) -> ClientError {
        let operation = operation.into();
        match code {
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => {
                ClientError::Denied { operation, reason: seen.unwrap_or_else(|| code.to_string()) }
            }
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::Resolve
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress => ClientError::Unreachable {
                operation,
                bootstrap_servers: self.bootstrap_servers.clone(),
                reason: seen.unwrap_or_else(|| code.to_string()),
            },
            other => ClientError::Broker { operation, reason: other.to_string() },
        }
    }
}
