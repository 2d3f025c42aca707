//! A child that cannot outlive this process, however this process ends.
//!
//! Rust without `unsafe` cannot ask the kernel to kill a child with its parent, so every service
//! runs under a small shell script. The script's standard input is a pipe whose only writer is this
//! process: when the process ends in any way, SIGKILL included, the read ends and the script stops
//! the service. The script's standard error is the data folder's lock file, so the lock is held as
//! long as the service may still write there.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

/// How long the script may take to report the pid of the service.
const PID_LIMIT: Duration = Duration::from_secs(10);

/// Arguments: console log, folder to remove after the owner is gone (or empty), the command.
///
/// The watcher blocks on the pipe. Past its end it ignores SIGTERM, which the main part sends it
/// when the service has ended, because it still has to remove the folder.
const SCRIPT: &str = r#"
console=$1; scratch=$2; shift 2
exec 3<&0 </dev/null
"$@" >>"$console" 2>&1 3<&- &
service=$!
echo "$service"
exec >/dev/null
(
    while read -r line <&3; do :; done
    trap '' TERM
    kill -TERM "$service" 2>/dev/null
    tries=0
    while kill -0 "$service" 2>/dev/null; do
        [ "$tries" -ne 50 ] || kill -KILL "$service" 2>/dev/null
        tries=$((tries + 1))
        sleep 0.1
    done
    [ -z "$scratch" ] || rm -rf -- "$scratch"
) &
watcher=$!
exec 3<&-
wait "$service"
status=$?
kill -TERM "$watcher" 2>/dev/null
exit "$status"
"#;

/// One service under its script. Dropping it stops the service.
#[derive(Debug)]
pub(crate) struct Supervised {
    script: Child,
    /// Kept open: its end is the order to stop.
    _lifeline: ChildStdin,
    service: Pid,
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Supervised {
    /// Starts `launch` with its output appended to `console`. `scratch` is removed if this process
    /// ends without stopping the service itself. `lock` is held until the service is gone.
    pub(crate) async fn spawn(
        launch: &Launch,
        console: &Path,
        scratch: Option<&Path>,
        lock: &File,
    ) -> io::Result<Self> {
        let mut script = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("sluice-dev-stack")
            .arg(console)
            .arg(scratch.map_or(OsStr::new(""), Path::as_os_str))
            .arg(&launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in the terminal reaches this process alone, which stops its roles first.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(lock.try_clone()?))
            .spawn()?;
        let no_pipe = || io::Error::other("the supervisor's pipes are missing");
        // Taken out of the child, because waiting for the child would close it.
        let lifeline = script.stdin.take().ok_or_else(no_pipe)?;
        let stdout = script.stdout.take().ok_or_else(no_pipe)?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout.take(64));
        match tokio::time::timeout(PID_LIMIT, stdout.read_line(&mut line)).await {
            Ok(read) => read?,
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the supervisor does not answer",
                ));
            }
        };
        let service = line.trim().parse().map(Pid::from_raw).map_err(io::Error::other)?;
        Ok(Self { script, _lifeline: lifeline, service })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.service.as_raw().unsigned_abs()
    }

    /// Waits for the end of the service. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.script.wait().await
    }

    /// Ends the service at once and waits until it is gone.
    pub(crate) async fn kill(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait().await
    }

    /// Asks the service to end, waits up to `grace`, then kills it.
    pub(crate) async fn terminate(mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // While the script runs, the pid is the service's own: the script alone reaps it.
        if self.script.try_wait()?.is_some() {
            return Ok(());
        }
        match kill(self.service, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
