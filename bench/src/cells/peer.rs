//! Other software that does the same, as `bench/peers/README.md` describes: each is a command that runs until SIGTERM
//! and prints `ready`.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, ensure};

use super::{BODY, Outcome, Reading, costs, http, processor};
use crate::{
    lab::{
        Lab, kafka,
        kafka::Progress,
        role::{Readiness, Role},
        until,
    },
    load::{
        Work,
        event::{Events, SECRET},
    },
};

const PARTITIONS: u32 = 6;
/// Threads of Kafka Streams.
const THREADS: u32 = 2;
/// Longest time for the broker to make a transactional group's offsets known.
const VISIBLE: Duration = Duration::from_secs(30);

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A gateway of Go's net/http and franz-go with the same contract.
    GoReference,
    /// An OpenTelemetry Collector: OTLP over HTTP to Kafka.
    Collector,
    /// Kafka Streams with `exactly_once_v2`.
    Streams,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 3] = [Peer::GoReference, Peer::Collector, Peer::Streams];

    /// Its name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Peer::GoReference => "peer-go",
            Peer::Collector => "peer-collector",
            Peer::Streams => "peer-streams",
        }
    }

    /// What it is.
    pub fn title(self) -> &'static str {
        match self {
            Peer::GoReference => "Go net/http and franz-go, one event a request",
            Peer::Collector => "OpenTelemetry Collector, one log record a request",
            Peer::Streams => "Kafka Streams exactly_once_v2 on a backlog, 2 threads",
        }
    }

    /// What it is compared with.
    pub fn compared(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Peer::GoReference | Peer::Collector => {
                vec![("requests", "gateway-1 requests"), ("cpu peer", "gateway-1 cpu gateway")]
            }
            Peer::Streams => {
                vec![("records", "processor-1 records"), ("cpu peer", "processor-1 cpu processor")]
            }
        }
    }

    fn folder(self) -> anyhow::Result<PathBuf> {
        let name = match self {
            Peer::GoReference => "go-reference",
            Peer::Collector => "collector",
            Peer::Streams => "streams",
        };
        let folder = std::env::current_dir()?.join("bench/peers").join(name);
        ensure!(
            folder.join("run").is_file(),
            "{} does not exist: run this in the folder of the project",
            folder.join("run").display()
        );
        Ok(folder)
    }

    /// Measures it once.
    ///
    /// # Errors
    /// It cannot be built or started, or does not do what it is asked for.
    pub fn measure(self, lab: &Lab) -> anyhow::Result<Outcome> {
        match self {
            Peer::Streams => self.streams(lab),
            Peer::GoReference => {
                let events = Events::new("go", BODY)?;
                self.gateway(lab, http::singles(events))
            }
            Peer::Collector => {
                let path = self.folder()?.join("request.bin");
                let sample = std::fs::read(&path).with_context(|| path.display().to_string())?;
                // A log record with our body at its end, so that no two are alike here either.
                let at = sample.len().saturating_sub(BODY);
                ensure!(
                    sample[at..].starts_with(b"{\"id\":"),
                    "{} does not end with a body of {BODY} bytes",
                    path.display()
                );
                let mut head = format!(
                    "POST /v1/logs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-protobuf\r\n\
                     user-agent: sluice-bench\r\ncontent-length: {}\r\n\r\n",
                    sample.len()
                )
                .into_bytes();
                head.extend_from_slice(&sample[..at]);
                let events = Events::new("otlp", BODY)?;
                let compose = move |number, out: &mut Vec<u8>| {
                    out.clear();
                    out.extend_from_slice(&head);
                    events.body(number, out);
                };
                self.gateway(lab, Work { compose: Arc::new(compose), events: 1 })
            }
        }
    }

    fn start(self, lab: &Lab, args: &[&str]) -> anyhow::Result<Role> {
        let folder = self.folder()?;
        let mut command = Command::new(folder.join("run"));
        command.args(["--bootstrap", lab.bootstrap()]).args(args).env("WEBHOOK_SECRET", SECRET);
        let log = lab.folder("peers")?.join(lab.unique(self.name()));
        let mut role = Role::start(command, "peer", log, Readiness::Line, &lab.children)?;
        role.ready()?;
        Ok(role)
    }

    fn gateway(self, lab: &Lab, work: Work) -> anyhow::Result<Outcome> {
        let topic = lab.unique(self.name());
        kafka::create_topic(lab, &topic, PARTITIONS)?;
        let address = lab.address()?;
        let role = self.start(lab, &["--topic", &topic, "--listen", &address.to_string()])?;
        let closed = http::measured(lab, address, work, http::CONNECTIONS, "requests");
        let (outcome, answered) = closed?;
        role.stop()?;
        let stored = Progress::of(lab, "none", &topic)?.end()?;
        ensure!(stored == answered, "{answered} were acknowledged, and {topic} holds {stored}");
        kafka::delete_topics(lab, &[topic])?;
        Ok(outcome)
    }

    fn streams(self, lab: &Lab) -> anyhow::Result<Outcome> {
        let (input, output) = (lab.unique("streams-in"), lab.unique("streams-out"));
        kafka::create_topic(lab, &input, PARTITIONS)?;
        kafka::create_topic(lab, &output, PARTITIONS)?;
        // A fifth of the processor's backlog: it takes as long.
        let count = processor::records(lab) / lab.scale(2, 5);
        processor::fill(lab, &input, PARTITIONS, &Events::new("s", BODY)?, 0..count)?;
        let state = lab.folder(&lab.unique("streams-state"))?;
        let group = lab.unique("streams-app");
        let (threads, state) = (THREADS.to_string(), state.display().to_string());
        let args =
            ["--input", &input, "--output", &output, "--threads", &threads, "--state", &state];
        let args = [&args[..], &["--application-id", &group]].concat();
        let progress = Progress::of(lab, &group, &input)?;
        let mut role = self.start(lab, &args)?;
        let drained = processor::drain(lab, &mut role, &progress, count)?;
        role.stop()?;
        // Every event is there; the markers of the transactions take offsets as well.
        until("the output", VISIBLE, Duration::from_millis(100), || {
            let end = Progress::of(lab, "none", &output)?.end()?;
            Ok((end > count).then_some(()))
        })?;
        kafka::delete_topics(lab, &[input, output])?;
        let mut readings = vec![Reading::new("records", "1/s", drained.rate)];
        readings.extend(costs(&drained.usage, drained.count));
        Ok(Outcome { readings, usage: drained.usage })
    }
}
