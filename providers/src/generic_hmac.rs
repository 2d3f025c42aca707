//! Any sender that signs with an HMAC in a header, described by settings instead of code.
//!
//! The settings say where the signature is and what it covers (see `template.rs`), and where in the
//! body an event's ID, type, object and amount are. A configuration under which something would be
//! trusted unsigned (the body, the time that age is judged by, an ID or a type from a header) is refused, and so is a
//! template whose text could be that of two requests.
//! With no ID configured, or none in the request, an event goes by the digest of its body.
//!
//! A body may be a batch of JSON lines (see `batch.rs`): the signature covers it whole, and the pointers are
//! looked up in each line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use serde_json::json;

use crate::batch::{BATCH, BATCH_NOTES, Bodies};
use crate::header;
use crate::mac::{Algorithm, Encoding, KeyRing, Tag};
use crate::model::digest_id;
use crate::pointers::{
    AMOUNT_POINTER, CURRENCY_POINTER, ID_POINTER, OBJECT_ID_POINTER, Pointers, SampleValues,
    TYPE_POINTER,
};
use crate::registry::{ProviderInfo, SettingInfo};
use crate::seeded::{sample_amount, sample_id, unix_seconds};
use crate::settings::Settings;
use crate::source::Keys;
use crate::template::{Segment, Template};
use crate::{
    BuildError, Identified, Normalise, Normalised, Payload, Provider, PublishedKeys, Rejection,
    Request, SampleRequest, SampleSpec, Verdict,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "hmac",
    title: "Generic HMAC",
    summary: "Any sender that signs with an HMAC in a header, described by settings",
    secret: "the shared secret, written as settings.secret_encoding says",
    scheme: "an HMAC (SHA-1, SHA-256 or SHA-512; hex or base64) in a header of any name, over a template of body, time, ID and headers",
    identity: "by pointers or headers; without any, the digest of the body",
    answer: "any 2xx; for a batch once all of its events are stored",
    notes: &[
        BATCH_NOTES[0],
        BATCH_NOTES[1],
        "An ID or a type is taken only from what is signed: a header of `id_header` or `type_header` has to be in the template, as {id} or {header:NAME}.",
        "No text may be what two requests sign. So between the parts of a template there has to be a separator that IDs and times do not contain, such as `.`, `:` or `|`, and a request whose header contains it is refused.",
        BATCH_NOTES[2],
        BATCH_NOTES[3],
    ],
    samples: &["payment.succeeded"],
    addresses: &[],
    api: None,
    settings: &[
        SettingInfo { name: "header", summary: "the header with the signature; required" },
        SettingInfo { name: "algorithm", summary: "sha256 (default), sha512 or sha1" },
        SettingInfo {
            name: "encoding",
            summary: "of the signature: hex (default, lower case) or base64",
        },
        SettingInfo {
            name: "prefix",
            summary: "text before the signature, e.g. \"sha256=\"; default none",
        },
        SettingInfo {
            name: "template",
            summary: "what is signed, of {body}, {ts}, {id}, {header:NAME} and text; default \"{body}\"",
        },
        SettingInfo {
            name: "timestamp_header",
            summary: "the header {ts} stands for; age is checked by it",
        },
        SettingInfo { name: "timestamp_unit", summary: "seconds (default) or milliseconds" },
        SettingInfo {
            name: "secret_encoding",
            summary: "of the secret: text (default), hex or base64",
        },
        SettingInfo {
            name: "id_header",
            summary: "the header with the event ID; it must be signed, as {id} in the template",
        },
        SettingInfo {
            name: "type_header",
            summary: "the header with the event type; it must be signed, as {header:NAME} in the template",
        },
        ID_POINTER,
        TYPE_POINTER,
        OBJECT_ID_POINTER,
        AMOUNT_POINTER,
        CURRENCY_POINTER,
        BATCH,
    ],
    mappings: &[],
    build,
    normaliser,
};

#[derive(Debug, Clone, Copy)]
enum SecretEncoding {
    Text,
    Hex,
    Base64,
}

/// The settings that need no secret.
#[derive(Debug)]
struct Reader {
    signature_header: HeaderName,
    algorithm: Algorithm,
    encoding: Encoding,
    prefix: String,
    template: Template,
    timestamp_header: Option<HeaderName>,
    /// Milliseconds in one unit of the timestamp header.
    timestamp_unit_ms: i64,
    secret_encoding: SecretEncoding,
    id_header: Option<HeaderName>,
    type_header: Option<HeaderName>,
    pointers: Pointers,
    bodies: Bodies,
}

#[derive(Debug)]
struct GenericHmac {
    reader: Reader,
    keys: KeyRing,
    tolerance_ms: i64,
}

impl Reader {
    fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        let algorithms = [
            ("sha256", Algorithm::Sha256),
            ("sha512", Algorithm::Sha512),
            ("sha1", Algorithm::Sha1),
        ];
        let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
        let secret_encodings = [
            ("text", SecretEncoding::Text),
            ("hex", SecretEncoding::Hex),
            ("base64", SecretEncoding::Base64),
        ];
        let pointers = Pointers::new(settings)?;
        let reader = Self {
            signature_header: settings.header("header")?.ok_or_else(|| {
                settings.bad("header", "is missing; name the header with the signature")
            })?,
            algorithm: settings.choice("algorithm", &algorithms, Algorithm::Sha256)?,
            encoding: settings.choice("encoding", &encodings, Encoding::Hex)?,
            prefix: settings.text("prefix")?.unwrap_or_default().to_owned(),
            template: Template::parse(settings.text("template")?.unwrap_or("{body}"))
                .map_err(|problem| settings.bad("template", problem))?,
            timestamp_header: settings.header("timestamp_header")?,
            timestamp_unit_ms: settings.choice(
                "timestamp_unit",
                &[("seconds", 1000), ("milliseconds", 1)],
                1000,
            )?,
            secret_encoding: settings.choice(
                "secret_encoding",
                &secret_encodings,
                SecretEncoding::Text,
            )?,
            id_header: settings.header("id_header")?,
            type_header: settings.header("type_header")?,
            bodies: Bodies::new(settings, pointers.has_id())?,
            pointers,
        };
        reader.check(settings)?;
        Ok(reader)
    }

    fn check(&self, settings: &Settings<'_>) -> Result<(), BuildError> {
        let signs_time = self.template.has(&Segment::Timestamp);
        if signs_time && self.timestamp_header.is_none() {
            return Err(settings.bad("template", "uses {ts}; set timestamp_header as well"));
        }
        if !signs_time && self.timestamp_header.is_some() {
            let problem = "is set, but template does not sign {ts}: anyone could change the time";
            return Err(settings.bad("timestamp_header", problem));
        }
        if self.template.has(&Segment::Id) && self.id_header.is_none() {
            return Err(settings.bad("template", "uses {id}; set id_header as well"));
        }
        if self.id_header.is_some() && self.pointers.has_id() {
            return Err(settings.bad("id_header", "and id_pointer exclude each other"));
        }
        if self.type_header.is_some() && self.pointers.has_type() {
            return Err(settings.bad("type_header", "and type_pointer exclude each other"));
        }
        let signs = |name: &HeaderName| self.template.has(&Segment::Header(name.clone()));
        if let Some(name) = &self.id_header
            && !self.template.has(&Segment::Id)
            && !signs(name)
        {
            let problem = "is set, but template does not sign {id}: whoever holds one genuine request could send it under any other ID; add {id}, or use id_pointer";
            return Err(settings.bad("id_header", problem));
        }
        if let Some(name) = self.type_header.as_ref().filter(|name| !signs(name)) {
            let problem = format!(
                "is set, but template does not sign it: anyone could change the type; add {{header:{name}}}, or use type_pointer"
            );
            return Err(settings.bad("type_header", problem));
        }
        self.template.check_separators().map_err(|problem| settings.bad("template", problem))
    }

    fn scheme(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha1 => "hmac-sha1",
            Algorithm::Sha256 => "hmac-sha256",
            Algorithm::Sha512 => "hmac-sha512",
        }
    }

    /// The pieces of the signed text; as many as the template has segments.
    fn signed_parts<'a>(&'a self, request: &Request<'a>) -> Result<Vec<&'a [u8]>, Rejection> {
        let value = |name: Option<&HeaderName>, separator: Option<u8>| {
            let Some(name) = name else { return Ok(&b""[..]) };
            let value = header::single(request.headers, name)?;
            if separator.is_some_and(|separator| value.contains(&separator)) {
                let problem = "it holds the separator that ends it in settings.template";
                return Err(Rejection::MalformedHeader { header: name.clone(), problem });
            }
            Ok(value)
        };
        let part = |(segment, separator): (&'a Segment, _)| match segment {
            Segment::Literal(text) => Ok(text.as_bytes()),
            Segment::Body => Ok(&request.body[..]),
            Segment::Timestamp => value(self.timestamp_header.as_ref(), separator),
            Segment::Id => value(self.id_header.as_ref(), separator),
            Segment::Header(name) => value(Some(name), separator),
        };
        self.template.with_separators().map(part).collect()
    }

    /// The signed time in milliseconds since the Unix epoch, where one is signed.
    fn signed_at_ms(&self, request: &Request<'_>) -> Result<Option<i64>, Rejection> {
        let Some(name) = &self.timestamp_header else {
            return Ok(None);
        };
        let value = header::single(request.headers, name)?;
        let number = header::digits(value).ok_or_else(|| Rejection::MalformedHeader {
            header: name.clone(),
            problem: "it must be a whole number in digits",
        })?;
        Ok(Some(number.saturating_mul(self.timestamp_unit_ms)))
    }

    fn signature(&self, request: &Request<'_>) -> Result<Tag, Rejection> {
        let malformed =
            |problem| Rejection::MalformedHeader { header: self.signature_header.clone(), problem };
        let value = header::single(request.headers, &self.signature_header)?;
        let text = value
            .strip_prefix(self.prefix.as_bytes())
            .ok_or_else(|| malformed("it lacks the configured prefix"))?;
        Tag::decode(text, self.encoding, self.algorithm)
            .ok_or_else(|| malformed("it is not one signature in the configured encoding"))
    }
}

fn normaliser(settings: &Settings<'_>) -> Result<Box<dyn Normalise>, BuildError> {
    Ok(Box::new(Reader::new(settings)?))
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let reader = Reader::new(settings)?;
    let ring = keys.ring(reader.algorithm, |text| match reader.secret_encoding {
        SecretEncoding::Text => Ok(text.as_bytes().to_vec()),
        SecretEncoding::Hex => hex::decode(text).map_err(|_| "is not hexadecimal"),
        SecretEncoding::Base64 => STANDARD.decode(text).map_err(|_| "is not base64"),
    })?;
    Ok(Box::new(GenericHmac { reader, keys: ring, tolerance_ms: keys.tolerance_ms }))
}

fn header_text(request: &Request<'_>, name: &Option<HeaderName>) -> Option<String> {
    header::text(request.headers, name.as_ref()?)
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        self.pointers.normalise(payload)
    }
}

impl Provider for GenericHmac {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &self.reader.signature_header)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let signature = self.reader.signature(request)?;
        let signed_at_ms = self.reader.signed_at_ms(request)?;
        let signed = self.reader.signed_parts(request)?;
        let secret_label = self.keys.verify(&signed, &signature.into())?;
        if let Some(signed_at_ms) = signed_at_ms {
            header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        }
        Ok(Verdict { scheme: self.reader.scheme(), secret_label, signed_at_ms })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let reader = &self.reader;
        reader.bodies.identify(request.body, |bytes, part| {
            let found = reader.pointers.find(bytes);
            // Beside id_pointer there is no id_header, so the lines of a batch cannot share one's ID.
            let event_id = found.id.or_else(|| header_text(request, &reader.id_header));
            let event_type = found.event_type.or_else(|| header_text(request, &reader.type_header));
            let event = Identified::new(event_id, bytes, part);
            Identified {
                event_type: event_type.unwrap_or(event.event_type),
                object_id: found.object_id,
                ..event
            }
        })
    }

    fn batch_size(&self, request: &Request<'_>) -> usize {
        self.reader.bodies.count(request.body)
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let reader = &self.reader;
        let id = sample_id("evt_", spec.seed);
        let values = SampleValues {
            event_id: &id,
            event_type: spec.event_type.unwrap_or("payment.succeeded"),
            object_id: &sample_id("pay_", spec.seed),
            amount: sample_amount(spec.seed),
        };
        let mut document = json!({
            "id": values.event_id,
            "type": values.event_type,
            "data": {"id": values.object_id, "amount": values.amount, "currency": "EUR"},
        });
        reader.pointers.fill(&mut document, &values);
        let (content_type, body) = reader.bodies.render(&document);
        let body = bytes::Bytes::from(body);

        let seconds = unix_seconds(spec.now_ms);
        let timestamp = seconds * (1000 / reader.timestamp_unit_ms);
        let mut headers = vec![(http::header::CONTENT_TYPE, content_type.to_owned())];
        let mut set = |name: &HeaderName, value: String| {
            if headers.iter().all(|(present, _)| present != name) {
                headers.push((name.clone(), value));
            }
        };
        if let Some(name) = &reader.timestamp_header {
            set(name, timestamp.to_string());
        }
        if let Some(name) = &reader.id_header {
            set(name, id.clone());
        }
        if let Some(name) = &reader.type_header {
            set(name, values.event_type.to_owned());
        }
        for segment in reader.template.segments() {
            if let Segment::Header(name) = segment {
                set(name, "sample".to_owned());
            }
        }
        let mut map = http::HeaderMap::new();
        for (name, value) in &headers {
            map.insert(name, value.parse().ok()?);
        }
        let request = Request { method: "POST", url: "/", headers: &map, body: &body };
        let signed = reader.signed_parts(&request).ok()?;
        let tag = self.keys.sign(&signed).encode(reader.encoding);
        let event_id = match (reader.id_header.is_some(), reader.pointers.find(&body).id) {
            (true, _) => id,
            (false, Some(placed)) => placed,
            (false, None) => digest_id(&body),
        };
        headers.push((reader.signature_header.clone(), format!("{}{tag}", reader.prefix)));
        let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Some(SampleRequest { headers, query: None, body, event_id })
    }
}
