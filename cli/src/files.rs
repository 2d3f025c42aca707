//! What files the process makes are nobody else's, and how many it and its connections may have open.
//!
//! A process that runs out of them cannot accept a connection, reach a broker or answer a probe. Many systems start
//! processes with a soft limit of 1,024 for the sake of programs from before `poll`; what may be had is the hard limit.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::Context;
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::geteuid,
};
use sluice_service::config::Config;

/// What is kept free of webhook connections: for the listener, the brokers, the registry, the management port and the
/// processor's index.
const RESERVE: u64 = 512;

/// Fewest webhook connections that make sense, however little may be had.
const LEAST: u64 = 16;

/// From now on what the process makes can be read and written by its own user alone. To be called before there are threads.
pub fn keep_to_ourselves() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes a folder, or takes one that is there already away from all other users: whoever can open the lock in it could
/// hold it.
pub fn make_private(folder: &Path) {
    let private = fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)));
    if let Err(error) = private {
        // A volume that belongs to somebody else, say: whether it can be worked with, its user finds out.
        tracing::warn!(%error, folder = %folder.display(), "the folder is open to other users");
    }
}

/// Whether a file or folder that is there is this user's own: who owns it can change it, whatever its mode.
///
/// # Errors
/// It is another user's, or cannot be looked at.
pub fn require_own(path: &Path) -> anyhow::Result<()> {
    let found = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    anyhow::ensure!(
        found.uid() == geteuid().as_raw(),
        "{} belongs to another user, who could change it at any time; use a folder of your own",
        path.display()
    );
    Ok(())
}

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
    fn what_belongs_to_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        require_own(folder.path()).unwrap();
        let another = if geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(12_345), None).unwrap();
            folder.path()
        } else {
            Path::new("/")
        };
        let error = require_own(another).unwrap_err().to_string();
        assert!(error.contains("belongs to another user"), "{error}");
    }

    #[test]
    fn a_folder_is_made_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        for _ in 0..2 {
            make_private(&state);
            let mode = fs::metadata(&state).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raised().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
