//! Amazon SNS over HTTPS: signatures inside the body, by a certificate that AWS publishes.
//!
//! Signed are name and value of certain fields, each followed by a line feed, in the order of the
//! names; which fields depends on the message's type. Values are those of the *decoded* JSON
//! strings. The subject is left out where there is none (or `null`, as some tools write). Version 1
//! signs with SHA-1, version 2 with SHA-256. Fields are taken only where those lines can be read in
//! one way (`message.rs` has the rule and why it is enough).
//!
//! * `SigningCertURL` is not signed, so it is pinned before anything is fetched: `https`, a host
//!   `sns.<region>.amazonaws.com` (or `.com.cn`), and a path of SNS's own naming. Nobody but AWS
//!   serves there, which is what the certificate is trusted for; its chain is not delivered with
//!   it. That the region be the topic's is not demanded: AWS does not promise it, and every such
//!   host is SNS. The region has to be one: `sns.s3.amazonaws.com` and `sns.s3-us-west-2.…` are a
//!   storage bucket that happens to be called `sns`, and anybody's.
//! * Anybody with an AWS account has messages signed by SNS. The topic is what counts: only topics
//!   of the configured list are accepted.
//! * With raw message delivery there is no signature at all: refused.
//! * `Timestamp` is when the message was published, and a retry carries it unchanged. SNS gives up
//!   after 3600 seconds at the latest, so a message may be that much older than the tolerance.
//!
//! The event ID is `MessageId`, the same on every retry. The payload proper is the text in
//! `Message`; where that is JSON, pointers may say where type, object and amount are in it.

mod message;

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use serde_json::json;

use crate::chain::Certified;
use crate::pointers::{
    AMOUNT_POINTER, CURRENCY_POINTER, ID_POINTER, OBJECT_ID_POINTER, Pointers, SampleValues,
    TYPE_POINTER,
};
use crate::published::Material;
use crate::registry::ProviderInfo;
use crate::rsa::{self, Hash, SampleKey};
use crate::seeded::{sample_amount, sample_id};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Identified, KeyDocument, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, SettingInfo, Verdict, form,
    header,
};
use message::{Message, lines};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "aws-sns",
    title: "Amazon SNS",
    summary: "Amazon SNS topics with an HTTPS subscription (not raw delivery)",
    secret: "no secret is needed: SNS signs with a published certificate, and what identifies this endpoint is settings.topics. Only a development source has one, the private key (PEM, RSA) of its development authority, which signs samples",
    scheme: "`Signature` in the body: RSA in base64 over the lines of the message's fields, with SHA-1 (version 1) or SHA-256 (version 2), by the certificate at `SigningCertURL`",
    identity: "`MessageId` and `Type` of the body, unless pointers into `Message` say otherwise; no object unless a pointer names it",
    answer: "any 2xx within 15 s; by default 3 retries 20 s apart, for 3600 s at the longest whatever the policy",
    notes: &[
        "The signing certificate is trusted because it comes from an SNS host over TLS: SNS delivers no chain with it. Its dates are checked.",
        "A retry carries the first attempt's Timestamp, so messages are accepted up to 3600 s beyond the tolerance; times ahead are held to the tolerance.",
        "Amounts: what the pointer points at; sluice does not know whether that is a total.",
        "Topics sign with SHA-1 unless their SignatureVersion attribute is 2. Set it to 2, and then require_sha256 = true.",
        "SubscribeURL is opened only with confirm_subscriptions = true, and only for a listed topic at an SNS host. UnsubscribeConfirmation is never answered: its SubscribeURL would subscribe again.",
        "A MessageId that is not letters, digits and hyphens (at most 128), and a line feed in any signed field but Message, are refused: with them other fields could be read out of the same signed text.",
        "UnsubscribeURL, MessageAttributes and the x-amz-sns-* headers are not signed.",
        "AWS publishes its address ranges without one for SNS deliveries.",
    ],
    settings: &[
        SettingInfo {
            name: "topics",
            summary: "list of the topics' ARNs, required; in the SNS console under Topics",
        },
        SettingInfo {
            name: "require_sha256",
            summary: "true refuses signatures of version 1 (SHA-1); false by default",
        },
        SettingInfo {
            name: "confirm_subscriptions",
            summary: "true lets the gateway open SubscribeURL of a verified SubscriptionConfirmation; false by default",
        },
        SettingInfo {
            name: "certificate",
            summary: "the signing certificate in PEM, used instead of fetching it",
        },
        ID_POINTER,
        TYPE_POINTER,
        OBJECT_ID_POINTER,
        AMOUNT_POINTER,
        CURRENCY_POINTER,
    ],
    samples: &[NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION],
    mappings: &[],
    addresses: &[],
    api: None,
    build,
    normaliser: |settings| Ok(Box::new(reader(settings)?)),
};

const NOTIFICATION: &str = "Notification";
const SUBSCRIPTION: &str = "SubscriptionConfirmation";
const UNSUBSCRIPTION: &str = "UnsubscribeConfirmation";

static RAW_DELIVERY: HeaderName = HeaderName::from_static("x-amz-sns-rawdelivery");

/// How long SNS may go on trying to deliver a message; a limit of the service.
const LONGEST_RETRY_MS: i64 = 3_600_000;

/// Reads payloads.
#[derive(Debug)]
struct Reader {
    pointers: Pointers,
}

#[derive(Debug)]
struct Sns {
    reader: Reader,
    topics: Vec<String>,
    require_sha256: bool,
    confirm: bool,
    certificate: Option<(Certified, Arc<str>)>,
    tolerance_ms: i64,
    sample_key: Option<SampleKey>,
}

fn reader(settings: &Settings<'_>) -> Result<Reader, BuildError> {
    Ok(Reader { pointers: Pointers::new(settings)? })
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let topics: Vec<String> = settings.texts("topics")?.into_iter().map(str::to_owned).collect();
    if topics.is_empty() {
        let problem = "is missing: the ARNs of the topics to accept, e.g. [\"arn:aws:sns:eu-west-1:123456789012:payments\"]; in the SNS console under Topics";
        return Err(settings.bad("topics", problem));
    }
    let is_arn = |arn: &String| {
        arn.starts_with("arn:aws") && arn.split(':').count() == 6 && arn.contains(":sns:")
    };
    if let Some(arn) = topics.iter().find(|arn| !is_arn(arn)) {
        let problem = format!(
            "holds {arn:?}, which is no topic ARN; write it like \"arn:aws:sns:eu-west-1:123456789012:payments\""
        );
        return Err(settings.bad("topics", problem));
    }
    let certificate = match settings.text("certificate")? {
        Some(pem) => {
            let certified = certified(&KeyDocument::parse(pem.as_bytes()).ok());
            let certified = certified.map_err(|problem| settings.bad("certificate", problem))?;
            Some((certified, "settings.certificate".into()))
        }
        None => None,
    };
    Ok(Box::new(Sns {
        reader: reader(settings)?,
        topics,
        require_sha256: settings.flag("require_sha256")?,
        confirm: settings.flag("confirm_subscriptions")?,
        certificate,
        tolerance_ms: keys.tolerance_ms,
        sample_key: keys.each(SampleKey::parse)?.into_iter().next(),
    }))
}

/// The first certificate of a document.
fn certified(
    document: &Option<impl std::borrow::Borrow<KeyDocument>>,
) -> Result<Certified, &'static str> {
    match document.as_ref().map(|document| &document.borrow().0) {
        Some(Material::Certificates(chain)) => {
            Certified::alone(chain.first().ok_or("it holds no certificate")?)
        }
        _ => Err("it is no certificate in PEM"),
    }
}

/// Whether a label is written as AWS names regions under these domains: two letters, one or two words of
/// letters, a number (`us-east-1`, `ap-southeast-2`, `us-gov-west-1`). No service's host begins like
/// that: those of storage, `s3-us-west-2` for example, have a digit in their first part.
fn is_region(label: &str) -> bool {
    let is_word = |word: &str| {
        (3..=12).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let mut parts = label.split('-');
    let area = parts.next().unwrap_or_default();
    let number = parts.next_back().unwrap_or_default();
    let mut words = 0;
    let all_words = parts.inspect(|_| words += 1).all(is_word);
    area.len() == 2
        && area.bytes().all(|byte| byte.is_ascii_lowercase())
        && all_words
        && (1..=2).contains(&words)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What follows the host, if a URL is `https` at an SNS host (without port or user).
fn behind_sns_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://sns.")?;
    let (region, rest) = rest.split_once('.')?;
    let rest = rest.strip_prefix("amazonaws.com").filter(|_| is_region(region))?;
    let rest = rest.strip_prefix(".cn").unwrap_or(rest);
    rest.starts_with('/').then_some(rest)
}

/// Whether a URL is that of an SNS signing certificate.
fn is_certificate_url(url: &str) -> bool {
    let digits = behind_sns_host(url)
        .and_then(|path| path.strip_prefix("/SimpleNotificationService-"))
        .and_then(|name| name.strip_suffix(".pem"));
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(lower_hex))
}

impl Sns {
    /// Whether the pinned or fetched key made the signature; what it is called.
    fn check(
        &self,
        url: &str,
        keys: &dyn PublishedKeys,
        now_ms: i64,
        genuine: impl FnOnce(&openssl::pkey::PKeyRef<openssl::pkey::Public>) -> bool,
    ) -> Result<Arc<str>, Rejection> {
        let wrong = Rejection::WrongSignature(
            "the message was altered, or was not signed by the certificate it names",
        );
        if let Some((certified, label)) = &self.certificate {
            let verdict = genuine(certified.key_at(now_ms)?);
            return if verdict { Ok(Arc::clone(label)) } else { Err(wrong) };
        }
        let document = keys.get(url);
        if document.is_none() {
            return Err(Rejection::NeedsKey { url: url.to_owned(), outdated: false });
        }
        let certified = certified(&document).map_err(Rejection::BadKey)?;
        if genuine(certified.key_at(now_ms)?) { Ok(url.into()) } else { Err(wrong) }
    }

    fn is_listed(&self, topic: &str) -> bool {
        self.topics.iter().any(|listed| listed == topic)
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let Some(message) = Message::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        Normalised {
            occurred_at_ms: message.time_ms(),
            ..self.pointers.normalise(&Payload { body: message.inner(), ..*payload })
        }
    }
}

impl Provider for Sns {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn verify(
        &self,
        request: &Request<'_>,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        const RAW: Rejection = Rejection::Malformed(
            "raw message delivery has no signature: turn it off for this subscription",
        );
        if request.headers.contains_key(&RAW_DELIVERY) {
            return Err(RAW);
        }
        let message = Message::parse(request.body)
            .filter(|message| message.kind.is_some() || message.signature.is_some())
            .ok_or(RAW)?;
        let signature = message.signature.as_deref();
        let signature = signature.ok_or(Rejection::Missing("Signature in the body"))?;
        let signature = rsa::decode_signature(signature.as_bytes())
            .ok_or(Rejection::Malformed("its Signature is not canonical base64"))?;
        let (hash, scheme) = match message.version.as_deref() {
            Some("2") => (Hash::Sha256, "sns-v2"),
            Some("1") if !self.require_sha256 => (Hash::Sha1, "sns-v1"),
            Some("1") => {
                return Err(Rejection::Malformed(
                    "it is signed with SHA-1, which require_sha256 refuses: set the topic's SignatureVersion to 2",
                ));
            }
            _ => return Err(Rejection::Malformed("its SignatureVersion is neither 1 nor 2")),
        };
        let url = message.certificate_url.as_deref();
        let url = url.ok_or(Rejection::Missing("SigningCertURL in the body"))?;
        if !is_certificate_url(url) {
            return Err(Rejection::Malformed("its SigningCertURL is not one of SNS's"));
        }
        let signed = lines(&message.signed()?);
        let signed_at_ms =
            message.time_ms().ok_or(Rejection::Malformed("its Timestamp is no RFC 3339 time"))?;
        let secret_label = self.check(url, keys, now_ms, |key| {
            rsa::verify(key, hash, &[signed.as_bytes()], &signature)
        })?;
        if !message.topic.as_deref().is_some_and(|topic| self.is_listed(topic)) {
            return Err(Rejection::NotMeant("its TopicArn is not in settings.topics"));
        }
        let retries_ms = if signed_at_ms < now_ms { LONGEST_RETRY_MS } else { 0 };
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms.saturating_add(retries_ms))?;
        Ok(Verdict { scheme, secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(message) = Message::parse(request.body) else {
            return Vec::new();
        };
        let found = self.reader.pointers.find(message.inner());
        let own = |value: &Option<Cow<'_, str>>| {
            value.as_deref().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let event_id = found.id.or_else(|| own(&message.id));
        let event = Identified::new(event_id, request.body, BodyPart::Whole);
        let event_type = found.event_type.or_else(|| own(&message.kind));
        vec![Identified {
            event_type: event_type.unwrap_or(event.event_type),
            object_id: found.object_id,
            occurred_at_ms: message.time_ms(),
            ..event
        }]
    }

    fn confirmation(&self, request: &Request<'_>) -> Option<String> {
        if !self.confirm {
            return None;
        }
        let message = Message::parse(request.body)?;
        let topic = message.topic.as_deref().filter(|topic| self.is_listed(topic))?;
        message.kind.as_deref().filter(|kind| *kind == SUBSCRIPTION)?;
        let url = message.subscribe_url.as_deref()?;
        let query = behind_sns_host(url)?.strip_prefix("/?")?;
        let has = |name: &str, value: &str| {
            form::value(query.as_bytes(), name).is_some_and(|found| found == value)
        };
        (has("Action", "ConfirmSubscription") && has("TopicArn", topic)).then(|| url.to_owned())
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let key = self.sample_key.as_ref()?;
        let topic = self.topics.first()?;
        let id = sample_id("", spec.seed);
        let kind = [SUBSCRIPTION, UNSUBSCRIPTION]
            .into_iter()
            .find(|kind| spec.event_type == Some(kind))
            .unwrap_or(NOTIFICATION);
        let values = SampleValues {
            event_id: &id,
            event_type: spec.event_type.unwrap_or("payment.paid"),
            object_id: &sample_id("pay_", spec.seed),
            amount: sample_amount(spec.seed),
        };
        let mut inner = json!({"id": values.object_id, "amount": values.amount, "currency": "EUR"});
        self.reader.pointers.fill(&mut inner, &values);
        let region = topic.split(':').nth(3).filter(|region| !region.is_empty())?;
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let host = format!("https://sns.{region}.{domain}");
        let time = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
        let mut document = json!({
            "Type": kind, "MessageId": id, "TopicArn": topic, "Timestamp": time,
            "SignatureVersion": "2",
            "SigningCertURL":
                format!("{host}/SimpleNotificationService-{}.pem", key.id().get(..32)?),
        });
        if kind == NOTIFICATION {
            document["Message"] = inner.to_string().into();
            document["UnsubscribeURL"] = format!("{host}/?Action=Unsubscribe").into();
        } else {
            let token = sample_id("token", spec.seed);
            let confirm = format!("{host}/?Action=ConfirmSubscription&TopicArn={topic}");
            document["Message"] = "You have chosen to subscribe or to unsubscribe.".into();
            document["SubscribeURL"] = format!("{confirm}&Token={token}").into();
            document["Token"] = token.into();
        }
        let unsigned = document.to_string();
        let signed = lines(&Message::parse(unsigned.as_bytes())?.signed().ok()?);
        document["Signature"] = key.sign_base64(&[signed.as_bytes()])?.into();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Some(SampleRequest {
            headers: vec![
                header("content-type", "text/plain; charset=UTF-8"),
                header("x-amz-sns-message-type", kind),
                header("x-amz-sns-message-id", &id),
                header("x-amz-sns-topic-arn", topic),
            ],
            query: None,
            body: document.to_string().into(),
            event_id: id,
        })
    }
}
