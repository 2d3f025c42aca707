//! Requests as the packages and the samples make them, and twins of them that mean something else.

use serde::Deserialize;
use sluice_providers::{SampleSpec, Source};
use sluice_schemas::RawWebhook;
use sluice_tests::{send::now_ms, sluice::Role};

/// A request to a source.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The case, the package that made or accepted it, and the variant, for messages.
    pub(super) title: String,
    pub(super) source: String,
    pub(super) method: String,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The IDs that its events must have, for [`is_id`].
    pub(super) events: Vec<String>,
}

/// A line of the scripts that sign.
#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    pub(super) by: String,
    pub(super) method: String,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) events: Vec<String>,
    pub(super) tamper: Tamper,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tamper {
    part: String,
    find: String,
    replace: String,
}

impl Signed {
    pub(super) fn delivery(&self, case: &str, source: &str) -> Delivery {
        Delivery {
            title: format!("{case}, signed by {}", self.by),
            source: source.to_owned(),
            method: self.method.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body: hex::decode(&self.body).unwrap(),
            events: self.events.clone(),
        }
    }
}

impl Delivery {
    pub(super) fn tampered(mut self, Tamper { part, find, replace }: &Tamper) -> Delivery {
        let changed = |text: &str| {
            assert!(text.contains(find), "{}: no {find} in {part}", self.title);
            text.replacen(find, replace, 1)
        };
        match part.as_str() {
            "body" => self.body = changed(std::str::from_utf8(&self.body).unwrap()).into_bytes(),
            "query" => self.query = self.query.as_deref().map(changed),
            name => {
                let header = self.headers.iter().position(|(header, _)| header == name).unwrap();
                self.headers[header].1 = changed(&self.headers[header].1);
            }
        }
        self.title += ", tampered with";
        self
    }

    /// Status and body of the gateway's answer.
    pub(super) async fn post(&self, client: &reqwest::Client, gateway: &Role) -> (u16, String) {
        let query = self.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        let url = format!("{}/webhooks/{}{query}", gateway.url(), self.source);
        let mut request = client.request(self.method.parse().unwrap(), url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Whether a record is of this delivery. Of a batch, the first record alone has the whole body.
    pub(super) fn brought(&self, record: &RawWebhook) -> bool {
        let mine = match record.batch_index {
            0 => record.body == self.body,
            _ => {
                let part = record.payload();
                !part.is_empty() && self.body.windows(part.len()).any(|window| window == part)
            }
        };
        mine && record.source == self.source
            && self.query.as_ref().is_none_or(|query| record.url.ends_with(query))
    }
}

/// Whether an event's ID is the expected one; a trailing `*` of that is any text.
pub(super) fn is_id(found: &str, expected: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(prefix) => found.starts_with(prefix),
        None => found == expected,
    }
}

/// The sample of a source, with a seed and a type, as a request.
pub(super) fn sample(source: &Source, seed: u64, event_type: &str) -> Delivery {
    let spec = SampleSpec { event_type: Some(event_type), seed, now_ms: now_ms() };
    let sample = source.sample(&spec).unwrap();
    Delivery {
        title: format!("{} sample {event_type}", source.name()),
        source: source.name().to_owned(),
        method: "POST".to_owned(),
        query: sample.query,
        headers: sample.headers,
        body: sample.body.to_vec(),
        events: vec![sample.event_id],
    }
}

/// A sample that says something else: in the query where that is what is signed, else in the body.
pub(super) fn altered(mut delivery: Delivery) -> Delivery {
    let in_query = delivery.source == "mercadopago";
    let mut text = match &delivery.query {
        Some(query) if in_query => query.clone().into_bytes(),
        _ => delivery.body.clone(),
    };
    // The event's ID where the body has it; of a body that is not signed as a whole, that is.
    let id = delivery.events[0].as_bytes();
    let at = text.windows(id.len()).position(|part| part == id).map(|at| at + id.len());
    let end = at.filter(|_| !in_query).unwrap_or(text.len());
    let digit = text[..end].iter_mut().rev().find(|byte| byte.is_ascii_digit()).unwrap();
    *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
    if in_query {
        delivery.query = Some(String::from_utf8(text).unwrap());
    } else {
        delivery.body = text;
    }
    delivery.title += ", altered";
    delivery
}
