//! What runs beside the requests: opening the way into Kafka, and telling the truth about it.
//!
//! Two loops, each with one answer outstanding at most. One learns the schema ids and is done; the
//! other checks the topics once and then keeps asking whether Kafka can be reached. Waits between two
//! questions are bounded, so a recovered Kafka or registry is noticed within seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use sluice_kafka::admin::Admin;
use sluice_kafka::client::{ClientError, ClientSettings};
use sluice_kafka::publisher::BrokerStatus;
use sluice_kafka::role;
use sluice_kafka::topics::TopicSpec;
use sluice_schemas::registry::{Registry, subject};
use sluice_schemas::{Encoder, RegistryError, SchemaRecord, SchemaStore};
use sluice_service::health::{Component, Health};
use tokio::time::sleep;

use crate::changeover::Changeover;
use crate::handler::Shared;

/// Bound of one question to the brokers.
const ASK: Duration = Duration::from_secs(3);
/// Pause between questions while Kafka answers.
const WHILE_WELL: Duration = Duration::from_secs(5);
/// Pause between questions while it does not.
const WHILE_ILL: Duration = Duration::from_millis(500);
/// First and longest pause between questions to the registry.
const REGISTRY_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Opens the way into Kafka in the background.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Whose way it is.
    pub(crate) shared: Arc<Shared>,
    /// How to ask about topics.
    pub(crate) settings: ClientSettings,
    /// The topics written to.
    pub(crate) topics: Vec<TopicSpec>,
    /// Where schema ids come from.
    pub(crate) registry: Registry,
    /// Whether refused requests are recorded.
    pub(crate) with_rejected: bool,
}

impl Supervisor {
    /// Runs for as long as the role does.
    ///
    /// # Errors
    /// A state of the topics that must not be written to; the role has to end.
    pub(crate) async fn run(self, health: &Health) -> anyhow::Result<()> {
        let kafka = health.component("gateway-kafka");
        let schemas = health.component("gateway-schemas");
        let learn = async {
            self.learn_schemas(&schemas).await;
            Ok(())
        };
        tokio::try_join!(self.watch_kafka(&kafka), learn)?;
        Ok(())
    }

    async fn learn_schemas(&self, component: &Component) {
        let upstream = self.shared.upstream();
        let store = SchemaStore::new();
        let raw = self.learn(&store, upstream.raw_topic(), component).await;
        upstream.raw_encoder_is(raw);
        component.ready();
        if self.with_rejected {
            // Events do not wait for this one: a refusal without a record is still a refusal.
            let topic = upstream.rejected_topic();
            upstream.rejected_encoder_is(self.learn(&store, topic, component).await);
            component.ready();
        }
    }

    async fn learn<T: SchemaRecord>(
        &self,
        store: &SchemaStore,
        topic: &str,
        component: &Component,
    ) -> Encoder<T> {
        let (mut pause, longest) = REGISTRY_PAUSE;
        loop {
            match self.registry.encoder::<T>(store, &subject(topic)).await {
                Ok(encoder) => return encoder,
                // The address of the registry stays out of what the management port shows.
                Err(RegistryError::Unavailable { url, detail }) => {
                    tracing::debug!(url, detail, "schema registry");
                    component.not_ready("the schema registry does not answer");
                }
                Err(error) => component.not_ready(&error.to_string()),
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn watch_kafka(&self, component: &Component) -> anyhow::Result<()> {
        let publisher = self.shared.upstream().publisher();
        let mut admin = None;
        let mut checked = false;
        loop {
            if let BrokerStatus::Fatal(reason) = publisher.status() {
                bail!("the Kafka producer failed for good: {reason}");
            }
            let well = match publisher.reachable(ASK).await {
                Ok(()) if checked => true,
                Ok(()) => {
                    checked = self.check_topics(&mut admin, component).await?;
                    if checked && let Some(admin) = admin.take() {
                        // Closing a client waits for its threads.
                        tokio::task::spawn_blocking(move || drop(admin));
                    }
                    checked
                }
                Err(error) => {
                    tracing::debug!(%error, "Kafka");
                    component.not_ready("Kafka cannot be reached");
                    false
                }
            };
            if well {
                component.ready();
            }
            sleep(if well { WHILE_WELL } else { WHILE_ILL }).await;
        }
    }

    /// Compares the topics with the configuration. `false`: could not be found out, ask again.
    async fn check_topics(
        &self,
        admin: &mut Option<Admin>,
        component: &Component,
    ) -> anyhow::Result<bool> {
        let connected = match admin.take() {
            Some(admin) => admin,
            None => Admin::connect(&self.settings)?,
        };
        let connected = admin.insert(connected);
        match connected.check(&self.topics).await {
            Ok(differences) => {
                role::judge(differences)?;
            }
            Err(error) => {
                tracing::debug!(%error, "checking the topics");
                component.not_ready("Kafka does not say how its topics are set up");
                return Ok(false);
            }
        }
        match self.find_changeover().await {
            Ok(changeover) => {
                self.shared.upstream().topics_are_checked(changeover);
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, "looking for records of an earlier release");
                component.not_ready("Kafka does not say what an earlier release has stored");
                Ok(false)
            }
        }
    }

    async fn find_changeover(&self) -> anyhow::Result<Changeover> {
        if !self.shared.sources().any_has_moved() {
            return Ok(Changeover::Never);
        }
        let settings = self.settings.clone();
        let topic = self.shared.upstream().raw_topic().to_owned();
        let find = move || Changeover::find(&settings, &topic);
        match tokio::task::spawn_blocking(find).await? {
            Err(error @ ClientError::Denied { .. }) => {
                tracing::warn!(
                    %error,
                    "the gateway may not read the topic of raw webhooks, so it cannot tell since when this release \
                     runs: events that tell a state stay on the partitions where earlier releases put them. Allow \
                     it to read the topic"
                );
                Ok(Changeover::Unknown)
            }
            found => Ok(found?),
        }
    }
}
