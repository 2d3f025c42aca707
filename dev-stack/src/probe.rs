//! Readiness: a service is up when it answers a real request, not when its port is open.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest time for one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What to ask, and which answer means ready.
#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// The broker `node` of this cluster lists itself as usable. The cluster's id tells our broker from
    /// one of another process that got the port first.
    Kafka { port: u16, cluster_id: String, node: u16 },
    /// The registry lists its subjects.
    Registry { port: u16 },
}

impl Probe {
    /// One attempt; false when there is no answer yet, or not the right one.
    pub(crate) async fn attempt(&self) -> bool {
        let answer = async {
            match self {
                Self::Kafka { port, cluster_id, node } => cluster_of_usable_broker(*port, *node)
                    .await
                    .map(|found| found.as_ref() == Some(cluster_id)),
                Self::Registry { port } => subjects_status(*port).await.map(|status| status == 200),
            }
        };
        matches!(tokio::time::timeout(ATTEMPT_LIMIT, answer).await, Ok(Ok(true)))
    }
}

/// A Metadata request, version 2, without topics: the answer lists brokers that serve requests
/// (unlike ApiVersions, which a broker answers before it is registered) and names the cluster.
const METADATA_REQUEST: [u8; 18] = [
    0, 0, 0, 14, // size of what follows
    0, 3, 0, 2, // Metadata, version 2
    0, 0, 0, 1, // correlation id
    0xff, 0xff, // no client id
    0, 0, 0, 0, // no topics
];

async fn cluster_of_usable_broker(port: u16, node: u16) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&METADATA_REQUEST).await?;
    let size = stream.read_u32().await? as usize;
    if size > ANSWER_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a Kafka broker"));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer).await?;
    Ok(cluster_in_metadata(&answer, node))
}

/// The cluster id, if the answer is whole and lists the broker `node`.
fn cluster_in_metadata(answer: &[u8], node: u16) -> Option<String> {
    let mut rest = answer.get(4..)?; // correlation id
    let brokers = i32::from_be_bytes(*take(&mut rest)?);
    let mut listed = false;
    for _ in 0..brokers {
        listed |= i32::from_be_bytes(*take(&mut rest)?) == i32::from(node);
        string(&mut rest)?; // host
        take::<4>(&mut rest)?; // port
        string(&mut rest)?; // rack
    }
    let cluster = string(&mut rest)?;
    if !listed || cluster.is_empty() {
        return None;
    }
    String::from_utf8(cluster.to_vec()).ok()
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

/// A nullable string; null reads as empty.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(i16::from_be_bytes(*take(rest)?)).unwrap_or(0);
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

async fn subjects_status(port: u16) -> io::Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!(
        "GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; 12]; // "HTTP/1.1 200"
    stream.read_exact(&mut line).await?;
    std::str::from_utf8(&line[9..])
        .ok()
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn answer(brokers: i32) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend(brokers.to_be_bytes());
        for node in 1..=brokers {
            bytes.extend(node.to_be_bytes());
            bytes.extend([0, 2, b'h', b'o']);
            bytes.extend(9092_i32.to_be_bytes());
            bytes.extend([0xff, 0xff]);
        }
        bytes.extend([0, 3, b'a', b'b', b'c']);
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn ready_needs_a_broker_and_any_truncation_is_not_ready() {
        let whole = answer(2);
        assert_eq!(cluster_in_metadata(&whole, 1).as_deref(), Some("abc"));
        assert_eq!(cluster_in_metadata(&whole, 2).as_deref(), Some("abc"));
        assert_eq!(cluster_in_metadata(&whole, 3), None);
        assert_eq!(cluster_in_metadata(&answer(0), 1), None);
        let needed = whole.len() - 8;
        for length in 0..needed {
            assert_eq!(cluster_in_metadata(&whole[..length], 1), None, "{length}");
        }
        assert_eq!(cluster_in_metadata(&[0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff], 1), None);
    }
}
