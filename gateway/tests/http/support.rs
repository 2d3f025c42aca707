//! What the scenarios share: a broker and a registry, gateways in this process, senders, a reader.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluice_dev_stack::{Stack, StackOptions};
use sluice_gateway::Gateway;
use sluice_kafka::admin::Admin;
use sluice_kafka::client::{ClientSettings, Isolation};
use sluice_kafka::inspect::{End, OwnedRecord, Reader, Start};
use sluice_kafka::topics::{TopicSettings, Topics};
use sluice_providers::{SampleRequest, SampleSpec, Secret, SourceSpec};
use sluice_schemas::registry::{Registry, RegistryOptions, subject};
use sluice_schemas::{RecordKind, SchemaRecord, SchemaStore};
use sluice_service::config::{ByteSize, Config, PartitionBy, SecretRef, SourceConfig};
use sluice_service::health::Health;
use sluice_service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The secret of every source.
pub const SECRET: &str = "whsec_of_the_test";
/// `gateway.ack_timeout`.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// `gateway.header_read_timeout` and `body_read_timeout`.
pub const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// `gateway.max_body`.
pub const MAX_BODY: usize = 64 * 1024;
/// `gateway.max_batch_events`.
pub const MAX_BATCH: usize = 100;
/// `gateway.queue_max_bytes`.
pub const QUEUE: ByteSize = ByteSize::kib(256);
/// `gateway.max_headers`.
pub const MAX_HEADERS: usize = 40;
/// `gateway.max_header_bytes`.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// `gateway.rate_limit_per_address`, a hour's allowance.
pub const PER_ADDRESS: u32 = 3;

/// Longest wait for anything that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request and its answer, as far as the tests look at it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("no JSON ({error}): {}", String::from_utf8_lossy(&self.body))
        })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts a problem document of this status.
    #[track_caller]
    pub fn is_problem(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["request_id"], self.header("x-request-id"));
        assert!(!String::from_utf8_lossy(&self.body).contains("127.0.0.1"), "{document}");
        self
    }

    /// Asserts the default acknowledgement.
    #[track_caller]
    pub fn is_accepted(&self) -> &Self {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.json()["request_id"], self.header("x-request-id"));
        self
    }

    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        self.header("retry-after").parse().unwrap()
    }
}

/// A gateway served in this process.
pub struct Running {
    pub address: SocketAddr,
    pub health: Health,
    pub shutdown: Shutdown,
    pub served: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn start(config: &Config) -> Self {
        let health = Health::new();
        let gateway = Gateway::bind(config, &health).await.unwrap();
        let address = gateway.local_addr();
        let shutdown = Shutdown::new();
        let served = tokio::spawn(gateway.serve(shutdown.clone()));
        Self { address, health, shutdown, served }
    }

    pub async fn until_ready(&self, ready: bool) {
        until("readiness", || self.health.readiness().ready == ready).await;
    }

    pub async fn stop(self) {
        self.shutdown.request("the test is over");
        self.served.await.unwrap().unwrap();
    }

    /// A raw connection, for what no well-behaved client sends.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Waits until something observable has happened.
pub async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends bytes and reads what comes back until the server closes; gives up loudly.
pub async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an end of the connection")
        .unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads from a connection until `text` has come.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        let mut byte = [0];
        while !read.ends_with(text.as_bytes()) {
            stream.read_exact(&mut byte).await.unwrap();
            read.push(byte[0]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the text");
    String::from_utf8(read).unwrap()
}

/// A broker, a registry and what the tests need of them.
pub struct World {
    pub stack: Stack,
    pub config: Config,
    pub topics: Topics,
    pub registry: Registry,
    client: reqwest::Client,
    signer: sluice_providers::Source,
    seed: AtomicU64,
    address: AtomicU32,
    _folder: tempfile::TempDir,
}

impl World {
    /// Starts all of it. The topics are there, the schemas are not registered.
    pub async fn start() -> Self {
        let stack = Stack::start(StackOptions::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let config = config(&stack, folder.path(), &SecretRef::File(secret));
        let topics = topics(&config);
        let admin = Admin::connect(&settings(&config)).unwrap();
        admin.create(&topics.spec(&[], true)).await.unwrap();
        let registry = Registry::new(RegistryOptions {
            url: stack.registry_url().to_owned(),
            basic_auth: None,
            timeout: Duration::from_secs(10),
            cache_dir: None,
        });
        Self {
            stack,
            topics,
            registry: registry.unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            signer: sluice_providers::build(SourceSpec {
                name: "signer",
                provider: "stripe",
                secrets: vec![Secret::new("test", SECRET)],
                tolerance: None,
                settings: &config.sources[0].settings,
            })
            .unwrap(),
            config,
            seed: AtomicU64::new(1),
            address: AtomicU32::new(1),
            _folder: folder,
        }
    }

    pub async fn register_schemas(&self) {
        for (topic, kind) in [
            (self.topics.raw(), RecordKind::RawWebhook),
            (self.topics.rejected(), RecordKind::Rejected),
        ] {
            self.registry.register(&subject(topic), kind).await.unwrap();
        }
    }

    /// A client address that no request has come from yet.
    pub fn fresh_address(&self) -> String {
        let [_, a, b, c] = self.address.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        format!("10.{a}.{b}.{c}")
    }

    /// A signed event that has not been sent yet.
    pub fn event(&self) -> SampleRequest {
        self.event_at(now_ms())
    }

    /// The same, signed at another time.
    pub fn event_at(&self, now_ms: i64) -> SampleRequest {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        self.signer.sample(&SampleSpec { event_type: None, seed, now_ms }).unwrap()
    }

    /// Posts an event, from a fresh address.
    pub async fn post(&self, to: &Running, source: &str, event: &SampleRequest) -> Answer {
        let headers: Vec<_> =
            event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send(to, "POST", source, &headers, event.body.to_vec()).await
    }

    /// Any request, from a fresh address unless `headers` say otherwise.
    pub async fn send(
        &self,
        to: &Running,
        method: &str,
        source: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let url = format!("http://{}/webhooks/{source}", to.address);
        let mut request = self.client.request(method.parse().unwrap(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if headers.iter().all(|(name, _)| *name != "x-forwarded-for") {
            request = request.header("x-forwarded-for", self.fresh_address());
        }
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap().to_vec(),
        }
    }

    /// Every record of a topic, decoded.
    pub async fn read<T: SchemaRecord + Send + 'static>(
        &self,
        topic: &str,
    ) -> Vec<(OwnedRecord, T)> {
        let records = self.records(topic).await;
        let store = SchemaStore::new();
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            if let Some(id) = store.missing(record.value.as_deref()) {
                self.registry.fetch(&store, id).await.unwrap();
            }
            let value = store.decode(record.value.as_deref()).unwrap();
            decoded.push((record, value));
        }
        decoded
    }

    async fn records(&self, topic: &str) -> Vec<OwnedRecord> {
        let (settings, topic) = (settings(&self.config), topic.to_owned());
        let reading = tokio::task::spawn_blocking(move || {
            let reader = Reader::new(&settings, Isolation::ReadUncommitted).unwrap();
            let mut records = Vec::new();
            let each = |record| {
                records.push(record);
                ControlFlow::Continue(())
            };
            reader.read_range(&topic, &Start::Earliest, End::HighWatermark, each).unwrap();
            records
        });
        reading.await.unwrap()
    }
}

/// Kafka client settings of a configuration.
pub fn settings(config: &Config) -> ClientSettings {
    ClientSettings {
        bootstrap_servers: config.kafka.bootstrap_servers.clone(),
        properties: BTreeMap::new(),
        client_id: "gateway-test".to_owned(),
    }
}

fn topics(config: &Config) -> Topics {
    let topics = &config.topics;
    let settings = TopicSettings {
        prefix: topics.prefix.clone(),
        partitions: topics.partitions,
        replication_factor: 1,
        min_insync_replicas: 1,
        raw_retention: topics.raw_retention,
        processed_retention: topics.processed_retention,
        failed_retention: topics.failed_retention,
        retry_retention: topics.retry_retention,
        due_retention: topics.due_retention,
        dlq_retention: topics.dlq_retention,
        journal_retention: config.journal_retention(),
    };
    Topics::new(settings, Vec::new()).unwrap()
}

fn config(stack: &Stack, folder: &std::path::Path, secret: &SecretRef) -> Config {
    let mut config = Config::default();
    config.kafka.bootstrap_servers = stack.kafka_bootstrap().to_owned();
    config.registry.url = stack.registry_url().to_owned();
    config.registry.cache_dir = Some(folder.join("schemas"));
    config.topics.replication_factor = 1;
    config.topics.min_insync_replicas = 1;
    config.topics.partitions = 3;
    let gateway = &mut config.gateway;
    gateway.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    gateway.ack_timeout = ACK_TIMEOUT;
    gateway.header_read_timeout = READ_TIMEOUT;
    gateway.body_read_timeout = READ_TIMEOUT;
    gateway.max_body = ByteSize(MAX_BODY as u64);
    gateway.max_headers = MAX_HEADERS;
    gateway.max_header_bytes = ByteSize(MAX_HEADER_BYTES as u64);
    gateway.rate_limit_per_address = Some(format!("{PER_ADDRESS}/h").parse().unwrap());
    gateway.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    gateway.max_batch_events = MAX_BATCH as u32;
    gateway.queue_max_bytes = QUEUE;
    gateway.publish_rejected = true;
    gateway.shutdown_timeout = Duration::from_secs(10);
    let source = |name: &str| {
        let mut source = SourceConfig::new(name, "stripe");
        source.secrets = vec![secret.clone()];
        source
    };
    let mut office = source("office");
    office.allow_ips = vec!["192.0.2.0/24".parse().unwrap()];
    let mut slow = source("slow");
    slow.rate_limit = Some("2/h".parse().unwrap());
    let calm = SourceConfig { name: "calm".to_owned(), ..slow.clone() };
    let mut ordered = source("ordered");
    ordered.partition_by = PartitionBy::Object;
    ordered.tenant = Some("emea".to_owned());
    let mut lines = SourceConfig::new("lines", "hmac");
    lines.secrets = vec![secret.clone()];
    lines.settings = serde_json::json!({
        "header": "x-signature", "batch": "ndjson", "id_pointer": "/id", "type_pointer": "/type",
    });
    config.sources = vec![source("shop"), office, slow, calm, ordered, lines];
    config
}

/// The signature of the source `lines` over any body.
pub fn lines_signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A Stripe signature over any body.
pub fn stripe_signature(body: &[u8], at_ms: i64) -> String {
    let at = at_ms / 1000;
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
