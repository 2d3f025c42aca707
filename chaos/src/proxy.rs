//! A proxy between clients and brokers that understands Kafka's protocol, and breaks connections where it
//! hurts: at a chosen request or at its answer.
//!
//! For each broker it listens where the broker sends its clients (see [`Route`]) and passes on what they
//! say. Frames are told apart and requests matched with their answers; bodies are passed on unread. So a
//! [`Fault`] can be as exact as "the broker commits, and the answer to it never comes".
//!
//! * `api`: the requests by name;
//! * `frame`: where frames begin and whose they are;
//! * `board`: what is armed and what has fired;
//! * `exchange`: the requests that are under way on a connection;
//! * `connection`: passing on, and doing what a fault says.
//!
//! Bounds: 256 KiB of memory and at most 16,384 outstanding requests for each connection, 1,024 connections for
//! each broker, 64 armed faults, 10,000 entries of the log.

mod api;
mod board;
mod connection;
mod exchange;
mod frame;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use sluice_dev_stack::Route;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub use self::api::ApiKey;
use self::{
    board::Board,
    connection::{Context, serve},
};

/// Most connections to one broker at once; what comes beyond is closed.
const CONNECTION_LIMIT: usize = 1024;
/// Pause after a connection could not be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The kind in [`Proxy::log`] of an EndTxn that was held and has now been delivered. Its note says why, and
/// which error code the broker answered.
pub const LATE_END_TXN: &str = "late EndTxn";

/// Which half of an exchange a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The request, before the broker sees it.
    Request,
    /// The response: the broker has done the work, the client does not know.
    Response,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Response => "response",
        })
    }
}

/// What happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It waits for this long, and what is behind it on the connection waits with it.
    Delay(Duration),
    /// It is swallowed, and nothing passes on its connection any more, in either direction, as if the
    /// network had parted: until the client gives the connection up, or for 30 s.
    Drop,
    /// Both sides of the connection are closed instead.
    Cut,
    /// An EndTxn request alone: it is kept back and its client's connection is a black hole. The broker gets
    /// it when an AddPartitionsToTxn of the same transactional.id has been answered on another connection,
    /// that is when the next transaction has begun; or after 20 s. This is the late request of KAFKA-17754.
    HoldUntilNextTransaction,
    /// A Produce request of one partition alone: the broker never gets it, and the proxy answers after this long, in
    /// the order of requests, that the broker is not the partition's leader (NOT_LEADER_OR_FOLLOWER). What is behind it
    /// on the connection passes meanwhile. So does a broker that becomes the leader between two records.
    Refuse(Duration),
}

/// One fault: it strikes the next frame that matches, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which request, or the response to which.
    pub api: ApiKey,
    /// Which of the two.
    pub side: Side,
    /// What happens to it.
    pub action: Action,
    /// How the client.id must begin; `None` for any client.
    pub client: Option<String>,
    /// Whether only the first request of its kind on a connection is meant.
    pub first: bool,
}

impl Fault {
    /// A fault for any client.
    pub fn new(api: ApiKey, side: Side, action: Action) -> Self {
        Self { api, side, action, client: None, first: false }
    }

    /// For clients alone whose client.id begins with `prefix`.
    #[must_use]
    pub fn of_client(self, prefix: impl Into<String>) -> Self {
        Self { client: Some(prefix.into()), ..self }
    }

    /// For the first request of its kind on a connection alone: what a client has just been started for.
    #[must_use]
    pub fn first_of_connection(self) -> Self {
        Self { first: true, ..self }
    }

    /// What it is counted as, such as `cut EndTxn response`.
    pub fn kind(&self) -> String {
        let verb = match self.action {
            Action::Delay(_) => "delay",
            Action::Drop => "drop",
            Action::Cut => "cut",
            Action::HoldUntilNextTransaction => "hold",
            Action::Refuse(_) => "refuse",
        };
        format!("{verb} {} {}", self.api, self.side)
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// When it happened, by this computer's clock.
    pub at: SystemTime,
    /// What happened, as in [`Proxy::fired`].
    pub kind: String,
    /// To whom: the broker, the client.id.
    pub note: String,
}

/// Why the proxy does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A port is not free.
    #[error("the proxy cannot listen on port {port} of 127.0.0.1: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Too many faults wait for their frame.
    #[error("{0} faults are armed already")]
    TooManyArmed(usize),
    /// This action is not for this request or side.
    #[error(
        "there is no `{0}`: only an EndTxn request is held, and only a Produce request is refused"
    )]
    NoSuchFault(String),
    /// The proxy has no such route.
    #[error("the proxy has no route to broker {0}")]
    NoRoute(u16),
}

/// A running proxy. Dropping it closes its connections; [`Proxy::stop`] waits for that.
#[derive(Debug)]
pub struct Proxy {
    board: Arc<Board>,
    partitions: BTreeMap<u16, watch::Sender<bool>>,
    cut: watch::Sender<u64>,
    // The end of this channel ends the listeners, and they their connections.
    stop: watch::Sender<()>,
    listeners: JoinSet<()>,
}

impl Proxy {
    /// Listens on every route. To be called in a Tokio runtime, where the proxy then runs.
    ///
    /// # Errors
    /// A port is not free.
    pub async fn start(routes: &[Route]) -> Result<Self, ProxyError> {
        let mut proxy = Self {
            board: Arc::default(),
            partitions: BTreeMap::new(),
            cut: watch::Sender::new(0),
            stop: watch::Sender::new(()),
            listeners: JoinSet::new(),
        };
        let connections = Arc::new(AtomicU64::new(0));
        for route in routes {
            let port = route.listen;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .await
                .map_err(|source| ProxyError::Bind { port, source })?;
            let partition = watch::Sender::new(false);
            let accepting = Accepting {
                board: proxy.board.clone(),
                route: *route,
                partition: partition.subscribe(),
                cut: proxy.cut.subscribe(),
                stop: proxy.stop.subscribe(),
                connections: connections.clone(),
            };
            proxy.listeners.spawn(accepting.run(listener));
            proxy.partitions.insert(route.broker, partition);
        }
        Ok(proxy)
    }

    /// Arms a fault for the next frame that it matches. Of several that match, the oldest strikes.
    ///
    /// # Errors
    /// 64 faults are armed already, or something else than an EndTxn request is to be held, or than a Produce request
    /// refused.
    pub fn arm(&self, fault: Fault) -> Result<(), ProxyError> {
        self.board.arm(fault)
    }

    /// Takes back what has not struck yet; says how much that was. What is held or delayed stays so.
    pub fn disarm_all(&self) -> usize {
        self.board.disarm_all()
    }

    /// How many faults have not struck yet.
    pub fn armed(&self) -> usize {
        self.board.armed()
    }

    /// How often each kind of fault has struck: `cut EndTxn response`, `drop Produce request`, `hold EndTxn
    /// request`, `cut all`, `partition` and so on.
    pub fn fired(&self) -> BTreeMap<String, u64> {
        self.board.counts()
    }

    /// What has struck whom, in order of time: the latest 10,000 entries.
    pub fn log(&self) -> Vec<Fired> {
        self.board.log()
    }

    /// Closes every connection.
    pub fn cut_all(&self) {
        self.board.record("cut all".to_owned(), "every connection".to_owned());
        self.cut.send_modify(|count| *count += 1);
    }

    /// Parts the clients from a broker, or heals it. The brokers themselves still reach each other. While it
    /// lasts nothing passes and nothing is refused; what was sent meanwhile arrives late, as after a real
    /// partition, also from clients that are gone by then.
    ///
    /// # Errors
    /// There is no route to this broker.
    pub fn partition(&self, broker: u16, on: bool) -> Result<(), ProxyError> {
        let partition = self.partitions.get(&broker).ok_or(ProxyError::NoRoute(broker))?;
        if partition.send_replace(on) != on && on {
            self.board.record("partition".to_owned(), format!("broker {broker}"));
        }
        Ok(())
    }

    /// Stops listening and closes every connection; returns when that is done.
    pub async fn stop(self) {
        let Self { stop, mut listeners, .. } = self;
        drop(stop);
        while listeners.join_next().await.is_some() {}
    }
}

/// One listener.
struct Accepting {
    board: Arc<Board>,
    route: Route,
    partition: watch::Receiver<bool>,
    cut: watch::Receiver<u64>,
    stop: watch::Receiver<()>,
    connections: Arc<AtomicU64>,
}

impl Accepting {
    async fn run(mut self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                _ = self.stop.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) if open.len() < CONNECTION_LIMIT => {
                        open.spawn(self.connection(client));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the proxy could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        open.shutdown().await;
    }

    fn connection(&self, client: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let board = self.board.clone();
        let Route { broker, upstream, .. } = self.route;
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        let (partition, mut cut) = (self.partition.clone(), self.cut.clone());
        // What was cut before this connection began is no concern of it.
        cut.mark_unchanged();
        async move {
            serve(Context { board: &board, broker, upstream, id, partition, cut }, client).await;
        }
    }
}
