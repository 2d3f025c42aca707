//! Why a source cannot be built from its configuration.

/// What is wrong with a source's configuration, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No provider has this name.
    #[error("source {source_name:?}: unknown provider {provider:?}{}; known providers: {known}", did_you_mean(.suggestion))]
    UnknownProvider {
        /// The source.
        source_name: String,
        /// The name that was configured.
        provider: String,
        /// The nearest known name, if any is near.
        suggestion: Option<String>,
        /// All known names, comma separated.
        known: String,
    },
    /// The source has no secret, so nothing could be verified.
    #[error(
        "source {source_name:?}: no secret is configured; add secrets = [\"env:NAME\"] or [\"file:PATH\"] with {expected}"
    )]
    NoSecret {
        /// The source.
        source_name: String,
        /// What the provider's secret is.
        expected: &'static str,
    },
    /// A secret cannot be the provider's.
    #[error("source {source_name:?}: secret {label} {problem}; expected {expected}")]
    BadSecret {
        /// The source.
        source_name: String,
        /// Where the secret came from.
        label: String,
        /// What is wrong with it, without a byte of it.
        problem: &'static str,
        /// What the provider's secret is.
        expected: &'static str,
    },
    /// The provider has no such setting.
    #[error("source {source_name:?}: settings.{key} is not a setting of provider {provider}{}; known settings: {known}", did_you_mean(.suggestion))]
    UnknownSetting {
        /// The source.
        source_name: String,
        /// The provider.
        provider: &'static str,
        /// The unknown key.
        key: String,
        /// The nearest known key, if any is near.
        suggestion: Option<String>,
        /// All known keys, comma separated.
        known: String,
    },
    /// A setting, or the source's tolerance, has a value that cannot be used.
    #[error("source {source_name:?}: {key} {problem}")]
    BadSetting {
        /// The source.
        source_name: String,
        /// The key, as written in the configuration below the source.
        key: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names joined with commas, for an error message.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
