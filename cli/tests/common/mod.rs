//! What several test files need.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A signing secret, and a request that was signed with it at `SIGNED_AT` (Unix seconds).
pub const SECRET: &str = "whsec_test_secret_of_the_command_line";
pub const SIGNED_AT: &str = "1769860800";

pub const CONFIG: &str = r#"
[[source]]
name = "shop"
provider = "stripe"
secrets = ["file:secret"]
"#;

pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sluice.toml"), CONFIG).unwrap();
    fs::write(folder.path().join("secret"), SECRET).unwrap();
    folder
}

pub fn sluice(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SLUICE_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    sluice(folder, arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// An HMAC by openssl (`-sha1`, `-sha256`), in hex: by nothing that shares code with what is tested.
pub fn hmac(digest: &str, key: &str, data: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", digest, "-hmac", key, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(data.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    stdout(&output).split(' ').next().unwrap().to_owned()
}

/// A request of the source `shop`, signed at [`SIGNED_AT`].
pub fn signed_request(body: &str, end: &str) -> Vec<u8> {
    let tag = hmac("-sha256", SECRET, &format!("{SIGNED_AT}.{body}"));
    let head = [
        "POST /webhooks/shop HTTP/1.1".to_owned(),
        "Content-Type: application/json".to_owned(),
        format!("Stripe-Signature: t={SIGNED_AT},v1={tag}"),
        String::new(),
        String::new(),
    ];
    let mut request = head.join(end).into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}
