//! Secrets by reference. A configuration file never holds a secret, only where to find one.
//!
//! A literal is refused without being repeated, so a mistake does not end up in a log.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Longest secret file that is read, in bytes; the largest real secret is a certificate chain.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where a secret is found: `env:NAME` or `file:PATH`. Safe to log, print and compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretRef {
    /// The environment variable of this name.
    Env(String),
    /// The file at this path, relative to the working directory.
    File(PathBuf),
}

/// Why a text is no secret reference. Never repeats the text: it may be the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// The text names no place.
    #[error(
        "a secret must not stand in the configuration; put it into an environment variable or a file and write \"env:NAME\" or \"file:PATH\" here"
    )]
    Literal,
    /// `env:` is not followed by the name of an environment variable.
    #[error(
        "\"env:\" must be followed by the name of an environment variable (letters, digits and _), such as \"env:STRIPE_SECRET\""
    )]
    BadName,
    /// `file:` is not followed by a path.
    #[error("\"file:\" must be followed by a path, such as \"file:/run/secrets/stripe\"")]
    NoPath,
}

/// Why a secret could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner}: secret {reference}: {reason}")]
pub struct SecretError {
    /// What the secret belongs to, such as ``source `stripe-live` ``.
    pub owner: String,
    /// The reference as configured.
    pub reference: SecretRef,
    /// What is wrong and what to do.
    pub reason: String,
}

impl SecretRef {
    /// Reads the secret from this process's environment or file system. Trailing line ends are trimmed.
    ///
    /// # Errors
    /// When the variable or file is missing, unreadable, empty, longer than 64 KiB or not UTF-8; `owner` says whose it is.
    pub fn resolve(&self, owner: &str) -> Result<SecretString, SecretError> {
        self.resolve_with(owner, |name| std::env::var_os(name))
    }

    /// Whether other users of this machine can read the file; `false` where that cannot be told.
    pub fn is_readable_by_others(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let Self::File(path) = self else { return false };
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
    }

    fn resolve_with(
        &self,
        owner: &str,
        lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<SecretString, SecretError> {
        self.read(lookup).map_err(|reason| SecretError {
            owner: owner.to_owned(),
            reference: self.clone(),
            reason,
        })
    }

    fn read(
        &self,
        lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<SecretString, String> {
        let text = match self {
            Self::Env(name) => lookup(name)
                .ok_or("the environment variable is not set")?
                .into_string()
                .map_err(|_| "the environment variable is not UTF-8")?,
            Self::File(path) => {
                // A pipe would be waited for, and a device may have no end.
                let kind = std::fs::metadata(path)
                    .map_err(|error| format!("the file cannot be opened: {error}"))?;
                if !kind.is_file() {
                    return Err("it is no regular file".to_owned());
                }
                let file = std::fs::File::open(path)
                    .map_err(|error| format!("the file cannot be opened: {error}"))?;
                let mut text = String::new();
                let read = file
                    .take(MAX_SECRET_BYTES + 1)
                    .read_to_string(&mut text)
                    .map_err(|error| format!("the file cannot be read as UTF-8: {error}"))?;
                if read as u64 > MAX_SECRET_BYTES {
                    return Err(format!("the file is longer than {MAX_SECRET_BYTES} bytes"));
                }
                text
            }
        };
        if text.starts_with('\u{feff}') {
            let reason = "it begins with a byte order mark, which is no part of a secret: save it without one";
            return Err(reason.to_owned());
        }
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(SecretString::from(secret.to_owned()))
    }
}

impl FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, SecretRefError> {
        if let Some(name) = text.strip_prefix("env:") {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty()
                || !name.chars().all(legal)
                || name.starts_with(|c: char| c.is_ascii_digit())
            {
                return Err(SecretRefError::BadName);
            }
            Ok(Self::Env(name.to_owned()))
        } else if let Some(path) = text.strip_prefix("file:") {
            if path.is_empty() || path.contains('\0') {
                return Err(SecretRefError::NoPath);
            }
            Ok(Self::File(PathBuf::from(path)))
        } else {
            Err(SecretRefError::Literal)
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RefVisitor;
        impl Visitor<'_> for RefVisitor {
            type Value = SecretRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret reference, \"env:NAME\" or \"file:PATH\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretRef, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(RefVisitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn references_read_back_and_literals_are_refused_unrepeated() {
        for text in ["env:STRIPE_SECRET", "file:/run/secrets/stripe"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("whsec_topsecret", SecretRefError::Literal),
            ("env:", SecretRefError::BadName),
            ("env:whsec-topsecret", SecretRefError::BadName),
            ("env:1A", SecretRefError::BadName),
            ("file:", SecretRefError::NoPath),
        ] {
            assert_eq!(text.parse::<SecretRef>().unwrap_err(), error);
            assert!(!error.to_string().contains("topsecret"));
        }
    }

    #[test]
    fn an_environment_secret_is_trimmed_and_never_empty() {
        let reference = SecretRef::Env("KEY".to_owned());
        let read = |value: Option<&str>| {
            let value = value.map(std::ffi::OsString::from);
            reference.resolve_with("source `s`", |name| {
                assert_eq!(name, "KEY");
                value.clone()
            })
        };
        let secret = read(Some("topsecret\r\n")).unwrap();
        assert_eq!(secret.expose_secret(), "topsecret");
        assert!(!format!("{secret:?}").contains("topsecret"));
        let missing = read(None).unwrap_err().to_string();
        assert_eq!(missing, "source `s`: secret env:KEY: the environment variable is not set");
        assert!(read(Some("\n")).unwrap_err().reason.contains("empty"));
    }

    #[test]
    fn a_file_secret_is_read_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let reference = SecretRef::File(path.clone());
        let missing = reference.resolve("registry").unwrap_err().to_string();
        assert!(missing.contains("registry: secret file:"), "{missing}");
        assert!(missing.contains("cannot be opened"), "{missing}");
        std::fs::write(&path, "topsecret\n").unwrap();
        let secret = reference.resolve("registry").unwrap();
        assert_eq!(secret.expose_secret(), "topsecret");
        std::fs::write(&path, vec![b'x'; 64 * 1024]).unwrap();
        assert!(reference.resolve("registry").is_ok());
        std::fs::write(&path, vec![b'x'; 64 * 1024 + 1]).unwrap();
        let long = reference.resolve("registry").unwrap_err().to_string();
        assert!(long.contains("longer than"), "{long}");
    }
}
