//! Twilio: the URL as configured at Twilio and the form's fields, signed by the auth token.
//!
//! Signed is the URL, query included and verbatim, followed by name and value of every form field in
//! the order of their bytes, equal pairs once. The URL is that of the settings, never what a proxy
//! made of it; ports come and go between Twilio and its SDKs, so it is tried as configured, without
//! its port, and with the standard one. A `#…` fragment (connection overrides) is not signed.
//!
//! A body that is no form is bound by `bodySHA256=` in the signed query. Whether one is there decides
//! how the body is covered, and the `Content-Type` header, which is not signed, decides nothing:
//! without it every byte of the body counts as form fields, so a JSON body that Twilio did not sign
//! cannot match, and what is read from such a request afterwards are form fields alone.
//!
//! Fields are read from where the method says and from nowhere else: from the body of a POST, from the
//! query of a GET. GET is off unless `settings.accept_get` turns it on, and has no body.
//!
//! `X-Twilio-Webhooks-Signature-Settings` selects HMAC-SHA-256 by a shared key; anything but that
//! algorithm is refused, and without the header it is HMAC-SHA-1. All secrets are tried under either.
//!
//! What it does not protect from: names and values are joined without separators, so one who has seen a
//! signed request can move text from one field into another as long as the whole stays the same. If he
//! has also written a message that is in it, he can have that text read as fields of his choice: a
//! status of another message, for example. It bounds him that
//! * he must have seen a request with its signature, which HTTPS keeps from him;
//! * the whole text stays the same, so events that go by a digest keep their ID however it is cut;
//! * fields cannot become a GET's query unless that is turned on, nor a query a form;
//! * fields cannot become a `bodySHA256`: Twilio appends that as the last parameter of the URL, and it
//!   counts only there and only once. Fields that are moved behind a query go on after the message's
//!   text, because others sort after `Body`.

mod event;
mod sample;

use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::mac::{Algorithm, Candidates, Encoding, KeyRing, Tag};
use crate::registry::ProviderInfo;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, BuildError, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, SettingInfo, Verdict, form,
    header,
};
use event::{Fields, MAX_FIELDS};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "twilio",
    title: "Twilio",
    summary: "Twilio webhooks: messages, calls, conversations (form, GET), Event Streams (JSON)",
    secret: "the account's primary auth token, in the Console on the account's dashboard (a secondary token signs nothing until promoted), or the secret of a webhook shared key",
    scheme: "`X-Twilio-Signature`: HMAC-SHA-1 in base64 over the configured URL with its query and the sorted form fields; bodies that are no form by `bodySHA256=` in the query; HMAC-SHA-256 where `X-Twilio-Webhooks-Signature-Settings` says `algorithm=HMAC_SHA256`",
    identity: "no ID exists: `MessageSid`, `RecordingSid` with their status; the SID of calls, conferences and rooms with status and `SequenceNumber`; `id` of Event Streams; else the digest of the signed fields. The object is that SID; the tenant is the account",
    answer: "200 with an empty TwiML document, which is right for messages, calls and callbacks alike; 15 seconds; no retry by default, a failure goes to the fallback URL (Event Streams retry for four hours). A refused request gets 403",
    notes: &[
        "No time is signed: a recorded request stays valid, and is held off by deduplication alone.",
        "Names and values are signed without separators between them: one who has seen a signed request can move text from one field into the next. If he also wrote the text of a message in it, he can have parts of that text read as other fields, and so report a status of another message. Without a signed request he can do nothing, so use HTTPS and keep signatures out of logs; base no payment on a message's status. Configure the URL without a query: then no field can be moved into it.",
        "GET deliveries are refused unless `accept_get` is set: their fields are in the query, where a request that was signed as a form could be moved to. A GET with a body is refused.",
        "An apostrophe in a query may come as `%27` where Twilio has signed `'`: either spelling is accepted, each by its full signature.",
        "`public_url` has no user name or password: Twilio signs the URL without them.",
        "Amounts: there are none.",
        "`bodySHA256` counts only as the last parameter of the query, where Twilio appends it, and only once.",
        "`Content-Type` is not signed and not looked at: `bodySHA256=` at the end of the signed URL decides whether the body is a form. Only lower-case hex counts there.",
        "At most 1,000 form fields are accepted; Twilio sends fewer than 100.",
        "A field that is given twice with different values is not read: their order is not signed.",
        "A call asks for TwiML and is answered with an empty document, which ends it: point status callbacks here, not the call's own URL.",
        "Calls without `SequenceNumber` go by the digest of their fields, because several callbacks share a status.",
        "Twilio sends from no fixed addresses.",
    ],
    settings: &[
        SettingInfo {
            name: "public_url",
            summary: "the webhook's URL exactly as configured at Twilio, `scheme://host[:port]/path`, without its query; required",
        },
        SettingInfo {
            name: "accept_get",
            summary: "`true` where the webhook's method at Twilio is GET; default `false`, which refuses GET",
        },
    ],
    samples: sample::TYPES,
    mappings: event::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
static SIGNATURE_SETTINGS: HeaderName =
    HeaderName::from_static("x-twilio-webhooks-signature-settings");

/// Reads events; Twilio's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Twilio {
    sha1: KeyRing,
    sha256: KeyRing,
    /// The configured URL first; at most three, all different.
    urls: Vec<String>,
    accept_get: bool,
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let url = settings.required(
        "public_url",
        "the webhook's URL exactly as configured at Twilio, e.g. \"https://shop.example/webhooks/twilio\"",
    )?;
    let urls = urls(url).map_err(|problem| settings.bad("public_url", problem))?;
    let decode = |text: &str| {
        let sid = |prefix: &str| text.len() == 34 && text.starts_with(prefix);
        if sid("AC") || sid("SK") {
            return Err("is an account or API key SID, not the auth token");
        }
        Ok(text.as_bytes().to_vec())
    };
    Ok(Box::new(Twilio {
        sha1: keys.ring(Algorithm::Sha1, decode)?,
        sha256: keys.ring(Algorithm::Sha256, decode)?,
        urls,
        accept_get: settings.flag("accept_get")?,
    }))
}

/// The spellings of the configured URL that may be signed.
fn urls(configured: &str) -> Result<Vec<String>, &'static str> {
    let url = configured.split('#').next().unwrap_or_default();
    let (scheme, rest) =
        url.split_once("://").ok_or("must begin with https:// (or http://, for tests)")?;
    let standard = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return Err("must begin with https:// (or http://, for tests)"),
    };
    if url.contains('?') {
        return Err("must not have a query: the query is taken from each request");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "holds a space or a character that is not ASCII; write it as at Twilio, escaped",
        );
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("holds a user name or a password; write the URL without them");
    }
    // The colons of an IPv6 address are inside its brackets.
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let host = match authority[bracket..].find(':') {
        Some(at) => {
            let port = &authority[bracket + at + 1..];
            if port.parse::<u16>().is_err() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("has a port that is none");
            }
            &authority[..bracket + at]
        }
        None => authority,
    };
    if host.is_empty() {
        return Err("has no host");
    }
    let mut urls = vec![url.to_owned()];
    for other in [format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{standard}{path}")]
    {
        if !urls.contains(&other) {
            urls.push(other);
        }
    }
    Ok(urls)
}

/// The digest of the body that the URL names, if it names one: as the last parameter, where Twilio
/// appends it to whatever URL is configured. A GET has no body that it could name.
fn body_digest(request: &Request<'_>) -> Result<Option<[u8; 32]>, Rejection> {
    const NAME: &[u8] = b"bodySHA256";
    let query = form::query(request.url);
    if request.method == "GET"
        || !form_urlencoded::parse(query).any(|(name, _)| name.as_bytes() == NAME)
    {
        return Ok(None);
    }
    let start = query.iter().rposition(|byte| *byte == b'&').map_or(0, |at| at + 1);
    let (before, last) = query.split_at(start);
    let value = last.strip_prefix(NAME).and_then(|last| last.strip_prefix(b"="));
    let value = value.ok_or(Rejection::Malformed("bodySHA256 is not the last of the query"))?;
    if form_urlencoded::parse(before).any(|(name, _)| name.as_bytes() == NAME) {
        return Err(Rejection::Malformed("bodySHA256 occurs several times"));
    }
    let mut digest = [0; 32];
    let lower = value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(value, &mut digest).is_err() {
        return Err(Rejection::Malformed("bodySHA256 is not 64 lower-case hex digits"));
    }
    Ok(Some(digest))
}

/// What is signed after the URL: its query and the fields of a form, which for a GET are in the query
/// already. Fields that a digest binds are in it by that.
fn signed_text<'a>(url: &'a str, fields: &'a Fields<'_>) -> Vec<&'a [u8]> {
    let mut signed: Vec<&[u8]> = Vec::with_capacity(3 + 2 * fields.pairs().len());
    if let Some((_, query)) = url.split_once('?') {
        signed.extend([&b"?"[..], query.as_bytes()]);
    }
    for (name, value) in fields.pairs() {
        signed.extend([name.as_bytes(), value.as_bytes()]);
    }
    signed
}

impl Twilio {
    /// The ring, algorithm and scheme the request asks for.
    fn ring(
        &self,
        request: &Request<'_>,
    ) -> Result<(&KeyRing, Algorithm, &'static str), Rejection> {
        let Some(value) = header::optional(request.headers, &SIGNATURE_SETTINGS)? else {
            return Ok((&self.sha1, Algorithm::Sha1, "twilio-sha1"));
        };
        let malformed =
            |problem| Rejection::MalformedHeader { header: SIGNATURE_SETTINGS.clone(), problem };
        let mut algorithm = None;
        for entry in value.split(|byte| *byte == b',') {
            let mut halves = entry.trim_ascii().splitn(2, |byte| *byte == b'=');
            let (name, setting) = (halves.next().unwrap_or_default(), halves.next());
            let setting = setting.ok_or_else(|| malformed("it is no list of name=value"))?;
            if name == b"algorithm" && algorithm.replace(setting).is_some() {
                return Err(malformed("it names several algorithms"));
            }
        }
        match algorithm {
            Some(b"HMAC_SHA256") => Ok((&self.sha256, Algorithm::Sha256, "twilio-sha256")),
            Some(_) => Err(malformed("its algorithm is not HMAC_SHA256")),
            None => Err(malformed("it names no algorithm")),
        }
    }

    fn matches(
        &self,
        ring: &KeyRing,
        signed: &[&[u8]],
        candidates: &Candidates,
    ) -> Result<std::sync::Arc<str>, Rejection> {
        let mut parts = Vec::with_capacity(1 + signed.len());
        parts.push(&b""[..]);
        parts.extend_from_slice(signed);
        let mut verdict = Err(Rejection::Missing("public_url"));
        for url in &self.urls {
            parts[0] = url.as_bytes();
            verdict = ring.verify(&parts, candidates);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        event::normalise(payload)
    }
}

impl Provider for Twilio {
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
        let (ring, algorithm, scheme) = self.ring(request)?;
        let value = header::single(request.headers, &SIGNATURE)?;
        let tag = Tag::decode(value, Encoding::Base64, algorithm);
        let problem = match algorithm {
            Algorithm::Sha256 => "it is not the base64 of 32 bytes",
            _ => "it is not the base64 of 20 bytes",
        };
        let malformed = || Rejection::MalformedHeader { header: SIGNATURE.clone(), problem };
        let candidates = Candidates::from(tag.ok_or_else(malformed)?);
        if request.method == "GET" {
            if !self.accept_get {
                return Err(Rejection::Malformed(
                    "GET is refused unless settings.accept_get is set",
                ));
            }
            if !request.body.is_empty() {
                return Err(Rejection::Malformed("it is a GET and has a body"));
            }
        }
        let digest = body_digest(request)?;
        let fields = match digest {
            Some(_) => Fields::default(),
            None => Fields::parse(request.body)
                .ok_or(Rejection::Malformed("it has more than 1000 form fields"))?,
        };
        let verify = |url: &str| self.matches(ring, &signed_text(url, &fields), &candidates);
        let secret_label = match verify(request.url) {
            // Twilio signs an apostrophe in a query as it is, and some of its clients send it escaped.
            Err(Rejection::NoMatch { .. }) if request.url.contains("%27") => {
                verify(&request.url.replace("%27", "'"))?
            }
            verified => verified?,
        };
        if let Some(digest) = digest
            && !bool::from(Sha256::digest(request.body).as_slice().ct_eq(&digest))
        {
            return Err(Rejection::Malformed("the body is not the one whose bodySHA256 is signed"));
        }
        Ok(Verdict { scheme, secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let bound = body_digest(request).is_ok_and(|digest| digest.is_some());
        if bound && event::is_json(request.body) {
            event::of_json(request.body)
        } else {
            event::of_form(request, bound)
        }
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement {
            status: 200,
            content_type: Some("text/xml; charset=utf-8"),
            body: "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>".into(),
        })
    }

    fn accepts_get(&self) -> bool {
        self.accept_get
    }

    fn rejection_status(&self) -> u16 {
        // After a 401 Twilio asks again with the URL's password, which helps nobody here.
        403
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let sample = sample::request(spec)?;
        let fields = match sample.query {
            Some(_) => Fields::default(),
            None => Fields::parse(&sample.body)?,
        };
        let url = sample.query.as_ref().map_or("/".to_owned(), |query| format!("/?{query}"));
        let mut signed = signed_text(&url, &fields);
        signed.insert(0, self.urls.first()?.as_bytes());
        let signature = self.sha1.sign(&signed).encode(Encoding::Base64);
        let headers = [("content-type", sample.content_type), (SIGNATURE.as_str(), &signature)];
        let body = sample.body;
        let request =
            Request { method: "POST", url: &url, headers: &http::HeaderMap::new(), body: &body };
        let event_id = self.identify(&request).into_iter().next()?.event_id;
        Some(SampleRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            query: sample.query,
            body,
            event_id,
        })
    }
}

// The text of the rejection names the bound.
const _: () = assert!(MAX_FIELDS == 1000);
