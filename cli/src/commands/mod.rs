//! One module per noun; each owns its arguments, its help and its output.

pub mod config;
pub mod dev;
pub mod dlq;
pub mod providers;
pub mod replay;
pub mod roles;
pub mod schemas;
pub mod send;
pub mod status;
pub mod tail;
pub mod topics;
pub mod verify;

use crate::{
    args::{Cli, Command},
    context::{Audience, Context},
    exit::Outcome,
};

/// Runs the command.
///
/// # Errors
/// Why it could not do its work; `exit` turns the kind of error into the exit status.
pub async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let globals = &cli.globals;
    let client = || Context::load(globals, Audience::Client);
    match cli.command {
        Command::Gateway => roles::run(globals, &[roles::Role::Gateway]).await,
        Command::Processor => roles::run(globals, &[roles::Role::Processor]).await,
        Command::RetryRouter => roles::run(globals, &[roles::Role::RetryRouter]).await,
        Command::All => roles::run(globals, &roles::Role::ALL).await,
        Command::Dev(args) => dev::run(globals, args).await,
        Command::Send(args) => send::run(&client()?, args).await,
        Command::Tail(args) => tail::run(&client()?, args).await,
        Command::Topics { command } => topics::run(&client()?, command).await,
        Command::Schemas { command } => schemas::run(&client()?, command).await,
        Command::Config { command } => config::run(globals, command),
        Command::Verify(args) => verify::run(globals, &args),
        Command::Providers(args) => providers::run(globals, &args),
        Command::Dlq { command } => dlq::run(&client()?, command).await,
        Command::Replay { command } => replay::run(&client()?, command).await,
        Command::Status(args) => status::run(&client()?, args).await,
    }
}
