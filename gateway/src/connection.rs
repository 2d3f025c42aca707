//! The socket under one HTTP connection, with what hyper leaves open.
//!
//! hyper answers an oversized head itself (431), but closes a slow one without a word, does not bound
//! the wait for the first bytes while it finds out the protocol version, and closes a connection whose
//! request body it did not read in a way that may destroy the answer on its way (a TCP reset). It also waits for ever
//! for a receiver that does not read, and takes the end of what a sender sends for the end of all. So
//! [`Socket`] bounds the first bytes and every write, holds the end back until the answers are given, notes where the
//! conversation stood, and hands the stream back when hyper is done with it; [`take_leave`] then says 408 where that is
//! due, and lets the sender finish before the socket is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use uuid::Uuid;

use crate::connections::{Activity, State};
use crate::problem::Problem;

/// Bytes after which the protocol version is known: the length of HTTP/2's preface.
const PREFACE: usize = 24;

/// Longest wait for a sender to stop sending once its connection is over.
const LINGER: Duration = Duration::from_secs(2);

/// Most bytes that are read and thrown away meanwhile.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// The first bytes of HTTP/2, which no method of HTTP/1 begins with.
const HTTP2: &[u8; 3] = b"PRI";

/// For at least as long no answer is due before the end of what the sender sends is told, so that the last one has left.
const AFTER_ANSWER: Duration = Duration::from_millis(250);

/// The stream as hyper left it.
#[derive(Debug)]
pub(crate) struct Remains {
    stream: TcpStream,
    /// The sender closed its side.
    ended: bool,
    /// Something of a request arrived and nothing was answered to it.
    unanswered: bool,
}

/// A TCP stream that notes where the conversation stands, and comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    remains: Option<Remains>,
    hand_back: Option<oneshot::Sender<Remains>>,
    /// Runs until enough has been read to know the protocol version.
    opening: Option<Pin<Box<Sleep>>>,
    read: usize,
    first: [u8; HTTP2.len()],
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// Runs while the receiver takes nothing.
    writing: Option<Pin<Box<Sleep>>>,
    /// Runs when the sender has ended and answers may still be due.
    ending: Option<Pin<Box<Sleep>>>,
    /// No answer was due when that was looked at last.
    quiet: bool,
}

impl Socket {
    /// A socket that gives up when the first bytes take longer than `first_bytes`, or the receiver takes nothing for
    /// `write_timeout`. The other receiver gets the stream when the socket is dropped.
    pub(crate) fn new(
        stream: TcpStream,
        activity: Arc<Activity>,
        first_bytes: Duration,
        write_timeout: Duration,
    ) -> (Self, oneshot::Receiver<Remains>) {
        let (hand_back, remains) = oneshot::channel();
        let socket = Self {
            remains: Some(Remains { stream, ended: false, unanswered: false }),
            hand_back: Some(hand_back),
            opening: Some(Box::pin(tokio::time::sleep(first_bytes))),
            read: 0,
            first: [0; HTTP2.len()],
            activity,
            write_timeout,
            writing: None,
            ending: None,
            quiet: false,
        };
        (socket, remains)
    }

    /// The end of what the sender sends, held back while answers are due: hyper would end the conversation. A body of
    /// HTTP/1 that is on its way can only have broken off.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let active = self.activity.state() == State::Active;
            if self.first != *HTTP2 && (!active || self.activity.is_reading()) {
                return Poll::Ready(Ok(()));
            }
            let pause = || Box::pin(tokio::time::sleep(AFTER_ANSWER));
            let ending = self.ending.get_or_insert_with(pause);
            if ending.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !active && self.quiet {
                return Poll::Ready(Ok(()));
            }
            (self.quiet, self.ending) = (!active, None);
        }
    }

    fn remains(&mut self) -> io::Result<&mut Remains> {
        // Taken only by `drop`.
        self.remains.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What a write came to, or the end of the patience with a receiver that takes nothing.
    fn written(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_pending() {
            let limit = self.write_timeout;
            let writing = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if writing.as_mut().poll(cx).is_ready() {
                if let Some(remains) = &mut self.remains {
                    // Nothing more can be told to it.
                    remains.ended = true;
                }
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::WriteZero, "nobody reads")));
            }
            return outcome;
        }
        self.writing = None;
        if matches!(outcome, Poll::Ready(Ok(1..))) {
            self.opening = None;
            if let Some(remains) = &mut self.remains {
                remains.unanswered = false;
            }
        }
        outcome
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(remains), Some(hand_back)) = (self.remains.take(), self.hand_back.take()) {
            // Nobody waits when the connection's task was aborted: the stream closes here.
            let _ = hand_back.send(remains);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.is_some() {
            return this.poll_end(cx);
        }
        let before = buf.filled().len();
        let remains = this.remains()?;
        match Pin::new(&mut remains.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                if read > 0 {
                    remains.unanswered = true;
                    for (place, byte) in
                        this.first.iter_mut().skip(this.read).zip(&buf.filled()[before..])
                    {
                        *place = *byte;
                    }
                    this.read = this.read.saturating_add(read);
                    if this.read >= PREFACE {
                        this.opening = None;
                    }
                } else if buf.remaining() > 0 {
                    remains.ended = true;
                    return this.poll_end(cx);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                remains.ended = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                let opening = this.opening.as_mut();
                match opening.map(|opening| opening.as_mut().poll(cx)) {
                    Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.remains()?.stream).poll_write(cx, buf);
        this.written(outcome, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.remains()?.stream).poll_write_vectored(cx, bufs);
        this.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().remains()?.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().remains()?.stream).poll_shutdown(cx)
    }
}

/// How a connection came to its end, as far as the leave depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A request head, or the start of one, was too slow.
    TimedOut,
    /// The server asked for it: the role stops, or the connection is old.
    Retired,
    /// Anything else.
    Other,
}

/// Ends a connection that hyper is done with. Returns whether a 408 was sent.
pub(crate) async fn take_leave(remains: Remains, end: End) -> bool {
    let Remains { mut stream, ended, unanswered } = remains;
    // An idle connection that timed out has nothing to be told, nor one that ends as agreed.
    let slow = end == End::TimedOut && unanswered;
    if ended || end == End::Retired || (end == End::TimedOut && !slow) {
        return false;
    }
    let farewell = async {
        if slow {
            stream.write_all(&slow_head()).await?;
        }
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whether the sender listened is its own affair.
    let _ = tokio::time::timeout(LINGER, farewell).await;
    slow
}

/// The answer to a request whose head did not arrive in time.
fn slow_head() -> Vec<u8> {
    let request_id = Uuid::now_v7().hyphenated().to_string();
    let document = Problem::BodyTimeout.document(&request_id);
    let mut answer = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\nconnection: close\r\nx-request-id: {request_id}\r\n\r\n",
        document.len()
    )
    .into_bytes();
    answer.extend_from_slice(&document);
    answer
}
