//! Create and check topics, look at consumer groups and set their offsets.
//!
//! Creating is idempotent, and checking runs at every start: a topic that differs in what
//! correctness rests on is refused with the way out, a topic that differs in durability or history
//! is reported.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    },
    consumer::{CommitMode, Consumer},
    error::RDKafkaErrorCode as Code,
};

use crate::{
    client::{ClientError, ClientSettings, Events, Isolation},
    inspect::{ANSWER_LIMIT, Reader, check_offsets, consumer},
    topics::TopicSpec,
};

mod difference;

pub use difference::{Difference, Severity};
use difference::{Found, compare};

/// Longest wait until topics that were created are visible everywhere asked.
const VISIBLE_LIMIT: Duration = Duration::from_secs(15);

/// What [`Admin::create`] did with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It was made.
    Created,
    /// It was there; it is not changed.
    Existed,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The broker's name for it.
    pub id: String,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
}

/// A consumer group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// The coordinator's word (`Stable`, `Empty`, `PreparingRebalance` …), or `Absent`.
    pub state: String,
    /// Who is in it; a member that was killed stays until its session time-out is over.
    pub members: Vec<GroupMember>,
}

/// Administration of the cluster; for short use, not for a loop.
pub struct Admin {
    client: AdminClient<Events>,
    reader: Arc<Reader>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("settings", self.settings()).finish_non_exhaustive()
    }
}

impl Admin {
    /// Makes the client; it connects in the background.
    ///
    /// # Errors
    /// [`ClientError`] for properties that librdkafka refuses.
    pub fn connect(settings: &ClientSettings) -> Result<Self, ClientError> {
        let client = settings
            .admin_config()
            .create_with_context(Events::default())
            .map_err(|error| settings.explain("create an admin client", &error, None))?;
        let reader = Arc::new(Reader::new(settings, Isolation::ReadUncommitted)?);
        Ok(Self { client, reader })
    }

    fn settings(&self) -> &ClientSettings {
        self.reader.settings()
    }

    /// Runs a call that blocks on a thread for such calls.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Reader) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || call(&reader)).await.unwrap_or_else(|ended| {
            Err(ClientError::Broker {
                operation: "finish a request".into(),
                reason: ended.to_string(),
            })
        })
    }

    /// Whether a broker answers within `timeout`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if none does, [`ClientError::Denied`] if it refuses.
    pub async fn reachable(&self, timeout: Duration) -> Result<(), ClientError> {
        self.blocking(move |reader| reader.metadata(None, timeout).map(|_| ())).await
    }

    /// Creates the topics that are not there, and waits until each has its leaders, at most 15 s.
    ///
    /// # Errors
    /// [`ClientError::TopicsNotCreated`] with every reason, or why the cluster did not answer.
    pub async fn create(
        &self,
        specs: &[TopicSpec],
    ) -> Result<Vec<(String, Creation)>, ClientError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        // A question first: it fails with a reason, where creating would only time out.
        self.reachable(ANSWER_LIMIT).await?;
        let topics: Vec<NewTopic<'_>> = specs.iter().map(new_topic).collect();
        let options = AdminOptions::new()
            .request_timeout(Some(VISIBLE_LIMIT))
            .operation_timeout(Some(ANSWER_LIMIT));
        let answers = self.client.create_topics(&topics, &options).await.map_err(|error| {
            self.settings().explain(
                "create topics",
                &error,
                self.client.inner().context().last_error(),
            )
        })?;
        let mut done = Vec::new();
        let mut failures = Vec::new();
        for answer in answers {
            match answer {
                Ok(topic) => done.push((topic, Creation::Created)),
                Err((topic, Code::TopicAlreadyExists)) => done.push((topic, Creation::Existed)),
                Err((topic, code)) => failures.push((topic, creation_failure(code))),
            }
        }
        if !failures.is_empty() {
            return Err(ClientError::TopicsNotCreated { failures });
        }
        self.wait_visible(specs).await?;
        Ok(done)
    }

    async fn wait_visible(&self, specs: &[TopicSpec]) -> Result<(), ClientError> {
        let deadline = Instant::now() + VISIBLE_LIMIT;
        loop {
            let cluster = self.found().await?;
            let hidden: Vec<_> = specs
                .iter()
                .filter(|spec| cluster.get(&spec.name).is_none_or(|found| !found.led))
                .map(|spec| (spec.name.clone(), "it has no leaders yet; try again".to_owned()))
                .collect();
            if hidden.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ClientError::TopicsNotCreated { failures: hidden });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every topic of the cluster, without its settings.
    async fn found(&self) -> Result<BTreeMap<String, Found>, ClientError> {
        self.blocking(|reader| {
            let metadata = reader.metadata(None, ANSWER_LIMIT)?;
            Ok(metadata
                .topics()
                .iter()
                .map(|topic| (topic.name().to_owned(), Found::from(topic)))
                .collect())
        })
        .await
    }

    /// Compares the topics with what they should be; an empty answer is good. Waits at most 20 s.
    ///
    /// # Errors
    /// Why the cluster did not answer.
    pub async fn check(&self, specs: &[TopicSpec]) -> Result<Vec<Difference>, ClientError> {
        let mut cluster = self.found().await?;
        let present: Vec<ResourceSpecifier<'_>> = specs
            .iter()
            .filter(|spec| cluster.contains_key(&spec.name))
            .map(|spec| ResourceSpecifier::Topic(&spec.name))
            .collect();
        let configs = self.describe(&present).await?;
        for (topic, config) in configs {
            if let Some(found) = cluster.get_mut(&topic) {
                found.config = config;
            }
        }
        Ok(specs.iter().flat_map(|spec| compare(spec, cluster.get(&spec.name))).collect())
    }

    async fn describe(
        &self,
        topics: &[ResourceSpecifier<'_>],
    ) -> Result<Vec<(String, BTreeMap<String, String>)>, ClientError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let operation = "ask for the settings of topics";
        let seen = || self.client.inner().context().last_error();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_LIMIT));
        let answers = self
            .client
            .describe_configs(topics, &options)
            .await
            .map_err(|error| self.settings().explain(operation, &error, seen()))?;
        answers
            .into_iter()
            .zip(topics)
            .map(|(answer, asked)| {
                let ResourceSpecifier::Topic(name) = asked else {
                    return Err(ClientError::Broker {
                        operation: operation.into(),
                        reason: "it was asked for something else".into(),
                    });
                };
                answer.map(|resource| ((*name).to_owned(), settings_of(resource))).map_err(|code| {
                    self.settings().explain_code(
                        format!("ask for the settings of `{name}`"),
                        code,
                        seen(),
                    )
                })
            })
            .collect()
    }

    /// Who is in `group` and in what state it is. Waits at most 10 s.
    ///
    /// # Errors
    /// Why the cluster did not answer.
    pub async fn consumer_group_state(&self, group: &str) -> Result<GroupState, ClientError> {
        let group = group.to_owned();
        self.blocking(move |reader| group_state(reader, &group)).await
    }

    /// Sets the committed offsets of `group`, by topic and partition, while nobody is in it; other
    /// partitions keep theirs. Every offset is checked first, and read back after. Waits at most
    /// 10 s per question.
    ///
    /// # Errors
    /// [`ClientError::GroupNotEmpty`], [`ClientError::OffsetOutOfRange`],
    /// [`ClientError::UnknownPartition`], [`ClientError::UnknownTopic`], or why the cluster did not
    /// answer. The broker itself refuses if a member joins in between.
    pub async fn reset_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<String, BTreeMap<i32, i64>>,
    ) -> Result<(), ClientError> {
        let group = group.to_owned();
        let offsets = offsets.clone();
        self.blocking(move |reader| reset_offsets(reader, &group, &offsets)).await
    }
}

fn group_state(reader: &Reader, group: &str) -> Result<GroupState, ClientError> {
    let client = reader.client();
    let list = client
        .client()
        .fetch_group_list(Some(group), ANSWER_LIMIT)
        .map_err(|error| reader.explain(format!("describe the group `{group}`"), &error, client))?;
    let found = list.groups().iter().find(|found| found.name() == group);
    Ok(found.map_or_else(
        || GroupState { state: "Absent".into(), members: Vec::new() },
        |found| GroupState {
            state: found.state().to_owned(),
            members: found
                .members()
                .iter()
                .map(|member| GroupMember {
                    id: member.id().to_owned(),
                    client_id: member.client_id().to_owned(),
                    host: member.client_host().to_owned(),
                })
                .collect(),
        },
    ))
}

fn reset_offsets(
    reader: &Reader,
    group: &str,
    offsets: &BTreeMap<String, BTreeMap<i32, i64>>,
) -> Result<(), ClientError> {
    let mut wanted = TopicPartitionList::new();
    let operation = || format!("set the offsets of group `{group}`");
    for (topic, partitions) in offsets {
        check_offsets(topic, partitions, &reader.watermarks(topic)?)?;
        for (&partition, &offset) in partitions {
            wanted
                .add_partition_offset(topic, partition, Offset::Offset(offset))
                .map_err(|error| reader.explain(operation(), &error, reader.client()))?;
        }
    }
    if wanted.count() == 0 {
        return Ok(());
    }
    let refuse_members = || {
        let state = group_state(reader, group)?;
        if state.members.is_empty() {
            return Ok(());
        }
        Err(ClientError::GroupNotEmpty {
            group: group.to_owned(),
            state: state.state,
            members: state.members.len(),
        })
    };
    refuse_members()?;
    // Committing without being a member is what Kafka allows exactly while a group is empty.
    let client = consumer(reader.settings(), Some(group), Isolation::ReadUncommitted)?;
    if let Err(error) = client.commit(&wanted, CommitMode::Sync) {
        // A member that came in between explains it better than the broker's code.
        refuse_members()?;
        return Err(reader.explain(operation(), &error, &client));
    }
    drop(client);
    for (topic, partitions) in offsets {
        let committed = reader.committed(group, topic)?;
        for (partition, offset) in partitions {
            let found = usize::try_from(*partition)
                .ok()
                .and_then(|at| committed.get(at).copied().flatten());
            if found != Some(*offset) {
                return Err(ClientError::Broker {
                    operation: operation(),
                    reason: format!(
                        "`{topic}` partition {partition} was set to {offset} and reads {found:?}: somebody else commits for this group"
                    ),
                });
            }
        }
    }
    Ok(())
}

fn new_topic(spec: &TopicSpec) -> NewTopic<'_> {
    let topic = NewTopic::new(
        &spec.name,
        i32::try_from(spec.partitions).unwrap_or(i32::MAX),
        TopicReplication::Fixed(spec.replication.into()),
    );
    spec.config.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
}

fn creation_failure(code: Code) -> String {
    match code {
        Code::InvalidReplicationFactor => {
            "there are fewer brokers than topics.replication_factor: start more, or lower it".into()
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "this client may not create topics: give it the right, or have them created".into()
        }
        Code::PolicyViolation => {
            "a policy of the cluster forbids its settings: ask who runs the cluster".into()
        }
        code => code.to_string(),
    }
}

fn settings_of(resource: ConfigResource) -> BTreeMap<String, String> {
    resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}
