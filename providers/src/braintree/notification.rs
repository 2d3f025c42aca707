//! Reading a Braintree document: `notification` with `kind`, `timestamp` and one subject.
//!
//! A DTD is refused by the parser, so no entity can expand; the number of nodes is bounded, and
//! nothing here recurses. Names are written with dashes or underscores (the gateway and the SDKs'
//! test documents differ), which are read as the same.

use roxmltree::{Document, Node, ParsingOptions};

use super::mapping;
use crate::{Condition, Normalised, money};

/// Most nodes of a document, several times the largest subscription with its transactions.
const MAX_NODES: u32 = 50_000;

/// A well-formed document whose root is `notification`.
pub(super) struct Notification<'a>(Document<'a>);

impl<'a> Notification<'a> {
    pub(super) fn parse(document: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(document).ok()?;
        let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options).ok()?;
        document.root_element().has_tag_name("notification").then_some(Self(document))
    }

    fn root_text(&self, path: &str) -> Option<String> {
        text(self.0.root_element(), path)
    }

    pub(super) fn kind(&self) -> Option<String> {
        self.root_text("kind")
    }

    /// The merchant that an event of a platform belongs to.
    pub(super) fn tenant(&self) -> Option<String> {
        self.root_text("source_merchant_id")
    }

    pub(super) fn occurred_at_ms(&self) -> Option<i64> {
        let time: jiff::Timestamp = self.root_text("timestamp")?.parse().ok()?;
        Some(time.as_millisecond())
    }

    fn subject(&self) -> Option<Node<'_, 'a>> {
        child(self.0.root_element(), "subject")?.children().find(Node::is_element)
    }

    /// A text below the subject, by names joined with dots.
    fn get(&self, path: &str) -> Option<String> {
        text(self.subject()?, path)
    }

    fn subject_is(&self, name: &str) -> bool {
        self.subject().is_some_and(|subject| same_name(subject.tag_name().name(), name))
    }

    /// Where the fields of the subject's transaction are: itself, or below it.
    fn transaction_path(&self) -> &'static str {
        if self.subject_is("transaction") {
            ""
        } else if self.subject_is("subscription") {
            // The newest one comes first.
            "transactions.transaction."
        } else {
            "transaction."
        }
    }

    fn of_transaction(&self, field: &str) -> Option<String> {
        self.get(&format!("{}{field}", self.transaction_path()))
    }

    /// The payment an event is part of, else its subject. Every event of a subscription names the
    /// subscription, its charges too: they announce an invoice, and must stay in order with the rest.
    pub(super) fn object_id(&self) -> Option<String> {
        if self.subject_is("transaction") {
            return self.get("refunded_transaction_id").or_else(|| self.get("id"));
        }
        if self.subject_is("subscription") {
            return self.get("id");
        }
        self.get("transaction.id").or_else(|| self.get("id")).or_else(|| self.get("payment_id"))
    }

    /// What tells this event from every other; `None` where too little of it is there.
    pub(super) fn identity(&self) -> Option<String> {
        let subject = self.subject()?.tag_name().name();
        let id = self.get("id").or_else(|| self.get("payment_id"))?;
        let (kind, time) = (self.kind()?, self.root_text("timestamp")?);
        let status = self.get("status").unwrap_or_default();
        let transaction = self.of_transaction("id").unwrap_or_default();
        // A text of the document could hold a line break, but not a NUL.
        Some([&kind, subject, &id, &status, &transaction, &time].join("\0"))
    }

    pub(super) fn normalise(&self, event_type: &str) -> Normalised {
        let kind = self.kind();
        let event_type = kind.as_deref().unwrap_or(event_type);
        let mapping = mapping::find(event_type, |condition| self.meets(condition));
        let mut normalised = Normalised::unmapped(event_type);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let amount = mapping.map_or(&["amount"][..], |mapping| mapping.amount);
        let amount = amount.iter().find_map(|path| self.get(path));
        let currency = self.currency();
        Normalised {
            object_id: self.object_id(),
            amount_minor: amount
                .zip(currency.as_deref())
                .and_then(|(amount, currency)| money::minor_units(&amount, currency)),
            currency,
            status: self.get("status"),
            customer: self.of_transaction("customer.id"),
            reference: self.of_transaction("order_id"),
            occurred_at_ms: self.occurred_at_ms(),
            ..normalised
        }
    }

    fn currency(&self) -> Option<String> {
        let code = self
            .get("currency_iso_code")
            .or_else(|| self.of_transaction("currency_iso_code"))
            .or_else(|| self.get("merchant_account.currency_iso_code"))?;
        let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_code.then(|| code.to_ascii_uppercase())
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Is(path, value) | Condition::Became(path, value) => {
                self.get(path).as_deref() == Some(value)
            }
            Condition::Absent(path) => self.get(path).is_none(),
            Condition::Present(path) => self.get(path).is_some(),
        }
    }
}

fn same_name(found: &str, name: &str) -> bool {
    let underscored = |byte: u8| if byte == b'-' { b'_' } else { byte };
    found.len() == name.len() && found.bytes().zip(name.bytes()).all(|(f, n)| underscored(f) == n)
}

fn child<'d, 'a>(node: Node<'d, 'a>, name: &str) -> Option<Node<'d, 'a>> {
    node.children().find(|child| child.is_element() && same_name(child.tag_name().name(), name))
}

/// The text at a path, trimmed; `None` where it is empty.
fn text(node: Node<'_, '_>, path: &str) -> Option<String> {
    let node = path.split('.').try_fold(node, child)?;
    let text = node.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
