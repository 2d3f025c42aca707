//! A message's fields, and the text that is signed.
//!
//! That text is names and values, a line feed after each, without lengths or quotes. `Message` comes
//! first and may hold any text, lines like `MessageId` among them. If other values could hold line
//! feeds too, the same text would be that of several messages: the ID `I` and the subject `paid`,
//! say, and the ID `I\nSubject\npaid` without one. Whoever holds the first could send the second,
//! another event under a genuine signature.
//!
//! So no other value may hold a line feed. That is enough, and `Message` needs no rule. Read the
//! text's lines from its end:
//!
//! 1. The last one is the type, being the value of a field without line feeds. It tells a
//!    confirmation from a notification.
//! 2. A confirmation has seven fields, so the last 12 lines are its fields but `Message`.
//! 3. A notification ends with `Timestamp`, `TopicArn`, `Type` and their values, 6 lines. The eighth
//!    line from the end is the name of the field before them: `Subject`, and then the last 10 lines
//!    are the fields but `Message`, or `MessageId`, and then the last 8 are.
//! 4. What stands between the first line, `Message`, and those is the message, whatever its lines.
//!
//! Each step leaves one choice, so the text of one message is that of no other. SNS itself allows no
//! line break in a subject, and its other values have none.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION};
use crate::{Rejection, json};

/// Longest message ID in bytes; SNS's are UUIDs.
const MAX_MESSAGE_ID_BYTES: usize = 128;

/// Whether a message ID is one: it becomes the event's ID. Not held to the exact form of a UUID, which SNS
/// does not promise.
fn is_message_id(id: &str) -> bool {
    (1..=MAX_MESSAGE_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The text of a string; borrowed where it has no escapes.
fn text<'a>(value: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let raw = value?.get();
    let plain = raw.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(plain))
}

/// A message's fields that matter.
pub(super) struct Message<'a> {
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) topic: Option<Cow<'a, str>>,
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) timestamp: Option<Cow<'a, str>>,
    pub(super) token: Option<Cow<'a, str>>,
    pub(super) subscribe_url: Option<Cow<'a, str>>,
    pub(super) version: Option<Cow<'a, str>>,
    pub(super) certificate_url: Option<Cow<'a, str>>,
    pub(super) signature: Option<Cow<'a, str>>,
}

impl<'a> Message<'a> {
    /// `None` when the body is no JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let [
            kind,
            id,
            topic,
            message,
            subject,
            timestamp,
            token,
            subscribe_url,
            version,
            url,
            signature,
        ] = json::fields(
            body,
            [
                "Type",
                "MessageId",
                "TopicArn",
                "Message",
                "Subject",
                "Timestamp",
                "Token",
                "SubscribeURL",
                "SignatureVersion",
                "SigningCertURL",
                "Signature",
            ],
        )?;
        Some(Self {
            kind: text(kind),
            id: text(id),
            topic: text(topic),
            message: text(message),
            subject: text(subject),
            timestamp: text(timestamp),
            token: text(token),
            subscribe_url: text(subscribe_url),
            version: text(version),
            certificate_url: text(url),
            signature: text(signature),
        })
    }

    /// The fields that are signed, by name, in their order.
    ///
    /// # Errors
    /// A field is missing, or written so that the signed text could be read in another way.
    pub(super) fn signed(&self) -> Result<[Option<(&'static str, &str)>; 7], Rejection> {
        fn required<'m>(
            name: &'static str,
            value: &'m Option<Cow<'_, str>>,
        ) -> Result<Option<(&'static str, &'m str)>, Rejection> {
            value.as_deref().map(|value| Some((name, value))).ok_or(Rejection::Missing(name))
        }
        let rest = [&self.id, &self.subject, &self.timestamp, &self.topic, &self.kind];
        let rest = rest.into_iter().chain([&self.subscribe_url, &self.token]);
        if rest.flatten().any(|value| value.contains('\n')) {
            return Err(Rejection::Malformed(
                "a signed field other than Message holds a line feed, so other fields would have the same signature",
            ));
        }
        let message = required("Message", &self.message)?;
        let id = required("MessageId", &self.id)?;
        if id.is_some_and(|(_, id)| !is_message_id(id)) {
            return Err(Rejection::Malformed("its MessageId is not letters, digits and hyphens"));
        }
        let time = required("Timestamp", &self.timestamp)?;
        let topic = required("TopicArn", &self.topic)?;
        let kind = required("Type", &self.kind)?;
        match self.kind.as_deref() {
            Some(NOTIFICATION) => {
                let subject = self.subject.as_deref().map(|subject| ("Subject", subject));
                Ok([message, id, subject, time, topic, kind, None])
            }
            Some(SUBSCRIPTION | UNSUBSCRIPTION) => {
                let url = required("SubscribeURL", &self.subscribe_url)?;
                let token = required("Token", &self.token)?;
                Ok([message, id, url, time, token, topic, kind])
            }
            _ => Err(Rejection::Malformed("its Type is none that SNS sends")),
        }
    }

    pub(super) fn time_ms(&self) -> Option<i64> {
        let time: jiff::Timestamp = self.timestamp.as_deref()?.parse().ok()?;
        Some(time.as_millisecond())
    }

    /// Where the pointers look: the text in `Message`.
    pub(super) fn inner(&self) -> &[u8] {
        self.message.as_deref().unwrap_or_default().as_bytes()
    }
}

/// Name and value, each on a line of its own.
pub(super) fn lines(fields: &[Option<(&str, &str)>]) -> String {
    let mut signed = String::new();
    for (name, value) in fields.iter().flatten() {
        for line in [name, value] {
            signed.push_str(line);
            signed.push('\n');
        }
    }
    signed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::*;

    /// Names of fields, which are what could be mistaken for one, and another text.
    const LINES: [&str; 5] = ["MessageId", "Subject", "Timestamp", "Notification", "x"];

    /// All texts of at most `most` lines out of [`LINES`], with and without a line feed at the end.
    fn texts(most: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest = vec![String::new()];
        for _ in 0..most {
            let longer = |text: &String| LINES.map(|line| format!("{text}{line}\n"));
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().map(|text| text.trim_end().to_owned()));
            all.extend_from_slice(&longest);
        }
        all
    }

    /// Calls `each` with all small messages: their fields, any text in any of them.
    fn all_small(mut each: impl FnMut(&Message<'_>)) {
        let (long, short) = (texts(3), texts(2));
        let own = |text| Some(Cow::Borrowed(text));
        for (body, id) in long.iter().flat_map(|body| short.iter().map(move |id| (body, id))) {
            let subjects = [None, Some(""), Some("x"), Some("Subject"), Some("MessageId")];
            for subject in subjects.into_iter().chain([Some("x\nSubject\nx")]) {
                each(&Message {
                    kind: own(NOTIFICATION),
                    id: own(id),
                    topic: own("x"),
                    message: own(body),
                    subject: subject.and_then(own),
                    timestamp: own("x"),
                    token: None,
                    subscribe_url: None,
                    version: None,
                    certificate_url: None,
                    signature: None,
                });
            }
        }
    }

    /// What would be signed without the rule.
    fn unruled(message: &Message<'_>) -> String {
        let field = |name, value: &Option<Cow<'_, str>>| Some((name, value.as_deref()?.to_owned()));
        let fields = [
            field("Message", &message.message),
            field("MessageId", &message.id),
            field("Subject", &message.subject),
            field("Timestamp", &message.timestamp),
            field("TopicArn", &message.topic),
            field("Type", &message.kind),
        ];
        let fields = fields.each_ref().map(|field| Some((field.as_ref()?.0, &*field.as_ref()?.1)));
        lines(&fields)
    }

    #[test]
    fn no_two_messages_have_the_same_signed_text() {
        let (mut ruled, mut open) = (HashMap::new(), HashMap::new());
        let mut accepted = 0;
        all_small(|message| {
            *open.entry(unruled(message)).or_insert(0) += 1;
            if let Ok(fields) = message.signed() {
                accepted += 1;
                *ruled.entry(lines(&fields)).or_insert(0) += 1;
            }
        });
        assert!(accepted > 1000, "{accepted}");
        assert_eq!(ruled.values().filter(|count| **count > 1).count(), 0);
        assert!(open.values().any(|count| *count > 1), "control: the rule is what does it");
    }
}
