//! The brokers of a stack: their folders, ports and processes, started together.
//!
//! One broker keeps the plain names (`kafka/`, `server.properties`, `kafka.log`); several carry their
//! number (`kafka-1/`, …). Several must start at the same time, because none answers before most of
//! them vote.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::{join_all, select_all};

use crate::{
    artifacts::Artifacts,
    error::StackError,
    kafka::{self, Node},
    ports::{Port, PortLease, lease},
    probe::Probe,
    progress::Step,
    unit::{ServiceExit, ServiceName, Unit},
};

/// How often a start is tried with other ports when a free port was taken in the meantime.
const PORT_ATTEMPTS: usize = 3;
/// Time for an orderly end of the only broker before it is killed, and of one that leaves others behind.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// The same where all of a cluster stop at once: the last ones have no quorum left to tell that they
/// go, and would wait for it in vain. A killed broker finds everything again that it had written.
const CLUSTER_STOP_GRACE: Duration = Duration::from_secs(8);

/// How the clients of a broker's second listener get to it: they are told to connect to `listen`, where
/// a proxy is to accept them and to connect to `upstream`. Both ports are on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Id of the broker, from 1.
    pub broker: u16,
    /// The port that the broker tells its clients, kept free for a proxy.
    pub listen: u16,
    /// The port that the broker listens on.
    pub upstream: u16,
}

/// What to start.
pub(crate) struct Plan<'a> {
    pub(crate) count: u16,
    /// Port of the first broker; the next ones follow it if it is fixed.
    pub(crate) port: Port,
    pub(crate) proxied: bool,
    pub(crate) dirs: &'a BTreeMap<u16, PathBuf>,
    pub(crate) heap_mb: u32,
    pub(crate) startup_timeout: Duration,
}

/// What a start needs of the stack.
pub(crate) struct Place<'a> {
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) data: &'a Path,
    pub(crate) scratch: Option<&'a Path>,
    pub(crate) lock: &'a File,
}

/// One broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: u16,
    pub(crate) unit: Unit,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
    pub(crate) dir: PathBuf,
    pub(crate) route: Option<Route>,
    /// Keeps the port that a proxy is to listen on from other stacks.
    _listen: Option<PortLease>,
}

/// All of them, by id.
#[derive(Debug)]
pub(crate) struct Brokers {
    pub(crate) cluster_id: String,
    pub(crate) all: Vec<Broker>,
}

/// The ports of one broker.
struct Ports {
    client: PortLease,
    controller: PortLease,
    /// Where the second listener is, and the port that it names.
    proxied: Option<(PortLease, PortLease)>,
}

impl Ports {
    async fn lease(plan: &Plan<'_>, id: u16) -> Result<Self, StackError> {
        let client = match plan.port {
            Port::Free | Port::Fixed(0) => Port::Free,
            Port::Fixed(first) => Port::Fixed(first.saturating_add(id - 1)),
        };
        let any = || lease(Port::Free, ServiceName::Kafka);
        let proxied = if plan.proxied { Some((any().await?, any().await?)) } else { None };
        Ok(Self {
            client: lease(client, ServiceName::Kafka).await?,
            controller: any().await?,
            proxied,
        })
    }
}

impl Brokers {
    /// Formats what is not formatted yet, starts all and waits until each answers.
    pub(crate) async fn start(
        plan: &Plan<'_>,
        place: &Place<'_>,
        step: &Step,
    ) -> Result<Self, StackError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut brokers = Self::prepare(plan, place, step).await?;
            step.detail("waiting for it to answer");
            let Err(error) = brokers.start_stopped(place, plan.startup_timeout).await else {
                return Ok(brokers);
            };
            // The others go before their folders are used again.
            brokers.kill().await;
            let ports: Vec<&PortLease> =
                brokers.all.iter().flat_map(|broker| &broker.unit.ports).collect();
            if !other_ports_may_do(&error, attempt, &ports) {
                return Err(error);
            }
        }
    }

    async fn prepare(plan: &Plan<'_>, place: &Place<'_>, step: &Step) -> Result<Self, StackError> {
        let ids = 1..=plan.count;
        let mut ports = Vec::new();
        for id in ids.clone() {
            ports.push(Ports::lease(plan, id).await?);
        }
        let quorum: Vec<u16> = ports.iter().map(|ports| ports.controller.number).collect();
        let names: Vec<String> = ids
            .clone()
            .map(|id| if plan.count == 1 { "kafka".to_owned() } else { format!("kafka-{id}") })
            .collect();
        let mut dirs = Vec::new();
        for (id, name) in ids.clone().zip(&names) {
            dirs.push(dir(plan.dirs.get(&id).map_or(place.data, PathBuf::as_path), name)?);
        }
        let known = dirs.iter().find_map(|dir| kafka::formatted_cluster_id(dir));
        let cluster_id = known.unwrap_or_else(kafka::new_cluster_id);
        let nodes: Vec<Node<'_>> = ids
            .zip(&dirs)
            .zip(&ports)
            .map(|((id, log_dir), ports)| Node {
                id,
                log_dir,
                port: ports.client.number,
                quorum: &quorum,
                proxied: ports.proxied.as_ref().map(|(at, named)| (at.number, named.number)),
            })
            .collect();
        let formatted = join_all(nodes.iter().zip(&names).map(|(node, name)| {
            kafka::format(place.artifacts, place.data, node, name, &cluster_id, step)
        }));
        formatted.await.into_iter().collect::<Result<(), _>>()?;

        let mut units = Vec::new();
        for (node, name) in nodes.iter().zip(&names) {
            units.push(unit(plan, place, node, name, &cluster_id)?);
        }
        let mut all = Vec::new();
        for (((id, mut unit), ports), dir) in (1..).zip(units).zip(ports).zip(dirs) {
            let Ports { client, controller, proxied } = ports;
            let (port, controller_port) = (client.number, controller.number);
            unit.ports = vec![client, controller];
            let (mut route, mut listen) = (None, None);
            if let Some((at, named)) = proxied {
                route = Some(Route { broker: id, listen: named.number, upstream: at.number });
                unit.ports.push(at);
                listen = Some(named);
            }
            all.push(Broker { id, unit, port, controller_port, dir, route, _listen: listen });
        }
        Ok(Self { cluster_id, all })
    }

    /// Starts those that do not run, all at once, and waits until each answers.
    pub(crate) async fn start_stopped(
        &mut self,
        place: &Place<'_>,
        limit: Duration,
    ) -> Result<(), StackError> {
        if self.all.iter().all(|broker| broker.unit.pid().is_some()) {
            return Err(StackError::AlreadyRunning(ServiceName::Kafka));
        }
        let stopped = self.all.iter_mut().filter(|broker| broker.unit.pid().is_none());
        let starts = stopped.map(|broker| broker.unit.start(place.scratch, place.lock, limit));
        join_all(starts).await.into_iter().collect()
    }

    pub(crate) async fn kill(&mut self) {
        join_all(self.all.iter_mut().map(|broker| broker.unit.kill())).await;
    }

    pub(crate) async fn stop(&mut self) {
        let running = self.all.iter().filter(|broker| broker.unit.pid().is_some()).count();
        let grace = if running > 1 { CLUSTER_STOP_GRACE } else { STOP_GRACE };
        join_all(self.all.iter_mut().map(|broker| broker.unit.stop(grace))).await;
    }

    pub(crate) async fn stop_one(&mut self, id: u16) -> Result<(), StackError> {
        self.one(id)?.unit.stop(STOP_GRACE).await;
        Ok(())
    }

    pub(crate) fn one(&mut self, id: u16) -> Result<&mut Broker, StackError> {
        let count = self.all.len();
        self.all
            .iter_mut()
            .find(|broker| broker.id == id)
            .ok_or(StackError::NoBroker { broker: id, count })
    }

    /// Completes when one of them ends by itself. Cancel safe.
    pub(crate) async fn wait_failed(&mut self) -> ServiceExit {
        let waits = self.all.iter_mut().map(|broker| Box::pin(broker.unit.wait_failed()));
        select_all(waits).await.0
    }
}

/// The folder of a broker's records inside `parent`.
fn dir(parent: &Path, name: &str) -> Result<PathBuf, StackError> {
    if parent.to_string_lossy().contains(',') {
        let comma = io::Error::other("Kafka takes a comma in it for a list of folders");
        return Err(StackError::io("use", parent)(comma));
    }
    fs::create_dir_all(parent).map_err(StackError::io("create", parent))?;
    let parent = parent.canonicalize().map_err(StackError::io("resolve", parent))?;
    Ok(parent.join(name))
}

fn unit(
    plan: &Plan<'_>,
    place: &Place<'_>,
    node: &Node<'_>,
    name: &str,
    cluster_id: &str,
) -> Result<Unit, StackError> {
    let properties = match plan.count {
        1 => place.data.join("server.properties"),
        _ => place.data.join(format!("server-{}.properties", node.id)),
    };
    kafka::write_properties(&properties, node)?;
    let logs = place.data.join("logs");
    let log = logs.join(format!("{name}.log"));
    let Place { artifacts, data, .. } = place;
    let alone = plan.count == 1;
    Ok(Unit {
        name: ServiceName::Kafka,
        launch: kafka::launch(artifacts, data, &properties, &log, plan.heap_mb, alone),
        probe: Probe::Kafka { port: node.port, cluster_id: cluster_id.to_owned(), node: node.id },
        ports: Vec::new(),
        log,
        console: logs.join(format!("{name}.console.log")),
        process: None,
    })
}

/// True if a start failed for a port that was chosen here and can be chosen anew.
pub(crate) fn other_ports_may_do(error: &StackError, attempt: usize, ports: &[&PortLease]) -> bool {
    let StackError::PortInUse { port, .. } = error else {
        return false;
    };
    let chosen = |lease: &&PortLease| lease.number == *port && lease.is_free_choice();
    attempt < PORT_ATTEMPTS && ports.iter().any(chosen)
}
