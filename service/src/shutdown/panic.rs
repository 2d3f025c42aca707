//! A panic ends the process. A dead task in a live process is the worst state: it looks healthy and loses time.

use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::time::Duration;

/// Exit status after a panic, as Rust uses for a panic of the main thread.
const PANIC_STATUS: i32 = 101;

/// Longest wait for telemetry to be sent before leaving.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// From now on a panic in any thread or task is logged, telemetry is flushed for at most 2 s, and the process
/// leaves with status 101. Calling it again changes nothing.
pub fn install_panic_exit() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            report(info);
            crate::telemetry::flush(FLUSH_TIMEOUT);
            std::process::exit(PANIC_STATUS);
        }));
    });
}

fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if tracing::dispatcher::has_been_set() {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread, location, %backtrace, "panic: {message}; the process ends");
    } else {
        let line = format!("panic in thread {thread} at {location}: {message}; the process ends\n");
        // Nobody is left to tell when standard error is closed.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
