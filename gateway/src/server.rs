//! The listener: bounded connections, bounded heads, bounded waits, and an orderly end.
//!
//! Connections are served by hyper with the limits it enforces itself (it answers 431 to a head that
//! is too large, and closes an HTTP/1 connection that stays without a request for `header_read_timeout`);
//! [`crate::connection`] and [`crate::connections`] add those it does not. Each connection is one task, and at
//! most `max_connections` exist: for a further one the one that is unused for longest makes room.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
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
use crate::connections::{Activity, Admission, Connections, Place};
use crate::handler::{self, Shared};
use crate::metrics::{Closed, Outcome};

/// hyper refuses a smaller buffer for a head.
const MIN_HEAD_BUFFER: usize = 8192;

/// Bytes of bodies that an HTTP/2 connection may send ahead of being read: what it can hold beside the budget of bodies.
const HTTP2_WINDOW: u32 = 64 << 10;

/// Age at which a connection is asked to end, so that none is held for ever.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// How long it then has for what is in flight, before it is closed whatever it does.
const FAREWELL: Duration = Duration::from_secs(60);

/// How long a connection that is unused has to take note of its end.
const SHORT_FAREWELL: Duration = Duration::from_secs(1);

/// How much later than hyper a connection without a request is ended, so that hyper may answer it.
const AFTER_HYPER: Duration = Duration::from_secs(1);

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
    let most = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let places = Connections::new(
        most(config.max_connections),
        most(config.max_connections_per_address),
        config.trusted_proxies.clone(),
    );
    shared.metrics().watch(&places);
    let server = Arc::new(Server {
        builder: builder(config),
        shared,
        header_read_timeout: config.header_read_timeout,
        idle_timeout: config.idle_timeout,
        write_timeout: config.write_timeout,
        stop: stop.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.admit(peer) {
                    Admission::Admitted(place, evicted) => {
                        if evicted {
                            server.shared.metrics().closed(Closed::Evicted);
                        }
                        connections.spawn(Arc::clone(&server).connection(stream, peer, place));
                    }
                    Admission::Refused => server.shared.metrics().closed(Closed::Refused),
                },
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
        .max_concurrent_streams(config.max_streams)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW)
        .max_send_buf_size(HTTP2_WINDOW as usize)
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
    idle_timeout: Duration,
    write_timeout: Duration,
    stop: watch::Receiver<bool>,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are small; waiting to fill a segment only adds latency.
        let _ = stream.set_nodelay(true);
        let activity = place.activity();
        let (socket, mut remains) =
            Socket::new(stream, Arc::clone(activity), self.header_read_timeout, self.write_timeout);
        let end = self.converse(socket, peer, activity).await;
        // The socket is dropped by now, so its stream is here.
        if let Ok(remains) = remains.try_recv()
            && take_leave(remains, end).await
        {
            self.shared.metrics().refused_head(Outcome::Timeout);
        }
    }

    /// Serves the connection to its end.
    async fn converse(&self, socket: Socket, peer: SocketAddr, activity: &Arc<Activity>) -> End {
        let service = service_fn(|request: http::Request<Incoming>| {
            let busy = activity.begin();
            let answer = handler::handle(Arc::clone(&self.shared), peer, request, busy);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(socket), service));
        let mut stop = self.stop.clone();
        let opening = self.header_read_timeout + AFTER_HYPER;
        let (ended, retired) = tokio::select! {
            ended = connection.as_mut() => (Some(ended), false),
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                // `serve` cuts off what takes too long.
                (Some(connection.as_mut().await), true)
            }
            () = tokio::time::sleep(MAX_AGE) => (self.part(connection, FAREWELL, Closed::Old).await, true),
            () = activity.unused(opening, self.idle_timeout) => {
                (self.part(connection, SHORT_FAREWELL, Closed::Idle).await, true)
            }
            () = activity.must_leave() => return End::Retired,
        };
        let Some(ended) = ended else { return End::Retired };
        match ended {
            Err(error) if timed_out(&*error) => End::TimedOut,
            Err(error) => {
                let hyper = error.downcast_ref::<hyper::Error>();
                if hyper.is_some_and(hyper::Error::is_parse_too_large) {
                    self.shared.metrics().refused_head(Outcome::HeadersTooLarge);
                }
                let unread = has_kind(&*error, io::ErrorKind::WriteZero);
                self.shared.metrics().closed(if unread { Closed::Unread } else { Closed::Broken });
                tracing::debug!(%peer, %error, "connection ended");
                End::Other
            }
            Ok(()) if retired => End::Retired,
            Ok(()) => End::Other,
        }
    }
}

impl Server {
    /// Asks a connection to end, and waits no longer than `farewell` for it. `None` where it had to be closed.
    async fn part<C: hyper_util::server::graceful::GracefulConnection>(
        &self,
        mut connection: Pin<&mut C>,
        farewell: Duration,
        why: Closed,
    ) -> Option<C::Output> {
        self.shared.metrics().closed(why);
        connection.as_mut().graceful_shutdown();
        tokio::time::timeout(farewell, connection).await.ok()
    }
}

/// An error, what caused it, what caused that, and so on.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Whether an error, or what caused it, is one of input and output of this kind.
fn has_kind(error: &(dyn Error + 'static), kind: io::ErrorKind) -> bool {
    causes(error)
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == kind))
}

/// Whether a wait for the sender ran out: hyper's for a head, or the socket's for the first bytes.
fn timed_out(error: &(dyn Error + 'static)) -> bool {
    let of_hyper = causes(error)
        .any(|error| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout));
    of_hyper || has_kind(error, io::ErrorKind::TimedOut)
}
