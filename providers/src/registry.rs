//! The list of providers. A new one is its file and its entry here.

use crate::settings::Settings;
use crate::source::Keys;
use crate::{BuildError, Mapping, Normalise, Provider, generic_hmac, standard_webhooks, stripe};

pub(crate) type Build = fn(&Settings<'_>, &Keys<'_>) -> Result<Box<dyn Provider>, BuildError>;
pub(crate) type BuildNormaliser = fn(&Settings<'_>) -> Result<Box<dyn Normalise>, BuildError>;

/// A provider sluice knows, for configuration checks and documentation.
#[derive(Debug)]
pub struct ProviderInfo {
    /// The name in the configuration.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// What its secret is and where to find it.
    pub secret: &'static str,
    /// The keys its settings table may have.
    pub settings: &'static [SettingInfo],
    /// Its event types with a canonical kind.
    pub mappings: &'static [Mapping],
    pub(crate) build: Build,
    pub(crate) normaliser: BuildNormaliser,
}

/// A key of a provider's settings table.
#[derive(Debug, Clone, Copy)]
pub struct SettingInfo {
    /// The key.
    pub name: &'static str,
    /// What it means, its values and its default.
    pub summary: &'static str,
}

static PROVIDERS: [ProviderInfo; 4] =
    [stripe::INFO, standard_webhooks::INFO, standard_webhooks::SVIX_INFO, generic_hmac::INFO];

/// Every provider, in the order of the documentation.
pub fn known_providers() -> &'static [ProviderInfo] {
    &PROVIDERS
}
