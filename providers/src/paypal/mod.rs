//! PayPal: RSA signatures under a certificate that PayPal publishes.
//!
//! Signed (SHA-256, PKCS #1 v1.5) is `transmission ID|transmission time|webhook ID|CRC-32 of the
//! body`, the checksum as an unsigned decimal number over the bytes as received. The webhook ID is
//! the operator's, never the request's: it is what ties a delivery to this endpoint.
//!
//! * The certificate's URL comes in an unsigned header, so it is pinned before anything is fetched:
//!   `https`, PayPal's API host of the source's own environment, no port, no user, and a path of
//!   one certificate ID. What is fetched must chain to a public root, be in the signer's name and
//!   be valid now (`chain.rs`).
//! * An operator may pin the certificate (`certificate`, same checks) or a bare key (`public_key`).
//!   The URL is then not fetched, but still has to be one of PayPal's.
//! * Only `SHA256withRSA` is an algorithm; PayPal's older libraries take SHA-1 as well.
//! * A checksum is no hash: whoever holds one genuine delivery can make other bodies with the same
//!   CRC-32, and the signature fits them too. What answers this is `[source.hydrate]`: every event is
//!   read again from PayPal by its ID, and the answer, not the body, says what happened. So a body
//!   without an ID to ask for is refused, and is never believed where it turns up anyway. The object
//!   a body names is as little authenticated as the rest of it, so it decides nothing before that
//!   ([`Provider::object_is_signed`]).
//! * Freshness is weak. A retry seems to carry the ID and the time of the first attempt (an event's
//!   list of transmissions, published by a user, has both beside the answer to an attempt of two
//!   days later), and retries go on for 3 days. A genuine event that is refused for its age is lost for good, so the default
//!   tolerance for the past covers all of them. Times ahead are held to the usual one.
//!
//! The object an event is about is the payment's capture (or sale), because that is the one ID that
//! captures, their refunds and their disputes all name: a refund by its `up` link, a dispute by the
//! seller's transaction. Refunds and disputes do not name the order. An order names its first
//! capture once it has one, and itself before that; an authorization names itself.

mod mapping;
mod sample;

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use openssl::pkey::{PKey, PKeyRef, Public};

use crate::chain::{Certified, CheckedChains, Roots};
use crate::published::Material;
use crate::registry::ProviderInfo;
use crate::rsa::{self, Hash, SampleKey};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Api, BodyPart, BuildError, Credentials, Fetch, Fetched, Identified, KeyDocument, MAX_ID_BYTES,
    Normalise, Normalised, Payload, Provider, PublishedKeys, Rejection, Request, SampleRequest,
    SampleSpec, SettingInfo, UNKNOWN_TYPE, Verdict, header,
};
use mapping::Event;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "paypal",
    title: "PayPal",
    summary: "PayPal REST webhooks: orders, payments, disputes, subscriptions, payouts",
    secret: "no secret is needed: PayPal signs with a published certificate, and what identifies this endpoint is settings.webhook_id. Only a development source has one, the private key (PEM, RSA) of its development authority, which signs samples",
    scheme: "`PAYPAL-TRANSMISSION-SIG`: RSA-SHA-256 in base64 over `PAYPAL-TRANSMISSION-ID|PAYPAL-TRANSMISSION-TIME|webhook ID|CRC-32 of the body`, by the certificate at `PAYPAL-CERT-URL`",
    identity: "`id` and `event_type` of the body; the object is the capture or sale (refunds: their `up` link; disputes: `seller_transaction_id`; orders: their first capture, else the order)",
    answer: "any 2xx; anything else is tried again, up to 25 times over 3 days",
    notes: &[
        "The body is bound by a CRC-32 only: whoever holds one genuine delivery (from a log or a proxy, for example) can write other bodies for it, with any event, payment and amount, that this signature fits. The signature alone does not prove an amount. Configure [source.hydrate]: every event is then read again from PayPal by its ID, and what PayPal answers is believed instead of the body. Without it, act on no amount before you have asked PayPal yourself. Two bodies under one transmission ID are the sign of such a forgery.",
        "Freshness is weak and no defence here: PayPal's retries seem to carry the time of the first attempt, and they go on for 3 days. So an event may be 4 days old by default (tolerance changes that, in both directions); a time ahead by 300 s. A shorter tolerance loses the events of a longer outage for good.",
        "A body whose id is missing, no text, longer than 512 bytes or not visible ASCII is refused although its signature fits: PayPal's events have one, and without it PayPal cannot be asked about the event.",
        "The payment that a body names is not authenticated either, so these events are partitioned by event: partition_by = \"object\" has no effect.",
        "The webhook simulator signs with the ID WEBHOOK_ID, which anybody can have PayPal do: that ID is refused for a live source. A source of the sandbox with that ID takes certificates of either environment, because the simulator uses those of the live one.",
        "Otherwise a certificate of the sandbox is refused by a live source and the other way round.",
        "Amounts: each event's own: of a refund what it gave back, of a dispute what is disputed.",
        "PAYMENT.CAPTURE.REVERSED and PAYMENT.SALE.REVERSED stay provider.*: the dispute or the refund tells the same loss of money. Payout batches do too: their items tell it.",
        "An order of several purchase units has no single amount and tells none; it names the first capture as its object.",
        "PayPal publishes no dependable list of addresses.",
    ],
    settings: &[
        SettingInfo {
            name: "webhook_id",
            summary: "the webhook's ID, required; in the developer dashboard under Apps & Credentials → the app → Webhooks",
        },
        SettingInfo {
            name: "environment",
            summary: "\"live\" (default) or \"sandbox\": which of PayPal's hosts and signers are trusted; with \"sandbox\", [source.hydrate] needs environment = \"test\"",
        },
        SettingInfo {
            name: "certificate",
            summary: "the signer's certificate and its chain in PEM, used instead of fetching it",
        },
        SettingInfo {
            name: "trusted_roots",
            summary: "root certificates in PEM that are trusted instead of the public ones",
        },
        SettingInfo {
            name: "public_key",
            summary: "the signer's bare public key in PEM, used instead of a certificate: neither name nor dates can be checked",
        },
    ],
    samples: sample::TYPES,
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: Some(Api {
        base_url: "https://api-m.paypal.com",
        test_base_url: Some("https://api-m.sandbox.paypal.com"),
        credentials: Credentials::ClientCredentials {
            token_path: "/v1/oauth2/token",
            client: "the app's client ID and secret; in the developer dashboard under Apps & Credentials → the app (the same app that has the webhook)",
        },
        headers: &[],
        summary: "GET /v1/notifications/webhooks-events/{event id}",
    }),
    build,
    normaliser: |settings| Ok(Box::new(reader(settings)?)),
};

static TRANSMISSION_ID: HeaderName = HeaderName::from_static("paypal-transmission-id");
static TRANSMISSION_TIME: HeaderName = HeaderName::from_static("paypal-transmission-time");
static TRANSMISSION_SIG: HeaderName = HeaderName::from_static("paypal-transmission-sig");
static CERT_URL: HeaderName = HeaderName::from_static("paypal-cert-url");
static AUTH_ALGO: HeaderName = HeaderName::from_static("paypal-auth-algo");

const ALGORITHM: &str = "SHA256withRSA";
const CERTIFICATE_PATH: &str = "/v1/notifications/certs/";

/// Longest certificate ID in bytes; those in use have 35.
const MAX_CERTIFICATE_ID_BYTES: usize = 128;

/// The default tolerance for the past: PayPal's last attempt is made after 3 days.
const FOUR_DAYS_MS: i64 = 4 * 24 * 3_600_000;

/// One of PayPal's two worlds.
#[derive(Debug)]
struct Environment {
    /// Hosts that publish certificates; the first one is named in samples.
    hosts: [&'static str; 2],
    /// The name the signer's certificate is in.
    signer: &'static str,
    live: bool,
}

static LIVE: Environment = Environment {
    hosts: ["api.paypal.com", "api-m.paypal.com"],
    signer: "messageverificationcerts.paypal.com",
    live: true,
};

static SANDBOX: Environment = Environment {
    hosts: ["api.sandbox.paypal.com", "api-m.sandbox.paypal.com"],
    signer: "messageverificationcerts.sandbox.paypal.com",
    live: false,
};

/// Reads payloads.
#[derive(Debug)]
struct Reader {
    environment: &'static Environment,
}

fn reader(settings: &Settings<'_>) -> Result<Reader, BuildError> {
    let choices = [("live", &LIVE), ("sandbox", &SANDBOX)];
    Ok(Reader { environment: settings.choice("environment", &choices, &LIVE)? })
}

/// Where the signer's key comes from.
#[derive(Debug)]
enum Signer {
    /// From the URL of each request; the operator's roots, or the public ones.
    Fetched { roots: Option<Roots>, checked: CheckedChains },
    /// From `settings.certificate`.
    Certificate(Certified),
    /// From `settings.public_key`.
    Key(PKey<Public>),
}

#[derive(Debug)]
struct PayPal {
    reader: Reader,
    /// Whose certificates are taken.
    environments: &'static [&'static Environment],
    webhook_id: String,
    signer: Signer,
    /// What a verdict names when nothing is fetched.
    pinned: Arc<str>,
    /// How far ahead a signed time may be.
    tolerance_ms: i64,
    /// How old it may be.
    past_tolerance_ms: i64,
    sample_key: Option<SampleKey>,
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let reader = reader(settings)?;
    let webhook_id = settings.required(
        "webhook_id",
        "the webhook's ID; in the developer dashboard under Apps & Credentials → the app → Webhooks",
    )?;
    let separable = header::visible_ascii(webhook_id.as_bytes()).is_some();
    if !separable || webhook_id.contains('|') {
        return Err(settings.bad("webhook_id", "is no webhook ID: letters and digits, no space"));
    }
    let simulated = webhook_id == SIMULATOR;
    if simulated && reader.environment.live {
        let problem = "is the simulator's, under which anybody can have PayPal sign; use the webhook's own ID, or environment = \"sandbox\"";
        return Err(settings.bad("webhook_id", problem));
    }
    let environments = environments(reader.environment, simulated);
    let signer = signer(settings, environments)?;
    let pinned = match &signer {
        Signer::Key(_) => "settings.public_key",
        Signer::Certificate(_) | Signer::Fetched { .. } => "settings.certificate",
    };
    Ok(Box::new(PayPal {
        reader,
        environments,
        webhook_id: webhook_id.to_owned(),
        signer,
        pinned: pinned.into(),
        tolerance_ms: keys.tolerance_ms,
        past_tolerance_ms: keys.tolerance_or(FOUR_DAYS_MS),
        sample_key: keys.each(SampleKey::parse)?.into_iter().next(),
    }))
}

/// The webhook ID that PayPal's simulator signs with.
const SIMULATOR: &str = "WEBHOOK_ID";

static LIVE_ALONE: [&Environment; 1] = [&LIVE];
static SANDBOX_ALONE: [&Environment; 1] = [&SANDBOX];
static SIMULATED: [&Environment; 2] = [&SANDBOX, &LIVE];

/// The environments whose certificates a source takes.
fn environments(own: &Environment, simulated: bool) -> &'static [&'static Environment] {
    match (own.live, simulated) {
        (true, _) => &LIVE_ALONE,
        (false, false) => &SANDBOX_ALONE,
        (false, true) => &SIMULATED,
    }
}

fn signer(settings: &Settings<'_>, environments: &[&Environment]) -> Result<Signer, BuildError> {
    let roots = match settings.text("trusted_roots")? {
        Some(pem) => Some(Roots::from_pem(pem).map_err(|why| settings.bad("trusted_roots", why))?),
        None => None,
    };
    let certificate = settings.text("certificate")?;
    if let Some(pem) = settings.text("public_key")? {
        let bad = |problem: &str| settings.bad("public_key", problem);
        if certificate.is_some() {
            return Err(bad("is given beside settings.certificate; keep one of them"));
        }
        let document = KeyDocument::parse(pem.as_bytes());
        return match document.map(|document| document.0) {
            Ok(Material::PublicKey(key)) if rsa::is_usable(&key) => Ok(Signer::Key(key)),
            _ => Err(bad("is no RSA public key in PEM (-----BEGIN PUBLIC KEY-----)")),
        };
    }
    let Some(pem) = certificate else {
        return Ok(Signer::Fetched { roots, checked: CheckedChains::default() });
    };
    let bad = |problem: &str| settings.bad("certificate", format!("is refused: {problem}"));
    match KeyDocument::parse(pem.as_bytes()).map(|document| document.0) {
        Ok(Material::Certificates(chain)) => {
            let roots = trusted(roots.as_ref()).map_err(bad)?;
            let mut checked = environments.iter().map(|one| roots.check(&chain, one.signer));
            let first = checked.next().unwrap_or(Err("there is no environment"));
            first
                .or_else(|why| checked.find_map(Result::ok).ok_or(why))
                .map(Signer::Certificate)
                .map_err(bad)
        }
        _ => Err(bad("it is no certificate in PEM (-----BEGIN CERTIFICATE-----)")),
    }
}

fn trusted(roots: Option<&Roots>) -> Result<&Roots, &'static str> {
    match roots {
        Some(roots) => Ok(roots),
        None => Roots::public().ok_or("there are no public roots"),
    }
}

/// The text, if it is the URL of one of PayPal's certificates in this environment.
fn certificate_url<'a>(value: &'a [u8], environment: &Environment) -> Option<&'a str> {
    let url = std::str::from_utf8(value).ok()?;
    let rest = url.strip_prefix("https://")?;
    let path = environment.hosts.iter().find_map(|host| {
        // The slash right behind the host leaves room for no port and no longer name.
        rest.strip_prefix(host).filter(|path| path.starts_with('/'))
    })?;
    let id = path.strip_prefix(CERTIFICATE_PATH)?;
    let is_id = (1..=MAX_CERTIFICATE_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then_some(url)
}

/// Whether an event's ID is one that PayPal can be asked for. Two dots, or one, would be another path.
fn is_event_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
        && header::visible_ascii(id.as_bytes()).is_some()
        && !matches!(id, "." | "..")
}

/// A header whose text stands between bars in what is signed.
fn between_bars<'a>(headers: &'a http::HeaderMap, name: &HeaderName) -> Result<&'a str, Rejection> {
    let text = header::visible_ascii(header::single(headers, name)?);
    text.filter(|text| !text.contains('|')).ok_or_else(|| Rejection::MalformedHeader {
        header: name.clone(),
        problem: "it must be visible ASCII without a bar",
    })
}

impl PayPal {
    /// The key that must have signed, valid now, and what it is called.
    fn with_key<T>(
        &self,
        (url, environment): (&str, &Environment),
        keys: &dyn PublishedKeys,
        now_ms: i64,
        judge: impl FnOnce(&PKeyRef<Public>, Arc<str>) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        match &self.signer {
            Signer::Key(key) => judge(key, Arc::clone(&self.pinned)),
            Signer::Certificate(certified) => {
                judge(certified.key_at(now_ms)?, Arc::clone(&self.pinned))
            }
            Signer::Fetched { roots, checked } => {
                let document = keys
                    .get(url)
                    .ok_or_else(|| Rejection::NeedsKey { url: url.to_owned(), outdated: false })?;
                let roots = trusted(roots.as_ref()).map_err(Rejection::BadKey)?;
                let certified = checked.check(&document, roots, environment.signer)?;
                judge(certified.key_at(now_ms)?, url.into())
            }
        }
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let livemode = Some(self.environment.live);
        let event = Event::parse(payload.body);
        match event.filter(|event| event.id() == Some(payload.event_id)) {
            Some(event) => Normalised { livemode, ..event.normalise(payload.event_type) },
            // It goes by another ID than its body has, so PayPal cannot be asked about what the body
            // says, and nothing of that is believed.
            None => Normalised {
                livemode,
                object_id: payload.object_id.map(str::to_owned),
                ..Normalised::unmapped(payload.event_type)
            },
        }
    }

    fn is_test(&self) -> Option<bool> {
        Some(!self.environment.live)
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        // An event without an ID of its own cannot be asked for.
        let [id] = crate::json::fields(payload.body, ["id"])?;
        let id = crate::json::text(id).filter(|id| id == payload.event_id && is_event_id(id))?;
        Fetch::of("/v1/notifications/webhooks-events/", &id)
    }

    /// The event as PayPal itself tells it; the body, which only a checksum binds, has no say.
    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let told = Event::parse(answer).filter(|event| event.id() == Some(payload.event_id));
        let normalised = match told {
            Some(_) => self.normalise(&Payload { body: answer, ..*payload }),
            // An answer about something else proves nothing, so nothing is claimed.
            None => Normalised {
                object_id: payload.object_id.map(str::to_owned),
                livemode: Some(self.environment.live),
                needs_hydration: true,
                ..Normalised::unmapped(payload.event_type)
            },
        };
        Fetched::alone(normalised)
    }
}

impl Provider for PayPal {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &TRANSMISSION_SIG)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let headers = request.headers;
        let malformed = |header: &HeaderName, problem| Rejection::MalformedHeader {
            header: header.clone(),
            problem,
        };
        let signature = header::single(headers, &TRANSMISSION_SIG)?;
        let id = between_bars(headers, &TRANSMISSION_ID)?;
        let time = between_bars(headers, &TRANSMISSION_TIME)?;
        if header::single(headers, &AUTH_ALGO)? != ALGORITHM.as_bytes() {
            return Err(malformed(&AUTH_ALGO, "the algorithm must be SHA256withRSA"));
        }
        let url = header::single(headers, &CERT_URL)?;
        let of = |environment| Some((certificate_url(url, environment)?, environment));
        let url = self.environments.iter().copied().find_map(of).ok_or_else(|| {
            malformed(&CERT_URL, "it is no certificate URL of PayPal's in this environment")
        })?;
        let signed_at: jiff::Timestamp =
            time.parse().map_err(|_| malformed(&TRANSMISSION_TIME, "it is no RFC 3339 time"))?;
        let signature = rsa::decode_signature(signature)
            .ok_or_else(|| malformed(&TRANSMISSION_SIG, "it is not canonical base64"))?;
        let signed = signed_text(id, time, &self.webhook_id, request.body);
        let secret_label = self.with_key(url, keys, now_ms, |key, label| {
            if rsa::verify(key, Hash::Sha256, &[signed.as_bytes()], &signature) {
                Ok(label)
            } else {
                Err(Rejection::WrongSignature(
                    "check that settings.webhook_id is this endpoint's and that no proxy alters the body",
                ))
            }
        })?;
        let signed_at_ms = signed_at.as_millisecond();
        let is_past = signed_at_ms < now_ms;
        let tolerance_ms = if is_past { self.past_tolerance_ms } else { self.tolerance_ms };
        header::check_age(signed_at_ms, now_ms, tolerance_ms)?;
        // Last, so that only who holds a genuine signature learns anything about the body's form.
        if !Event::parse(request.body).is_some_and(|event| event.id().is_some_and(is_event_id)) {
            return Err(Rejection::Malformed(
                "its body has no id of an event, which every event of PayPal's has: a body forged to the checksum of another",
            ));
        }
        Ok(Verdict {
            scheme: "paypal-rsa-sha256-crc32",
            secret_label,
            signed_at_ms: Some(signed_at_ms),
        })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(event) = Event::parse(request.body) else {
            return Vec::new();
        };
        let event_type = event.event_type().unwrap_or(UNKNOWN_TYPE).to_owned();
        vec![Identified {
            object_id: event.object_id(&event_type),
            event_type,
            livemode: Some(self.reader.environment.live),
            occurred_at_ms: event.occurred_at_ms(),
            ..Identified::new(event.id().map(str::to_owned), request.body, BodyPart::Whole)
        }]
    }

    fn object_is_signed(&self) -> bool {
        false
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let key = self.sample_key.as_ref()?;
        let (event_id, body) = sample::event(spec, self.reader.environment)?;
        let id = sample::transmission_id(spec.seed);
        let time = jiff::Timestamp::from_second(crate::seeded::unix_seconds(spec.now_ms)).ok()?;
        let time = time.to_string();
        let signed = signed_text(&id, &time, &self.webhook_id, body.as_bytes());
        let signature = key.sign_base64(&[signed.as_bytes()])?;
        let host = self.reader.environment.hosts[0];
        let url = format!("https://{host}{CERTIFICATE_PATH}CERT-{}", key.id());
        let header = |name: &HeaderName, value: String| (name.to_string(), value);
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                header(&TRANSMISSION_ID, id),
                header(&TRANSMISSION_TIME, time),
                header(&TRANSMISSION_SIG, signature),
                header(&CERT_URL, url),
                header(&AUTH_ALGO, ALGORITHM.to_owned()),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}

fn signed_text(id: &str, time: &str, webhook_id: &str, body: &[u8]) -> String {
    format!("{id}|{time}|{webhook_id}|{}", crc32fast::hash(body))
}
