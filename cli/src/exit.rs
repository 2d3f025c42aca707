//! What the exit status says. Scripts decide by it, so it is part of the contract and stated in `--help`.

use std::{io, process::ExitCode};

use sluice_providers::BuildError;
use sluice_service::config::{ConfigErrors, SecretError};

use crate::output;

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or everything is as it should be: status 0.
    Done,
    /// What was asked for was not achieved in full, and the output says what: status 1.
    Failed,
    /// A check found differences, or a request was rejected: status 3.
    Differences,
}

/// A mistake on the command line or in the configuration: status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The command would do harm, or may not be done now; nothing was changed: status 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Prints what went wrong and turns the outcome into the process's status.
pub fn status(outcome: anyhow::Result<Outcome>) -> ExitCode {
    let error = match outcome {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Failed) => return ExitCode::from(1),
        Ok(Outcome::Differences) => return ExitCode::from(3),
        Err(error) => error,
    };
    if is_broken_pipe(&error) {
        // The reader (`head`, a pager) has seen enough.
        return ExitCode::SUCCESS;
    }
    output::note(&format!("error: {}", one_text(&error)));
    ExitCode::from(code(&error))
}

fn code(error: &anyhow::Error) -> u8 {
    let usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>()
            || cause.is::<ConfigErrors>()
            // What only a role that needs it finds out: a secret it cannot read, a source its provider refuses.
            || cause.is::<SecretError>()
            || cause.is::<BuildError>()
    };
    if error.chain().any(usage) {
        2
    } else if error.chain().any(|cause| cause.is::<Refused>()) {
        3
    } else {
        1
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The causes in one text. A cause whose text is already part of the one before says nothing new.
fn one_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_of_error_decides_the_status_through_any_context() {
        let wrap = |error: anyhow::Error| Err::<(), _>(error).context("doing it").unwrap_err();
        assert_eq!(code(&wrap(Usage("wrong".into()).into())), 2);
        assert_eq!(code(&wrap(Refused("no".into()).into())), 3);
        assert_eq!(code(&wrap(anyhow::anyhow!("broken"))), 1);
    }

    #[test]
    fn only_a_broken_pipe_is_quiet() {
        let error = |kind| anyhow::Error::from(io::Error::from(kind)).context("writing");
        assert!(is_broken_pipe(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&error(io::ErrorKind::NotFound)));
    }

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("no route").context("connecting: no route").context("sending");
        assert_eq!(one_text(&error), "sending: connecting: no route");
    }
}
