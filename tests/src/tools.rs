//! Tools at pinned versions, from `scripts/tools`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The path of a tool, installed when it is not there yet.
///
/// # Panics
/// It cannot be installed; the message is the script's, which says what is missing.
pub async fn path(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/tools");
    let mut command = Command::new(script);
    command.arg(name);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("the script ends").expect("the script starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/tools {name}: {errors}");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
}
