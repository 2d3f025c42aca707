//! One HTTP/1.1 connection: a request out, its answer in, then the next.

use std::{
    io::{Error, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest answer that is understood.
const LARGEST: usize = 64 * 1024;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn open(address: SocketAddr) -> Result<Connection, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, answer: Vec::with_capacity(1024) })
    }

    /// Sends a request and reads the answer to its end; returns the status.
    ///
    /// # Errors
    /// The connection is lost, no answer comes in 30 s, or it is not one of HTTP/1.1 with a length.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16, Error> {
        self.stream.write_all(request).await?;
        timeout(ANSWER, self.answer()).await?
    }

    async fn answer(&mut self) -> Result<u16, Error> {
        self.answer.clear();
        loop {
            if let Some((status, length)) = head(&self.answer)?
                && self.answer.len() >= length
            {
                return Ok(status);
            }
            if self.answer.len() > LARGEST {
                return Err(Error::new(ErrorKind::InvalidData, "an answer of more than 64 KiB"));
            }
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server closed the connection",
                ));
            }
        }
    }
}

/// Status, and length of the whole answer, once its head is complete.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>, Error> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let strange = || Error::new(ErrorKind::InvalidData, "not an HTTP/1.1 answer with a length");
    let text = std::str::from_utf8(&answer[..end]).map_err(|_| strange())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let ours = name.eq_ignore_ascii_case("content-length");
        ours.then(|| value.trim().parse::<usize>().ok())?
    });
    let status: u16 = status.ok_or_else(strange)?;
    // 204 has no body and says no length.
    let length = length.or((status == 204).then_some(0)).ok_or_else(strange)?;
    Ok(Some((status, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(head(answer).unwrap(), Some((200, answer.len())));
        assert_eq!(head(&answer[..30]).unwrap(), None, "control: its head is not complete");
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"nonsense\r\n\r\n").is_err());
        assert_eq!(head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27)));
    }
}
