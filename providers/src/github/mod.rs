//! GitHub: webhooks of repositories, organisations, apps, Sponsors and Marketplace.
//!
//! `X-Hub-Signature-256: sha256=<hex>` is an HMAC-SHA-256 of the body. The old SHA-1 header
//! `X-Hub-Signature` is never looked at: falling back to it would be a downgrade.
//!
//! Odd corners:
//! * the type (`X-GitHub-Event`) and the ID (`X-GitHub-Delivery`) are headers that no signature
//!   covers. Whoever holds one genuine delivery can send it again under another ID or another type.
//!   What is normalised therefore also depends on the signed body: an event is only what its own
//!   fields say. Contradicting repetitions of either header are refused;
//! * a webhook may be set to `application/x-www-form-urlencoded`: then the signature covers the
//!   whole form, and the event is the decoded field `payload`;
//! * GitHub never retries on its own. Whoever redelivers by hand sends the same delivery ID.
//!
//! The object is the sponsorship, else the account of a Marketplace purchase, else the repository,
//! else the organisation.

mod sample;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::Condition::Is;
use crate::mac::{Algorithm, Encoding, KeyRing, Tag};
use crate::mapping::{self, row_when};
use crate::registry::ProviderInfo;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Fact, Identified, Mapping, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Verdict, form, header, json,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "github",
    title: "GitHub",
    summary: "GitHub webhooks, sponsorships and Marketplace purchases among them",
    secret: "the webhook's secret, a text of your own choice; on GitHub under Settings → Webhooks → the webhook → Secret (for an app: its settings → Webhook secret; for Sponsors: the Sponsors dashboard → Webhooks)",
    scheme: "`X-Hub-Signature-256: sha256=…`: HMAC-SHA-256 in lower-case hex over the body; the SHA-1 header `X-Hub-Signature` never counts",
    identity: "ID `X-GitHub-Delivery` and type `X-GitHub-Event`, both unsigned; the object is the sponsorship, else the Marketplace account, else the repository, else the organisation; the tenant is `installation.id`",
    answer: "any 2xx within 10 s; GitHub does not retry, a delivery can be sent again by hand for 3 days, with the same ID",
    notes: &[
        "neither ID nor type is signed: who holds a genuine delivery can send it again under another ID. It then comes out as `provider.<type>`, because what the same body says is one fact. Under an ID that was taken before it is told all the same",
        "Amounts: the price of each event's own tier, not a total",
        "a request without `X-GitHub-Delivery` goes by the digest of its body, one without `X-GitHub-Event` has the type `unknown`",
        "contradicting repetitions of the signature, the ID or the type are refused; so are signatures in upper case, which GitHub does not send",
        "sponsorships that recur are subscriptions; one-time sponsorships pass through. Amounts are the tier's monthly price in US dollars",
        "the status is the `action` of the body",
        "addresses are published by `GET https://api.github.com/meta` (`hooks`), change without notice, and are not recommended as the only check: no list is built in",
    ],
    settings: &[],
    samples: &["sponsorship", "marketplace_purchase", "push", "pull_request", "ping"],
    mappings: MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

const RECURRING: &str = "sponsorship.tier.is_one_time";
const PRICE: &[&str] = &["sponsorship.tier.monthly_price_in_cents"];

const MAPPINGS: &[Mapping] = &[
    row_when(
        "sponsorship",
        &[Is("action", "created"), Is(RECURRING, "false")],
        "subscription.created",
        PRICE,
    ),
    row_when(
        "sponsorship",
        &[Is("action", "tier_changed"), Is(RECURRING, "false")],
        "subscription.updated",
        PRICE,
    ),
    row_when(
        "sponsorship",
        &[Is("action", "cancelled"), Is(RECURRING, "false")],
        "subscription.cancelled",
        PRICE,
    ),
    row_when("marketplace_purchase", &[Is("action", "purchased")], "subscription.created", &[]),
    row_when("marketplace_purchase", &[Is("action", "changed")], "subscription.updated", &[]),
    row_when("marketplace_purchase", &[Is("action", "cancelled")], "subscription.cancelled", &[]),
];

static SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
static DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
static EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// Reads payloads; GitHub's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct GitHub {
    keys: KeyRing,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let keys = keys.ring(Algorithm::Sha256, |text| {
        let token = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];
        if token.iter().any(|prefix| text.starts_with(prefix)) {
            return Err("is an access token, not a webhook secret");
        }
        if text.starts_with("-----BEGIN") {
            return Err("is a private key, not a webhook secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(GitHub { keys }))
}

/// The event's JSON: the body, or the field `payload` of a form. JSON begins with a brace, and no
/// form of GitHub's does.
fn event_of(body: &[u8]) -> Cow<'_, [u8]> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return Cow::Borrowed(body);
    }
    match form::value(body, "payload").filter(|payload| !payload.is_empty()) {
        Some(Cow::Borrowed(payload)) => Cow::Borrowed(payload.as_bytes()),
        Some(Cow::Owned(payload)) => Cow::Owned(payload.into_bytes()),
        None => Cow::Borrowed(body),
    }
}

type Event<'a> = json::Object<'a, 6>;

fn parse(event: &[u8]) -> Option<Event<'_>> {
    const FIELDS: [&str; 6] = [
        "action",
        "sponsorship",
        "marketplace_purchase",
        "repository",
        "organization",
        "installation",
    ];
    json::Object::parse(event, FIELDS)
}

fn object_id(event: &Event<'_>) -> Option<String> {
    let paths = [
        "sponsorship.node_id",
        "marketplace_purchase.account.id",
        "repository.id",
        "organization.id",
    ];
    paths.iter().find_map(|path| event.id(path))
}

/// The sponsorship's beginning is the only time of an event that GitHub tells.
fn occurred_at_ms(event: &Event<'_>) -> Option<i64> {
    let created = mapping::meets(event, &Is("action", "created"));
    created.then(|| json::time_ms(event.get("sponsorship.created_at"))).flatten()
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let mut normalised = Normalised::unmapped(payload.event_type);
        let event = event_of(payload.body);
        let Some(event) = parse(&event) else {
            return normalised;
        };
        let meets = |condition: &_| mapping::meets(&event, condition);
        if let Some(mapping) = mapping::find(MAPPINGS, payload.event_type, meets) {
            mapping.kind.clone_into(&mut normalised.kind);
            normalised.amount_minor =
                mapping.amount.iter().find_map(|path| json::integer(event.get(path)));
            // Sponsors and Marketplace have prices in US dollars alone.
            normalised.currency = normalised.amount_minor.map(|_| "USD".to_owned());
        }
        Normalised {
            object_id: object_id(&event),
            status: event.text("action"),
            customer: event
                .text("sponsorship.sponsor.login")
                .or_else(|| event.text("marketplace_purchase.account.login")),
            occurred_at_ms: occurred_at_ms(&event),
            ..normalised
        }
    }

    /// The ID is not signed, the body is.
    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        Fact::of_body(self.normalise(payload), payload.body)
    }

    fn id_is_signed(&self) -> bool {
        false
    }

    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        // Most events are of types without a canonical kind, and need not be read to know it.
        MAPPINGS.iter().any(|row| row.event_type == payload.event_type)
            && self.normalise(payload).has_canonical_kind()
    }
}

impl Provider for GitHub {
    fn reader(&self) -> &dyn Normalise {
        &Reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &SIGNATURE)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let malformed = |problem| Rejection::MalformedHeader { header: SIGNATURE.clone(), problem };
        let value = header::single(request.headers, &SIGNATURE)?;
        let hex = value.strip_prefix(b"sha256=").ok_or_else(|| malformed("it lacks sha256="))?;
        let tag = Tag::decode(hex, Encoding::Hex, Algorithm::Sha256)
            .ok_or_else(|| malformed("it is not 64 lower-case hex digits"))?;
        header::optional(request.headers, &DELIVERY)?;
        header::optional(request.headers, &EVENT)?;
        let secret_label = self.keys.verify(&[request.body], &tag.into())?;
        Ok(Verdict { scheme: "github-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let id = header::text(request.headers, &DELIVERY);
        let event_type = header::text(request.headers, &EVENT);
        let (event, body) = match event_of(request.body) {
            Cow::Borrowed(event) if event.len() == request.body.len() => {
                (request.body.clone(), BodyPart::Whole)
            }
            Cow::Borrowed(event) => {
                let event = request.body.slice_ref(event);
                (event.clone(), BodyPart::Part(event))
            }
            Cow::Owned(event) => {
                let event = Bytes::from(event);
                (event.clone(), BodyPart::Part(event))
            }
        };
        let mut identified = Identified::new(id, &event, body);
        if let Some(event_type) = event_type {
            identified.event_type = event_type;
        }
        if let Some(event) = parse(&event) {
            identified.object_id = object_id(&event);
            identified.tenant = event.id("installation.id");
            identified.occurred_at_ms = occurred_at_ms(&event);
        }
        vec![identified]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, event_type, body) = sample::event(spec)?;
        let tag = self.keys.sign(&[body.as_bytes()]).encode(Encoding::Hex);
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("user-agent", "GitHub-Hookshot/044aadd".to_owned()),
            (EVENT.as_str(), event_type),
            (DELIVERY.as_str(), event_id.clone()),
            (SIGNATURE.as_str(), format!("sha256={tag}")),
        ];
        Some(SampleRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
