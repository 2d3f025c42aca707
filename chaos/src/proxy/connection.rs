//! One client's connection, and the one to the broker that belongs to it.
//!
//! A pump in each direction reads into a window of fixed size, finds the frames in it, and writes on
//! what is there, part of a frame or many, from where it was read. Only at the beginning of a frame a
//! fault can strike; all that came before is written by then. What the proxy answers itself is left for the other
//! pump, which says it in its turn.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Action, ApiKey, Side,
    board::{Board, Target},
    exchange::{Exchange, OUTSTANDING_LIMIT, OwnAnswer, Pending},
    frame::{self, FrameError, HEAD_LIMIT},
};

/// Bytes read at once, in each direction; more than a header takes.
const WINDOW: usize = 128 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection stays that nothing passes any more.
const BLACK_HOLE: Duration = Duration::from_secs(30);
/// How long an EndTxn is held for a next transaction that does not come.
const HOLD_LIMIT: Duration = Duration::from_secs(20);
/// How long the broker may take to answer an EndTxn that was held.
const LATE_ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a connection needs of the proxy.
pub(super) struct Context<'a> {
    pub(super) board: &'a Board,
    pub(super) broker: u16,
    pub(super) upstream: u16,
    /// Tells this connection from all others.
    pub(super) id: u64,
    /// True while the broker cannot be reached.
    pub(super) partition: watch::Receiver<bool>,
    /// Changes when every connection is to be closed.
    pub(super) cut: watch::Receiver<u64>,
}

/// How a pump ended.
enum End {
    /// One side closed, failed or is to be cut off.
    Closed,
    Rubbish(FrameError),
    /// A frame was swallowed; nothing passes any more.
    BlackHole,
    Hold(Held),
}

/// An EndTxn that was kept back.
struct Held {
    frame: Vec<u8>,
    transactional_id: Vec<u8>,
    version: i16,
    correlation: i32,
}

/// A frame at the beginning of the window that may be passed on, or is struck.
struct Judged {
    size: usize,
    strike: Option<Strike>,
}

enum Strike {
    Delay(Duration),
    Drop,
    Cut,
    Hold {
        transactional_id: Vec<u8>,
        version: i16,
        correlation: i32,
    },
    Refuse {
        correlation: i32,
        after: Duration,
    },
    /// An answer of the proxy's own comes before this frame.
    After(OwnAnswer),
}

/// Serves a client until either side closes.
pub(super) async fn serve(mut context: Context<'_>, client: TcpStream) {
    let mut cut = context.cut.clone();
    tokio::select! {
        () = context.run(client) => {}
        _ = cut.changed() => {}
    }
}

impl Context<'_> {
    async fn run(&mut self, mut client: TcpStream) {
        let mut partition = self.partition.clone();
        healed(&mut partition).await;
        let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream));
        let Ok(Ok(mut broker)) = timeout(CONNECT_LIMIT, connect).await else { return };
        // Frames are written whole; waiting for more would only delay them.
        if client.set_nodelay(true).and(broker.set_nodelay(true)).is_err() {
            return;
        }
        let exchange = Exchange::default();
        let end = {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_broker, mut to_broker) = broker.split();
            tokio::select! {
                end = self.pump(Side::Request, &mut from_client, &mut to_broker, &exchange) => end,
                end = self.pump(Side::Response, &mut from_broker, &mut to_client, &exchange) => end,
            }
        };
        match end {
            Ok(End::BlackHole) => discard(&mut client).await,
            Ok(End::Hold(held)) => {
                tokio::join!(discard(&mut client), self.deliver_late(held, &mut broker));
            }
            Ok(End::Rubbish(error)) => {
                tracing::warn!(broker = self.broker, %error, "a connection does not speak Kafka's protocol");
            }
            Ok(End::Closed) | Err(_) => {}
        }
    }

    async fn pump(
        &self,
        side: Side,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        exchange: &Exchange,
    ) -> io::Result<End> {
        let mut partition = self.partition.clone();
        let mut window = Window::new();
        // Bytes of the current frame that are still to be passed on.
        let mut passing = 0;
        loop {
            tokio::select! {
                read = window.fill(from) => if read? == 0 { return Ok(End::Closed) },
                frame = exchange.own_answer(), if side == Side::Response && passing == 0 => {
                    healed(&mut partition).await;
                    to.write_all(&frame).await?;
                    continue;
                }
            }
            loop {
                let (ready, judged) = match self.scan(side, window.bytes(), passing, exchange) {
                    Ok(found) => found,
                    Err(error) => return Ok(End::Rubbish(error)),
                };
                if ready.length > 0 {
                    healed(&mut partition).await;
                    to.write_all(&window.bytes()[..ready.length]).await?;
                    window.consume(ready.length);
                }
                passing = ready.passing;
                let Some((size, strike)) = judged else { break };
                match strike {
                    Strike::Delay(time) => {
                        sleep(time).await;
                        passing = size;
                    }
                    Strike::Drop => return Ok(End::BlackHole),
                    Strike::Cut => return Ok(End::Closed),
                    Strike::Hold { transactional_id, version, correlation } => {
                        let frame = window.bytes()[..size.min(window.bytes().len())].to_vec();
                        return Ok(End::Hold(Held {
                            frame,
                            transactional_id,
                            version,
                            correlation,
                        }));
                    }
                    Strike::Refuse { correlation, after } => {
                        let answer = loop {
                            match frame::refusal(window.bytes()) {
                                Ok(Some(answer)) => break answer,
                                Ok(None) if window.fill(from).await? > 0 => {}
                                Ok(None) => return Ok(End::Closed),
                                Err(error) => return Ok(End::Rubbish(error)),
                            }
                        };
                        if !window.swallow(from, size).await? {
                            return Ok(End::Closed);
                        }
                        let own = OwnAnswer { at: Instant::now() + after, frame: answer };
                        if let Some(pending) = exchange.lock().find(correlation) {
                            pending.own = Some(own);
                        }
                        exchange.answered.notify_one();
                    }
                    Strike::After(own) => {
                        sleep_until(own.at).await;
                        healed(&mut partition).await;
                        to.write_all(&own.frame).await?;
                    }
                }
            }
            if window.is_full() {
                return Ok(End::Rubbish(FrameError::Head));
            }
        }
    }

    /// How much of `bytes` can be passed on, and what strikes behind it.
    fn scan(
        &self,
        side: Side,
        bytes: &[u8],
        mut passing: usize,
        exchange: &Exchange,
    ) -> Result<(Ready, Option<(usize, Strike)>), FrameError> {
        let mut length = 0;
        loop {
            let step = passing.min(bytes.len() - length);
            length += step;
            passing -= step;
            if length == bytes.len() {
                return Ok((Ready { length, passing }, None));
            }
            let rest = &bytes[length..];
            let judged = match side {
                Side::Request => self.judge_request(rest, exchange)?,
                Side::Response => self.judge_response(rest, exchange)?,
            };
            match judged {
                None => return Ok((Ready { length, passing }, None)),
                Some(Judged { size, strike: None }) => passing = size,
                Some(Judged { size, strike: Some(strike) }) => {
                    return Ok((Ready { length, passing }, Some((size, strike))));
                }
            }
        }
    }

    fn judge_request(
        &self,
        bytes: &[u8],
        exchange: &Exchange,
    ) -> Result<Option<Judged>, FrameError> {
        let Some(request) = frame::request(bytes)? else { return Ok(None) };
        let frame::Request { size, api, version, correlation, client_id, transactional_id } =
            request;
        let first = {
            let mut outstanding = exchange.lock();
            if outstanding.client_id != client_id {
                outstanding.client_id = client_id.to_vec();
            }
            if outstanding.requests.len() >= OUTSTANDING_LIMIT {
                outstanding.requests.pop_front();
            }
            let transactional_id = transactional_id
                .filter(|_| api == ApiKey::AddPartitionsToTxn)
                .map(Box::<[u8]>::from);
            let first = outstanding.seen.insert(api);
            let pending = Pending { correlation, api, version, first, own: None, transactional_id };
            outstanding.requests.push_back(pending);
            first
        };
        let action = self.strike(api, Side::Request, client_id, first);
        let strike = action.map(|action| match action {
            Action::Delay(time) => Strike::Delay(time),
            Action::Drop => Strike::Drop,
            Action::Cut => Strike::Cut,
            Action::HoldUntilNextTransaction => {
                let transactional_id = transactional_id.unwrap_or_default().to_vec();
                Strike::Hold { transactional_id, version, correlation }
            }
            Action::Refuse(after) => Strike::Refuse { correlation, after },
        });
        Ok(Some(Judged { size, strike }))
    }

    fn judge_response(
        &self,
        bytes: &[u8],
        exchange: &Exchange,
    ) -> Result<Option<Judged>, FrameError> {
        let Some(response) = frame::response(bytes)? else { return Ok(None) };
        let size = response.size;
        let mut outstanding = exchange.lock();
        let known = |pending: &Pending| pending.correlation == response.correlation;
        let Some(index) = outstanding.requests.iter().position(known) else {
            return Ok(Some(Judged { size, strike: None }));
        };
        if let Some(own) = outstanding.own_answer(index) {
            return Ok(Some(Judged { size, strike: Some(Strike::After(own)) }));
        }
        // What a transaction's beginning was answered stands at the end of a small frame.
        let wanted = outstanding.requests[index].transactional_id.is_some();
        if wanted && bytes.len() < size.min(HEAD_LIMIT) {
            return Ok(None);
        }
        // Answers come in the order of their requests: those before had none.
        let Some(pending) = outstanding.requests.drain(..=index).next_back() else {
            return Ok(None);
        };
        if let Some(transactional_id) = &pending.transactional_id {
            let frame = &bytes[..size.min(bytes.len())];
            // Refused for now (an earlier one is still ending) is not begun.
            if frame::add_partitions_error(pending.version, frame).unwrap_or(0) == 0 {
                self.board.began(transactional_id, self.id);
            }
        }
        let action =
            self.strike(pending.api, Side::Response, &outstanding.client_id, pending.first);
        let strike = action.map(|action| match action {
            Action::Delay(time) => Strike::Delay(time),
            Action::Drop => Strike::Drop,
            // The others cannot be armed on this side.
            Action::Cut | Action::HoldUntilNextTransaction | Action::Refuse(_) => Strike::Cut,
        });
        Ok(Some(Judged { size, strike }))
    }

    fn strike(&self, api: ApiKey, side: Side, client_id: &[u8], first: bool) -> Option<Action> {
        self.board.strike(&Target { broker: self.broker, api, side, client_id, first })
    }

    /// Delivers an EndTxn when the next transaction of its transactional.id has begun elsewhere, and notes
    /// what the broker says to it.
    async fn deliver_late(&self, held: Held, broker: &mut TcpStream) {
        let next = self.board.hold(&held.transactional_id, self.id);
        let reason = match timeout(HOLD_LIMIT, next).await {
            Ok(Ok(())) => "after the next transaction began",
            Ok(Err(_)) => "at once, because too many are held",
            Err(_) => "without a next transaction",
        };
        healed(&mut self.partition.clone()).await;
        let answer = timeout(LATE_ANSWER_LIMIT, late_answer(&held, broker)).await;
        let outcome = match answer {
            Ok(Ok(Some(error))) => format!("answered with error {error}"),
            Ok(Ok(None)) => "answered with something else".to_owned(),
            Ok(Err(error)) => format!("not answered: {error}"),
            Err(_) => "not answered in time".to_owned(),
        };
        let id = String::from_utf8_lossy(&held.transactional_id);
        self.board.note(
            super::LATE_END_TXN.to_owned(),
            format!("broker {}, transactional.id {id}, {reason}; {outcome}", self.broker),
        );
    }
}

/// Writes the frame and reads up to its answer: the error code in it.
async fn late_answer(held: &Held, broker: &mut TcpStream) -> io::Result<Option<i16>> {
    broker.write_all(&held.frame).await?;
    // Earlier requests may be answered first.
    for _ in 0..OUTSTANDING_LIMIT {
        let mut head = [0; 8];
        broker.read_exact(&mut head).await?;
        let response = frame::response(&head).ok().flatten();
        let Some(frame::Response { size, correlation }) = response else { return Ok(None) };
        let mut rest = (&mut *broker).take((size - head.len()) as u64);
        if correlation != held.correlation {
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        } else if size <= HEAD_LIMIT {
            let mut frame = head.to_vec();
            rest.read_to_end(&mut frame).await?;
            return Ok(frame::end_txn_error(held.version, &frame));
        } else {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Returns when the broker can be reached. When the proxy is gone there is nothing to wait for.
async fn healed(partition: &mut watch::Receiver<bool>) {
    let _ = partition.wait_for(|cut_off| !cut_off).await;
}

/// Reads and forgets what a client sends until it gives up.
async fn discard(client: &mut TcpStream) {
    let mut sink = tokio::io::sink();
    let _ = timeout(BLACK_HOLE, tokio::io::copy(client, &mut sink)).await;
}

/// What of the window can be written, and what is then still to come of the last frame.
struct Ready {
    length: usize,
    passing: usize,
}

/// Bytes that were read and not yet written.
struct Window {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    fn new() -> Self {
        Self { buffer: vec![0; WINDOW].into_boxed_slice(), start: 0, end: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn is_full(&self) -> bool {
        self.end - self.start == self.buffer.len()
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads on and forgets a frame of this size at the front; false if it ends before.
    async fn swallow(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        mut size: usize,
    ) -> io::Result<bool> {
        loop {
            let step = size.min(self.bytes().len());
            self.consume(step);
            size -= step;
            if size == 0 {
                return Ok(true);
            }
            if self.fill(from).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads once. What is left of a header moves to the front first.
    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = from.read(&mut self.buffer[self.end..]).await?;
        self.end += count;
        Ok(count)
    }
}
