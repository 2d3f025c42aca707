//! How many files and connections the process may have open.
//!
//! A process that runs out of them cannot accept a connection, reach a broker or answer a probe. Many systems start
//! processes with a soft limit of 1,024 for the sake of programs from before `poll`; what may be had is the hard limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sluice_service::config::Config;

/// What is kept free of webhook connections: for the listener, the brokers, the registry, the management port and the
/// processor's index.
const RESERVE: u64 = 512;

/// Fewest webhook connections that make sense, however little may be had.
const LEAST: u64 = 16;

/// Raises the limit as far as it goes, and lets the gateway have no more connections than leave the reserve free.
pub fn fit(config: &mut Config) {
    let limit = match raised() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be told");
            return;
        }
    };
    let wanted = u64::from(config.gateway.max_connections);
    let fitting = fitting(wanted, limit);
    if fitting < wanted {
        tracing::warn!(
            open_files = limit,
            needed = wanted + RESERVE,
            max_connections = fitting,
            "too few open files for gateway.max_connections, which is lowered; raise the hard limit (`ulimit -Hn`, \
             LimitNOFILE of the service)"
        );
        config.gateway.max_connections = u32::try_from(fitting).unwrap_or(u32::MAX);
    }
}

/// The connections that `limit` open files leave room for.
fn fitting(wanted: u64, limit: u64) -> u64 {
    wanted.min(limit.saturating_sub(RESERVE).max(LEAST))
}

/// The limit once it is as high as this process may raise it.
fn raised() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= hard {
        return Ok(soft);
    }
    // Some systems name a hard limit that they do not grant; the soft one is what counts then.
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn connections_leave_the_reserve_free() {
        assert_eq!(fitting(4096, 1_048_576), 4096);
        assert_eq!(fitting(4096, 4096), 4096 - RESERVE);
        assert_eq!(fitting(4096, 100), LEAST);
        assert_eq!(fitting(8, 100), 8);
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raised().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
