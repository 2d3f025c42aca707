//! What can go wrong, each with what a person should do next.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::unit::ServiceName;

/// A program that must be installed before the stack can be fetched or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisite {
    /// A Java runtime, 17 or newer.
    Java,
    /// Apache Maven.
    Maven,
    /// Python 3 with pip.
    Python,
    /// The `tar` archiver with gzip support.
    Tar,
    /// A POSIX shell.
    Shell,
}

impl Prerequisite {
    fn debian(self) -> &'static str {
        match self {
            Self::Java => "openjdk-17-jre-headless",
            Self::Maven => "maven",
            Self::Python => "python3 python3-pip",
            Self::Tar => "tar gzip",
            Self::Shell => "dash",
        }
    }

    fn fedora(self) -> &'static str {
        match self {
            Self::Java => "java-21-openjdk-headless",
            Self::Shell => "bash",
            other => other.debian(),
        }
    }

    fn homebrew(self) -> &'static str {
        match self {
            Self::Java => "openjdk@21",
            Self::Python => "python",
            Self::Tar => "gnu-tar",
            Self::Shell => "bash",
            other => other.debian(),
        }
    }
}

impl fmt::Display for Prerequisite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java => "Java 17 or newer (`java`)",
            Self::Maven => "Apache Maven (`mvn`)",
            Self::Python => "Python 3 with pip (`python3 -m pip`)",
            Self::Tar => "tar with gzip (`tar`)",
            Self::Shell => "a POSIX shell (`sh`)",
        })
    }
}

/// Why the stack could not be fetched, started or restarted.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A program that the stack needs is not installed.
    #[error(
        "{0} is needed to run Kafka and the schema registry on this computer, and was not found. \
         Install it: Debian/Ubuntu `apt install {debian}`, Fedora `dnf install {fedora}`, \
         macOS `brew install {homebrew}`",
        debian = .0.debian(), fedora = .0.fedora(), homebrew = .0.homebrew()
    )]
    MissingPrerequisite(Prerequisite),

    /// No folder for the cache can be derived from the environment.
    #[error("no folder for the cache: set SLUICE_CACHE_DIR (or XDG_CACHE_HOME, or HOME)")]
    NoCacheDir,

    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },

    /// A download or another helper command failed.
    #[error(
        "{what} failed ({outcome}). Check the network connection and the proxy settings of the \
         tool, then try again; nothing half-made was kept. Last output:\n{output}"
    )]
    Command {
        /// What the command was for.
        what: String,
        /// Exit status or time-out.
        outcome: String,
        /// The command's last lines.
        output: String,
    },

    /// What was fetched is not what was expected.
    #[error(
        "{file} of {what} is not what was published: {problem}. Nothing was kept. Remove the \
         artifact from Maven's local repository (~/.m2/repository) and try again"
    )]
    Verification {
        /// The artifact.
        what: String,
        /// The file, relative to the artifact.
        file: String,
        /// The difference.
        problem: String,
    },

    /// Another process holds a lock for longer than is plausible.
    #[error(
        "{} is in use by another process (waited {} s): stop the other one, or use another folder",
        path.display(), waited.as_secs()
    )]
    Locked {
        /// The folder's lock file.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },

    /// A port that was asked for is taken.
    #[error(
        "port {port} on 127.0.0.1, wanted by the {service}, is in use by another program: stop \
         that program, or choose another port with `{option}` (0 or `--ephemeral-ports`: any free one)"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// Who wanted it.
        service: ServiceName,
        /// The command line option that changes it.
        option: &'static str,
    },

    /// No free port was found.
    #[error(
        "no free port on 127.0.0.1 between {first} and {last}: stop some programs that listen there"
    )]
    NoFreePort {
        /// First port that was tried.
        first: u16,
        /// Last port that was tried.
        last: u16,
    },

    /// A service ended or did not answer in time while it was starting.
    #[error("the {service} did not start: {reason}. Its log is {}; the last lines:\n{tail}", log.display())]
    StartFailed {
        /// Which service.
        service: ServiceName,
        /// What was observed.
        reason: String,
        /// The complete log (gone with a temporary data folder).
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A service was asked to start while it runs.
    #[error("the {0} is running already")]
    AlreadyRunning(ServiceName),

    /// A broker was asked for that the stack does not have.
    #[error("there is no broker {broker}: this stack has {count}, numbered from 1")]
    NoBroker {
        /// The id that was asked for.
        broker: u16,
        /// How many brokers there are.
        count: usize,
    },

    /// The registry was asked for on a stack that was started without one.
    #[error("this stack was started without a schema registry (`start_registry` is false)")]
    NoRegistry,
}

impl StackError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
