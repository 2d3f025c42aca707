//! Ports on 127.0.0.1: fixed ones are checked, free ones are found and reserved.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::StackError, unit::ServiceName};

/// Free ports come from below the range that operating systems use for outgoing connections (32768
/// or 49152 upwards): a client that keeps connecting to a broker that is down could otherwise be
/// given the broker's own port as its source, and keep it.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
/// A predecessor that was killed needs a moment to release its port.
const RELEASE_LIMIT: Duration = Duration::from_millis(1500);

/// Which port a service listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Any free one.
    Free,
    /// This one, or an error if it is in use. 0 means [`Port::Free`].
    Fixed(u16),
}

/// A port for the lifetime of a service, through its restarts.
#[derive(Debug)]
pub(crate) struct PortLease {
    pub(crate) number: u16,
    /// Holding the UDP port of the same number keeps other stacks on this computer from choosing
    /// it while the service is not listening yet, and ends with the process in any case.
    reservation: Option<UdpSocket>,
}

impl PortLease {
    /// True if the port was chosen here, so that another one would do as well.
    pub(crate) fn is_free_choice(&self) -> bool {
        self.reservation.is_some()
    }

    /// True if some program listens on the port.
    pub(crate) fn is_taken(&self) -> bool {
        !is_free(self.number)
    }
}

pub(crate) async fn lease(port: Port, service: ServiceName) -> Result<PortLease, StackError> {
    match port {
        Port::Free | Port::Fixed(0) => free(),
        Port::Fixed(number) => {
            let deadline = Instant::now() + RELEASE_LIMIT;
            while !is_free(number) {
                if Instant::now() >= deadline {
                    let option = service.port_option();
                    return Err(StackError::PortInUse { port: number, service, option });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(PortLease { number, reservation: None })
        }
    }
}

fn free() -> Result<PortLease, StackError> {
    let span = LAST - FIRST + 1;
    // A random start keeps processes that begin together from trying the same ports in step.
    let start = (RandomState::new().build_hasher().finish() % u64::from(span)) as u16;
    for step in 0..span {
        let number = FIRST + (start + step) % span;
        if let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))
            && is_free(number)
        {
            return Ok(PortLease { number, reservation: Some(reservation) });
        }
    }
    Err(StackError::NoFreePort { first: FIRST, last: LAST })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn a_fixed_port_in_use_is_refused_with_the_option() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = held.local_addr().unwrap().port();
        let error = lease(Port::Fixed(number), ServiceName::Kafka).await.unwrap_err().to_string();
        assert!(error.contains(&number.to_string()) && error.contains("--kafka-port"), "{error}");
        drop(held);
        assert_eq!(lease(Port::Fixed(number), ServiceName::Kafka).await.unwrap().number, number);
    }

    #[tokio::test]
    async fn free_ports_differ_while_they_are_held() {
        let mut held = Vec::new();
        for _ in 0..50 {
            held.push(lease(Port::Free, ServiceName::Registry).await.unwrap());
        }
        let numbers: std::collections::HashSet<_> = held.iter().map(|lease| lease.number).collect();
        assert_eq!(numbers.len(), held.len());
        assert!(held.iter().all(PortLease::is_free_choice));
    }
}
