//! The listener: bounded connections, bounded heads, bounded waits, and an orderly end.
//!
//! Connections are served by hyper with the limits it enforces itself (it answers 431 to a head that
//! is too large, and closes a connection that stays without a request for `header_read_timeout`);
//! [`crate::connection`] adds those it does not. Each connection is one task, and at
//! most `max_connections` exist; further ones wait in the system's accept queue.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sluice_service::config::GatewayConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::{End, Socket, take_leave};
use crate::handler::{self, Shared};
use crate::metrics::Outcome;

/// hyper refuses a smaller buffer for a head.
const MIN_HEAD_BUFFER: usize = 8192;

/// Most requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 128;

/// Age at which a connection is asked to end, so that none is held for ever.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// Wait after a failed accept (no file descriptors left, for example) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is set, then until all are answered or `shutdown_timeout` is over.
/// Returns the number of connections that were cut off.
pub(crate) async fn serve(
    listener: TcpListener,
    config: &GatewayConfig,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> usize {
    let max_connections = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
    let server = Arc::new(Server {
        builder: builder(config),
        shared,
        header_read_timeout: config.header_read_timeout,
        stop: stop.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < max_connections => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(Arc::clone(&server).connection(stream, peer));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let deadline = Instant::now() + config.shutdown_timeout;
    while !connections.is_empty() {
        if tokio::time::timeout_at(deadline, connections.join_next()).await.is_err() {
            break;
        }
    }
    let cut_off = connections.len();
    connections.shutdown().await;
    cut_off
}

/// Waits for the order to stop. That nobody can give it any more counts as one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn builder(config: &GatewayConfig) -> auto::Builder<TokioExecutor> {
    let max_header_bytes = config.max_header_bytes.as_usize();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .max_headers(config.max_headers)
        .max_buf_size(max_header_bytes.max(MIN_HEAD_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Whether an accept failed for the connection alone, so that the next may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

struct Server {
    builder: auto::Builder<TokioExecutor>,
    shared: Arc<Shared>,
    header_read_timeout: Duration,
    stop: watch::Receiver<bool>,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Answers are small; waiting to fill a segment only adds latency.
        let _ = stream.set_nodelay(true);
        let (socket, mut remains) = Socket::new(stream, self.header_read_timeout);
        let end = self.converse(socket, peer).await;
        // The socket is dropped by now, so its stream is here.
        if let Ok(remains) = remains.try_recv()
            && take_leave(remains, end).await
        {
            self.shared.metrics().refused_head(Outcome::Timeout);
        }
    }

    /// Serves the connection to its end.
    async fn converse(&self, socket: Socket, peer: SocketAddr) -> End {
        let service = service_fn(|request: http::Request<Incoming>| {
            let answer = handler::handle(Arc::clone(&self.shared), peer, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(socket), service));
        let mut stop = self.stop.clone();
        let retire = async {
            tokio::select! {
                () = stopped(&mut stop) => {}
                () = tokio::time::sleep(MAX_AGE) => {}
            }
        };
        let (ended, retired) = tokio::select! {
            ended = connection.as_mut() => (ended, false),
            () = retire => {
                connection.as_mut().graceful_shutdown();
                (connection.as_mut().await, true)
            }
        };
        match ended {
            Err(error) if timed_out(&*error) => End::TimedOut,
            Err(error) => {
                let hyper = error.downcast_ref::<hyper::Error>();
                if hyper.is_some_and(hyper::Error::is_parse_too_large) {
                    self.shared.metrics().refused_head(Outcome::HeadersTooLarge);
                }
                tracing::debug!(%peer, %error, "connection ended");
                End::Other
            }
            Ok(()) if retired => End::Retired,
            Ok(()) => End::Other,
        }
    }
}

/// Whether a wait for the sender ran out: hyper's for a head, or the socket's for the first bytes.
fn timed_out(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_hyper = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
        let of_socket = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
        if of_hyper || of_socket {
            return true;
        }
        next = error.source();
    }
    false
}
