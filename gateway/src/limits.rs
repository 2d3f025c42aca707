//! Who is asking, and may they ask so often? Pure decisions over addresses, and the rate limiters.
//!
//! Memory is bounded by construction: an address falls into one of [`ADDRESS_CELLS`] cells by a
//! hash whose key is drawn at start, and two addresses may share a cell's allowance. So there is no
//! table for an attacker to fill.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use sluice_service::config::RateLimit;

/// Most cells that addresses are spread over (a few MiB when every one is in use).
const ADDRESS_CELLS: u64 = 1 << 18;

/// Most entries of `X-Forwarded-For` that are looked at, from the right.
const MAX_HOPS: usize = 32;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address a request comes from: the peer's, or, where the peer is a trusted proxy, the
/// rightmost entry of `X-Forwarded-For` that is not one. Entries further left are the sender's own
/// claim and are never believed; an entry that is no address ends the search at the proxy that
/// handed it on.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !contains(trusted, client) {
        return client;
    }
    let values = headers.get_all(&X_FORWARDED_FOR);
    let entries = values.iter().rev().flat_map(|value| {
        // A value that is no text yields one entry that is no address.
        value.to_str().unwrap_or("-").rsplit(',')
    });
    for entry in entries.take(MAX_HOPS) {
        let Some(address) = forwarded_address(entry.trim()) else {
            break;
        };
        client = address;
        if !contains(trusted, client) {
            break;
        }
    }
    client
}

/// Reads `1.2.3.4`, `1.2.3.4:567`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:567`.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    address
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

/// Whether one of the networks holds the address.
pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The allowance as a quota: `count` may come at once, then one every `per / count`.
fn quota(limit: RateLimit) -> Quota {
    let interval = (limit.per / limit.count.get()).max(Duration::from_nanos(1));
    // The interval is above zero, so the fallback is never taken; it keeps this free of panics.
    Quota::with_period(interval)
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(limit.count)
}

/// One shared allowance.
#[derive(Debug)]
pub(crate) struct Limiter<C: Clock = DefaultClock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

impl<C: Clock + Clone> Limiter<C> {
    /// A full allowance, judged by `clock`.
    pub(crate) fn new(limit: RateLimit, clock: C) -> Self {
        Self { limiter: RateLimiter::direct_with_clock(quota(limit), clock.clone()), clock }
    }

    /// Takes one, or says after what time one would be there.
    pub(crate) fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// One allowance for each client address.
#[derive(Debug)]
pub(crate) struct AddressLimiter<C: Clock = DefaultClock> {
    limiter: RateLimiter<u32, DashMapStateStore<u32>, C, NoOpMiddleware<C::Instant>>,
    hasher: RandomState,
    clock: C,
}

impl<C: Clock + Clone> AddressLimiter<C> {
    /// Full allowances, judged by `clock`.
    pub(crate) fn new(limit: RateLimit, clock: C) -> Self {
        let limiter = RateLimiter::new(quota(limit), DashMapStateStore::default(), clock.clone());
        Self { limiter, hasher: RandomState::new(), clock }
    }

    /// Takes one from the allowance of `address`, or says after what time one would be there.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(subscriber(address));
        let cell = u32::try_from(hash % ADDRESS_CELLS).unwrap_or(u32::MAX);
        self.limiter
            .check_key(&cell)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// The part of an address that one subscriber controls: all of IPv4, the /64 of IPv6.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use governor::clock::FakeRelativeClock;
    use http::HeaderValue;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "2001:db8:1::/48"].iter().map(|net| net.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(client("203.0.113.5", &["198.51.100.1"]), "203.0.113.5");
        assert_eq!(client("::ffff:203.0.113.5", &["10.0.0.1"]), "203.0.113.5");
    }

    #[test]
    fn behind_trusted_proxies_the_rightmost_untrusted_entry_counts() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // The sender wrote the left one itself.
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        // Several header lines are one list.
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.1", "10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("2001:db8:1::1", &["[2001:db8:2::7]:443"]), "2001:db8:2::7");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:5555"]), "198.51.100.1");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_search_at_a_proxy() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, junk, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "\u{fc}"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        // Only trusted entries: the farthest one is the best there is.
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        let long = vec!["10.0.0.2"; 1000].join(",");
        assert_eq!(client("10.0.0.1", &[&format!("198.51.100.1,{long}")]), "10.0.0.2");
    }

    #[test]
    fn an_allowance_refills_at_its_rate() {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::new("10/s".parse().unwrap(), clock.clone());
        assert!((0..10).all(|_| limiter.check().is_ok()));
        let wait = limiter.check().unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        clock.advance(wait);
        assert!(limiter.check().is_ok());
        assert!(limiter.check().is_err());
    }

    #[test]
    fn addresses_have_allowances_of_their_own_and_a_v6_network_has_one() {
        let clock = FakeRelativeClock::default();
        let limiter = AddressLimiter::new("1/s".parse().unwrap(), clock);
        let check = |address: &str| limiter.check(address.parse().unwrap()).is_ok();
        assert!(check("192.0.2.1"));
        assert!(!check("192.0.2.1"));
        assert!(!check("::ffff:192.0.2.1"));
        assert!(check("2001:db8::1"));
        assert!(!check("2001:db8::2"));
        // Of a hundred other addresses nearly all must be free; a shared cell is possible.
        let free = (1..=100).filter(|i| check(&format!("198.51.100.{i}"))).count();
        assert!(free >= 98, "{free}");
    }

    #[test]
    fn extreme_rates_make_a_quota() {
        for text in ["1/s", "4294967295/s", "4294967295/1ns", "1/365d"] {
            let limit: RateLimit = text.parse().unwrap();
            assert_eq!(quota(limit).burst_size(), limit.count, "{text}");
        }
    }
}
