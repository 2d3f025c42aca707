//! `sluice`: the one binary. Every role is a subcommand, so one image deploys all of them, and so is
//! every tool an operator needs beside them.
//!
//! * `allocator`: what gives all of it its memory; `args`: the command line;
//! * `context`: which configuration file, and what its sections become for each client;
//! * `commands`: one module per noun;
//! * `files`: how many the process may have open;
//! * `decode`, `request_file`, `when`: reading records, saved requests and times;
//! * `output`: the only way to standard output; `exit`: what the exit status says.

mod allocator;
mod args;
mod commands;
mod context;
mod decode;
mod exit;
mod files;
mod output;
mod request_file;
mod when;

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::Duration,
};

/// Longest wait for tasks that are still running when the command is over.
const RUNTIME_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    files::keep_to_ourselves();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help goes to standard output with status 0, mistakes to standard error with status 2.
        Err(error) => error.exit(),
    };
    if cli.globals.color == args::Color::Never {
        start_without_color();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::status(Err(error.into())),
    };
    let outcome = runtime.block_on(commands::run(cli));
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    exit::status(outcome)
}

/// Libraries go by `NO_COLOR` alone, and a process cannot safely change its own environment once it
/// may have threads: the program is started again in this process's place.
fn start_without_color() {
    let already = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if already {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only if it failed: then there are colours, and nothing worse.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env("NO_COLOR", "1").exec();
    }
}
