//! The requests of Kafka's protocol that faults are aimed at, by their keys in the protocol guide.

use std::fmt;

/// Which request a frame is, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiKey {
    /// 0: records to the leader of a partition.
    Produce,
    /// 1: records from the leader of a partition.
    Fetch,
    /// 2: the offsets at the ends of a partition.
    ListOffsets,
    /// 3: brokers, topics and leaders.
    Metadata,
    /// 8: the offsets of a group, without a transaction.
    OffsetCommit,
    /// 9: the committed offsets of a group.
    OffsetFetch,
    /// 10: who coordinates a group or a transactional.id.
    FindCoordinator,
    /// 11: a member enters a rebalance.
    JoinGroup,
    /// 12: a member is alive.
    Heartbeat,
    /// 13: a member goes.
    LeaveGroup,
    /// 14: the assignment of a generation.
    SyncGroup,
    /// 18: what versions a broker speaks.
    ApiVersions,
    /// 22: a producer's id and epoch; fences its predecessor.
    InitProducerId,
    /// 24: partitions that a transaction is about to write to.
    AddPartitionsToTxn,
    /// 25: the group whose offsets a transaction is about to commit.
    AddOffsetsToTxn,
    /// 26: commit or abort.
    EndTxn,
    /// 28: the offsets of a group, in a transaction.
    TxnOffsetCommit,
    /// Any other key.
    Other(i16),
}

impl ApiKey {
    /// Every request that has a name here.
    pub const NAMED: [Self; 17] = [
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::OffsetCommit,
        Self::OffsetFetch,
        Self::FindCoordinator,
        Self::JoinGroup,
        Self::Heartbeat,
        Self::LeaveGroup,
        Self::SyncGroup,
        Self::ApiVersions,
        Self::InitProducerId,
        Self::AddPartitionsToTxn,
        Self::AddOffsetsToTxn,
        Self::EndTxn,
        Self::TxnOffsetCommit,
    ];

    /// The key in the protocol.
    pub fn code(self) -> i16 {
        match self {
            Self::Produce => 0,
            Self::Fetch => 1,
            Self::ListOffsets => 2,
            Self::Metadata => 3,
            Self::OffsetCommit => 8,
            Self::OffsetFetch => 9,
            Self::FindCoordinator => 10,
            Self::JoinGroup => 11,
            Self::Heartbeat => 12,
            Self::LeaveGroup => 13,
            Self::SyncGroup => 14,
            Self::ApiVersions => 18,
            Self::InitProducerId => 22,
            Self::AddPartitionsToTxn => 24,
            Self::AddOffsetsToTxn => 25,
            Self::EndTxn => 26,
            Self::TxnOffsetCommit => 28,
            Self::Other(code) => code,
        }
    }

    /// Whether the body begins with the transactional.id.
    pub(super) fn is_transactional(self) -> bool {
        self.first_flexible().is_some()
    }

    /// The first flexible version of the transactional requests.
    pub(super) fn first_flexible(self) -> Option<i16> {
        match self {
            Self::InitProducerId => Some(2),
            Self::AddPartitionsToTxn
            | Self::AddOffsetsToTxn
            | Self::EndTxn
            | Self::TxnOffsetCommit => Some(3),
            _ => None,
        }
    }
}

impl From<i16> for ApiKey {
    fn from(code: i16) -> Self {
        let named = Self::NAMED.into_iter().find(|api| api.code() == code);
        named.unwrap_or(Self::Other(code))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "request {code}"),
            named => write!(f, "{named:?}"),
        }
    }
}
