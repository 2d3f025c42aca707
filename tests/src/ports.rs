//! Ports for `sluice` processes: below the range of outgoing connections, so that no client takes the port
//! of a process that is down for its own, and below those that the stack chooses for its services.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

const FIRST: u16 = 10_000;
const LAST: u16 = 19_999;

/// A port that stays reserved while its process is down.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// The UDP port of the same number keeps other test processes from choosing it.
    _reservation: UdpSocket,
}

impl Port {
    /// A free port.
    ///
    /// # Panics
    /// There is none.
    pub fn free() -> Port {
        let span = LAST - FIRST + 1;
        // A random start keeps processes that begin together from trying the same ports in step.
        let start = (RandomState::new().build_hasher().finish() % u64::from(span)) as u16;
        (0..span)
            .find_map(|step| {
                let number = FIRST + (start + step) % span;
                let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                Some(Port { number, _reservation: reservation })
            })
            .expect("a free port on 127.0.0.1")
    }
}
