//! Helper commands (Maven, pip, tar, the storage formatter): run to the end, bounded in time, with
//! the last lines of their output kept for the error message.

use std::{collections::VecDeque, io, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use crate::{
    error::{Prerequisite, StackError},
    progress::Step,
};

/// Lines of output kept for an error.
pub(crate) const TAIL_LINES: usize = 20;
/// Characters kept of one line, so that a hostile or broken tool cannot fill memory.
const LINE_CHARS: usize = 500;

/// Runs `command`; a program that is not there is reported as the missing `prerequisite`.
pub(crate) async fn run(
    what: &str,
    mut command: Command,
    prerequisite: Prerequisite,
    limit: Duration,
    step: &Step,
) -> Result<String, StackError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = |outcome: String, output: String| StackError::Command {
        what: what.to_owned(),
        outcome,
        output,
    };
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StackError::MissingPrerequisite(prerequisite),
        _ => failed(format!("it could not be run: {error}"), String::new()),
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let finish = async {
        let (out, err) = tokio::join!(last_lines(out, step), last_lines(err, step));
        let status = child.wait().await;
        (status, join_tail(out, err))
    };
    match tokio::time::timeout(limit, finish).await {
        Ok((Ok(status), output)) if status.success() => Ok(output),
        Ok((Ok(_), output)) if output.contains("No module named pip") => {
            tracing::debug!(%output, "pip is missing");
            Err(StackError::MissingPrerequisite(Prerequisite::Python))
        }
        Ok((Ok(status), output)) => Err(failed(status.to_string(), output)),
        Ok((Err(error), output)) => Err(failed(error.to_string(), output)),
        Err(_) => Err(failed(format!("no end after {} s", limit.as_secs()), String::new())),
    }
}

fn join_tail(out: VecDeque<String>, err: VecDeque<String>) -> String {
    let lines: Vec<String> = out.into_iter().chain(err).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

async fn last_lines(stream: Option<impl AsyncRead + Unpin>, step: &Step) -> VecDeque<String> {
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let Some(stream) = stream else { return tail };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text: String =
            String::from_utf8_lossy(&line).trim_end().chars().take(LINE_CHARS).collect();
        line.clear();
        if let Some(file) = downloading(&text) {
            step.detail(file);
        } else if !text.is_empty() {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    }
    tail
}

/// The file name in one of Maven's transfer lines.
fn downloading(line: &str) -> Option<&str> {
    let text = line.strip_prefix("[INFO] ").unwrap_or(line);
    let rest =
        text.strip_prefix("Downloading from ").or_else(|| text.strip_prefix("Downloaded from "))?;
    rest.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::progress::Progress;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn output_is_kept_bounded_and_failures_carry_it() {
        let step = Progress::Silent.step("test");
        let minute = Duration::from_secs(60);
        let ok = run("t", sh("echo fine"), Prerequisite::Shell, minute, &step).await.unwrap();
        assert_eq!(ok, "fine");
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 3";
        let error = run("t", sh(script), Prerequisite::Shell, minute, &step).await.unwrap_err();
        let StackError::Command { outcome, output, .. } = error else { panic!("{error}") };
        assert!(outcome.contains('3'), "{outcome}");
        assert_eq!(output.lines().count(), TAIL_LINES);
        assert!(output.ends_with("line 99"));
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_how_to_install_it() {
        let step = Progress::Silent.step("test");
        let command = Command::new("sluice-no-such-program");
        let error = run("t", command, Prerequisite::Maven, Duration::from_secs(5), &step)
            .await
            .unwrap_err();
        let text = error.to_string();
        for part in ["mvn", "apt install maven", "dnf install maven", "brew install maven"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn transfer_lines_give_the_file() {
        assert_eq!(
            downloading("Downloaded from r: https://h/a/b-1.jar (3 kB)"),
            Some("b-1.jar (3 kB)")
        );
        assert_eq!(downloading("[ERROR] no"), None);
    }
}
