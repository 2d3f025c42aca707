//! The list of providers. A new one is its file and its entry here.

use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Api, BuildError, Mapping, Normalise, Provider, adyen, aws_sns, braintree, checkout_com,
    coinbase_cdp, coinbase_commerce, generic_hmac, github, gocardless, google_pubsub, mercadopago,
    mollie, paddle, paypal, razorpay, shopify, square, standard_webhooks, stripe, twilio,
};

pub(crate) type Build = fn(&Settings<'_>, &Keys<'_>) -> Result<Box<dyn Provider>, BuildError>;
pub(crate) type BuildNormaliser = fn(&Settings<'_>) -> Result<Box<dyn Normalise>, BuildError>;

/// A provider sluice knows, for configuration checks and documentation.
#[derive(Debug)]
pub struct ProviderInfo {
    /// The name in the configuration.
    pub name: &'static str,
    /// The name in a text.
    pub title: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// What its secret is and where in the provider's dashboard it is found; for providers without
    /// one, that.
    pub secret: &'static str,
    /// What is signed, how, and by which header it comes.
    pub scheme: &'static str,
    /// Where the event ID, the type and the object come from.
    pub identity: &'static str,
    /// How its requests are answered, its deadline, and what it does when there is no good answer.
    pub answer: &'static str,
    /// What an operator should know besides: limits, weaknesses, decisions.
    pub notes: &'static [&'static str],
    /// The keys its settings table may have.
    pub settings: &'static [SettingInfo],
    /// Event types that samples are shaped for; the first one is the default.
    pub samples: &'static [&'static str],
    /// Its event types with a canonical kind.
    pub mappings: &'static [Mapping],
    /// Where it publishes the addresses it sends from; empty where it publishes no dependable list.
    pub addresses: &'static [AddressList],
    /// Its API, where events are completed from it.
    pub api: Option<Api>,
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

/// Addresses a provider says it sends from.
#[derive(Debug, Clone, Copy)]
pub struct AddressList {
    /// Which of its environments or regions, e.g. `live`.
    pub name: &'static str,
    /// Where it is published.
    pub url: &'static str,
    /// The day it was taken from there, e.g. `2026-11-23`.
    pub as_of: &'static str,
    /// Addresses and networks.
    pub networks: &'static [&'static str],
}

static PROVIDERS: &[ProviderInfo] = &[
    stripe::INFO,
    paypal::INFO,
    mercadopago::INFO,
    twilio::INFO,
    adyen::INFO,
    square::INFO,
    shopify::INFO,
    github::INFO,
    razorpay::INFO,
    paddle::INFO,
    braintree::INFO,
    checkout_com::INFO,
    gocardless::INFO,
    mollie::INFO,
    coinbase_commerce::INFO,
    coinbase_cdp::INFO,
    aws_sns::INFO,
    google_pubsub::INFO,
    standard_webhooks::INFO,
    standard_webhooks::SVIX_INFO,
    generic_hmac::INFO,
];

/// Every provider, in the order of the documentation.
pub fn known_providers() -> &'static [ProviderInfo] {
    PROVIDERS
}
