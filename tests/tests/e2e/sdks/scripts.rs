//! The scripts that run the packages: lines of JSON in, lines of JSON out.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
    process::Command,
};

use serde_json::Value;
use sluice_tests::tools;

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk").join(name)
}

/// A script of `tests/sdk`, with what it needs to run.
pub(super) async fn prepared(name: &str) -> Command {
    if name.ends_with(".mjs") {
        let modules = tools::path("provider-sdks-node").await;
        let mut command = Command::new("node");
        command.arg(script(name)).arg(modules);
        command
    } else {
        let mut command = Command::new(tools::path("provider-sdks").await);
        // Without -B the scripts' compiled modules would lie beside them.
        command.arg("-B").arg(script(name));
        command
    }
}

/// Runs a script over lines of input; returns its lines of output.
pub(super) async fn lines(mut command: Command, input: &[Value]) -> Vec<Value> {
    // A file and no pipe: the script may answer before it has read everything.
    let mut file: File = tempfile::tempfile().unwrap();
    for line in input {
        writeln!(file, "{line}").unwrap();
    }
    file.rewind().unwrap();
    command.stdin(file);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let output = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(input.is_empty() || lines.len() == input.len(), "{errors}");
    lines
}
