//! Typed access to a source's settings table, with errors that name the source and the key.

use http::HeaderName;
use serde_json::Value;

use crate::error::{list, nearest};
use crate::json::Pointer;
use crate::{BuildError, ProviderInfo};

/// The settings of one source, every key known to its provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    source_name: &'a str,
    value: &'a Value,
}

impl<'a> Settings<'a> {
    /// Refuses keys the provider does not have. No table at all (`null`) is an empty one.
    pub(crate) fn new(
        source_name: &'a str,
        info: &'static ProviderInfo,
        value: &'a Value,
    ) -> Result<Self, BuildError> {
        let settings = Self { source_name, value };
        let known = || info.settings.iter().map(|setting| setting.name);
        match value {
            Value::Null => {}
            Value::Object(table) => {
                if let Some(key) = table.keys().find(|key| known().all(|name| name != *key)) {
                    return Err(BuildError::UnknownSetting {
                        source_name: source_name.to_owned(),
                        provider: info.name,
                        key: key.clone(),
                        suggestion: nearest(key, known()).map(str::to_owned),
                        known: list(known()),
                    });
                }
            }
            _ => {
                return Err(BuildError::BadSetting {
                    source_name: source_name.to_owned(),
                    key: "settings".to_owned(),
                    problem: "must be a table of keys and values".to_owned(),
                });
            }
        }
        Ok(settings)
    }

    /// An error about `settings.<key>`.
    pub(crate) fn bad(&self, key: &str, problem: impl Into<String>) -> BuildError {
        BuildError::BadSetting {
            source_name: self.source_name.to_owned(),
            key: format!("settings.{key}"),
            problem: problem.into(),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, BuildError> {
        match self.value.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, "must be a string")),
        }
    }

    /// A string that must be there; `what` says what it is and where it is found.
    pub(crate) fn required(&self, key: &str, what: &str) -> Result<&'a str, BuildError> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.bad(key, format!("is missing: {what}")))
    }

    /// `true` or `false`; `false` when the key is absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, BuildError> {
        match self.value.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(key, "must be true or false")),
        }
    }

    /// A list of strings, or one string; empty when the key is absent.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&'a str>, BuildError> {
        let bad = || self.bad(key, "must be a list of strings");
        match self.value.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().ok_or_else(bad)).collect()
            }
            Some(_) => Err(bad()),
        }
    }

    /// One of a few words; `default` when the key is absent.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
        default: T,
    ) -> Result<T, BuildError> {
        let Some(text) = self.text(key)? else {
            return Ok(default);
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names = list(choices.iter().map(|(name, _)| *name));
            self.bad(key, format!("is {text:?}; use one of {names}"))
        })
    }

    pub(crate) fn header(&self, key: &str) -> Result<Option<HeaderName>, BuildError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        HeaderName::from_bytes(text.as_bytes())
            .map(Some)
            .map_err(|_| self.bad(key, format!("is {text:?}, which is no header name")))
    }

    pub(crate) fn pointer(&self, key: &str) -> Result<Option<Pointer>, BuildError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        Pointer::parse(text).map(Some).ok_or_else(|| {
            let problem =
                format!("is {text:?}, which is no JSON pointer; write it like \"/data/id\"");
            self.bad(key, problem)
        })
    }
}
