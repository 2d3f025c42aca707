//! The written-out encoding against `apache_avro`: the same bytes, the same records, the same refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use apache_avro::{
    Schema, from_value, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter,
};
use proptest::prelude::*;
use sluice_schemas::{wire, *};

/// Records of every shape from one number: SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound) as usize
    }

    fn bool(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Every length of a varint is as likely.
    fn long(&mut self) -> i64 {
        let bits = self.below(64);
        (self.next() as i64) >> bits
    }

    /// A time that readers have a value for; others are written as the nearest one.
    fn time(&mut self) -> i64 {
        self.long() % 62_135_596_800_000
    }

    fn int(&mut self) -> i32 {
        let bits = self.below(32);
        (self.next() as i32) >> bits
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Around 64 and 8192 the length takes another byte.
        let length = match self.below(16) {
            0 => 0,
            1 => 63 + self.below(2),
            2 => 8191 + self.below(2),
            _ => self.below(40),
        };
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let length = if self.below(40) == 0 { 8200 } else { self.below(24) };
        (0..length)
            .map(|_| {
                let alphabet = ['a', 'Z', '0', ':', '\0', 'ß', '€', '😀'];
                alphabet[self.below(alphabet.len() as u64)]
            })
            .collect()
    }

    fn maybe<T>(&mut self, draw: impl FnOnce(&mut Draw) -> T) -> Option<T> {
        self.bool().then(|| draw(self))
    }

    fn many<T>(&mut self, mut draw: impl FnMut(&mut Draw) -> T) -> Vec<T> {
        // From 64 on the count takes another byte.
        let length = if self.below(30) == 0 { 70 } else { self.below(5) };
        (0..length).map(|_| draw(self)).collect()
    }

    fn class(&mut self) -> FailureClass {
        [FailureClass::Permanent, FailureClass::Transient][self.below(2)]
    }

    fn raw(&mut self) -> RawWebhook {
        RawWebhook {
            event_key: self.text(),
            source: self.text(),
            provider: self.text(),
            event_id: self.text(),
            event_type: self.text(),
            object_id: self.maybe(Draw::text),
            tenant: self.maybe(Draw::text),
            livemode: self.maybe(Draw::bool),
            occurred_at: self.maybe(Draw::time),
            received_at: self.time(),
            request_id: self.text(),
            origin: [Origin::Webhook, Origin::Reconcile, Origin::Upload, Origin::Manual]
                [self.below(4)],
            method: self.text(),
            url: self.text(),
            remote_address: self.text(),
            headers: self.many(|draw| Header { name: draw.text(), value: draw.bytes() }),
            body: self.bytes(),
            batch_index: self.int(),
            batch_size: self.int(),
            event_body: self.maybe(Draw::bytes),
            verdict: Verdict {
                scheme: self.text(),
                secret: self.text(),
                signed_at: self.maybe(Draw::time),
            },
        }
    }

    fn processed(&mut self) -> ProcessedEvent {
        ProcessedEvent {
            event_key: self.text(),
            source: self.text(),
            provider: self.text(),
            event_id: self.text(),
            event_type: self.text(),
            kind: self.text(),
            object_id: self.maybe(Draw::text),
            tenant: self.maybe(Draw::text),
            livemode: self.maybe(Draw::bool),
            amount_minor: self.maybe(Draw::long),
            currency: self.maybe(Draw::text),
            status: self.maybe(Draw::text),
            customer: self.maybe(Draw::text),
            reference: self.maybe(Draw::text),
            provider_version: self.maybe(Draw::text),
            occurred_at: self.maybe(Draw::time),
            received_at: self.time(),
            processed_at: self.time(),
            raw_partition: self.int(),
            raw_offset: self.long(),
            replay: self.bool(),
            attempts: self.int(),
            request_id: self.text(),
            payload: self.bytes(),
            hydrated: self.maybe(Draw::bytes),
        }
    }

    fn failed(&mut self) -> FailedEvent {
        FailedEvent {
            event_key: self.text(),
            chain_id: self.text(),
            source: self.maybe(Draw::text),
            provider: self.maybe(Draw::text),
            event_type: self.maybe(Draw::text),
            request_id: self.maybe(Draw::text),
            raw_partition: self.int(),
            raw_offset: self.long(),
            raw_timestamp: self.time(),
            replay: self.bool(),
            attempt: self.int(),
            failed_at: self.time(),
            errors: self.many(|draw| AttemptError {
                attempt: draw.int(),
                at: draw.time(),
                class: draw.class(),
                code: draw.text(),
                message: draw.text(),
                retry_after_ms: draw.maybe(Draw::long),
            }),
            raw_key: self.maybe(Draw::bytes),
            raw_value: self.maybe(Draw::bytes),
        }
    }

    fn letter(&mut self) -> DeadLetter {
        let reasons = [
            DeadReason::Exhausted,
            DeadReason::Permanent,
            DeadReason::Undecodable,
            DeadReason::UnknownTier,
        ];
        let reason = reasons[self.below(4)];
        let found = (&*self.text(), self.int(), self.long());
        DeadLetter::bury(self.failed(), reason, self.time(), found)
    }

    fn rejected(&mut self) -> Rejected {
        Rejected {
            source: self.text(),
            provider: self.text(),
            reason: self.text(),
            detail: self.text(),
            received_at: self.time(),
            request_id: self.text(),
            remote_address: self.text(),
            header_names: self.many(Draw::text),
            body_bytes: self.long(),
        }
    }
}

const ID: u32 = 7;

fn store<T: SchemaRecord>() -> SchemaStore {
    let store = SchemaStore::new();
    store.insert(ID, T::KIND.schema_text());
    store
}

fn library_write<T: SchemaRecord>(record: &T) -> Vec<u8> {
    GenericDatumWriter::builder(T::KIND.schema())
        .human_readable(false)
        .build()
        .and_then(|writer| writer.write_ser_to_vec(record))
        .unwrap()
}

/// `None` where the library refuses, or where bytes are left.
fn library_read<T: SchemaRecord>(mut datum: &[u8]) -> Option<T> {
    let reader =
        GenericDatumReader::builder(T::KIND.schema()).human_readable(false).build().unwrap();
    let record = reader.read_deser::<T>(&mut datum).ok()?;
    datum.is_empty().then_some(record)
}

/// As [`library_read`], the way that other versions of a schema take.
fn library_resolve<T: SchemaRecord>(mut datum: &[u8]) -> Option<T> {
    let reader = GenericDatumReader::builder(T::KIND.schema()).build().unwrap();
    let record = from_value(&reader.read_value(&mut datum).ok()?).ok()?;
    datum.is_empty().then_some(record)
}

fn agree<T: SchemaRecord + PartialEq + std::fmt::Debug>(record: &T) -> Vec<u8> {
    let value = Encoder::<T>::new(ID).encode(record);
    assert_eq!(value[wire::HEADER_LEN..], library_write(record));
    assert_eq!(store::<T>().decode::<T>(Some(&value)).as_ref(), Ok(record));
    value
}

/// Harms a datum in some way.
fn harm(draw: &mut Draw, value: &mut Vec<u8>) {
    let at = wire::HEADER_LEN + draw.below((value.len() - wire::HEADER_LEN) as u64);
    match draw.below(4) {
        0 => value.truncate(at),
        1 => value[at] ^= 1 << draw.below(8),
        2 => value[at] = draw.next() as u8,
        _ => {
            value.remove(at);
        }
    }
}

fn agree_when_harmed<T: SchemaRecord + PartialEq + std::fmt::Debug>(
    draw: &mut Draw,
    mut value: Vec<u8>,
) -> bool {
    harm(draw, &mut value);
    let own = store::<T>().decode::<T>(Some(&value)).ok();
    assert_eq!(own, library_read::<T>(&value[wire::HEADER_LEN..]), "{value:?}");
    own.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn the_same_bytes_and_records_as_the_library(seed: u64) {
        let mut draw = Draw(seed);
        agree(&draw.raw());
        agree(&draw.processed());
        agree(&draw.failed());
        agree(&draw.letter());
        agree(&draw.rejected());
    }

    #[test]
    fn the_same_refusals_as_the_library(seed: u64) {
        let mut draw = Draw(seed);
        for _ in 0..4 {
            let value = agree(&draw.raw());
            agree_when_harmed::<RawWebhook>(&mut draw, value);
            let value = agree(&draw.processed());
            agree_when_harmed::<ProcessedEvent>(&mut draw, value);
            let value = agree(&draw.failed());
            agree_when_harmed::<FailedEvent>(&mut draw, value);
            let value = agree(&draw.letter());
            agree_when_harmed::<DeadLetter>(&mut draw, value);
            let value = agree(&draw.rejected());
            agree_when_harmed::<Rejected>(&mut draw, value);
        }
    }

    #[test]
    fn an_event_is_what_its_record_says(seed: u64) {
        let mut draw = Draw(seed);
        let raw = draw.raw();
        let mut value = agree(&raw);
        let store = store::<RawWebhook>();
        prop_assert_eq!(store.decode_raw(Some(&value)), Ok(RawEvent::from(raw)));
        harm(&mut draw, &mut value);
        let whole = store.decode::<RawWebhook>(Some(&value)).map(RawEvent::from);
        prop_assert_eq!(store.decode_raw(Some(&value)), whole);
    }

    #[test]
    fn garbage_is_refused_like_the_library_does(datum: Vec<u8>) {
        let mut value = wire::header(ID).to_vec();
        value.extend_from_slice(&datum);
        let own = store::<Rejected>().decode::<Rejected>(Some(&value)).ok();
        prop_assert_eq!(own, library_read::<Rejected>(&datum));
        prop_assert!(store::<RawWebhook>().decode_raw(Some(&value)).is_err());
    }
}

#[test]
fn both_outcomes_of_harm_occur() {
    let mut draw = Draw(1);
    let mut sound = 0;
    for _ in 0..400 {
        let value = agree(&draw.raw());
        sound += u32::from(agree_when_harmed::<RawWebhook>(&mut draw, value));
    }
    assert!((20..380).contains(&sound), "{sound} of 400 harmed records were still sound");
}

#[test]
fn arrays_in_several_blocks_are_read() {
    let record = Rejected { header_names: vec!["a".into(), "b".into()], ..Draw(3).rejected() };
    let whole = agree(&record);
    let one = [4, 2, b'a', 2, b'b', 0];
    let at = whole.windows(6).position(|window| window == one).unwrap();
    // Two blocks; two, of which one tells its size too; one of 2^63 elements that are not there.
    for (blocks, sound) in [
        (&[2, 2, b'a', 2, 2, b'b', 0][..], true),
        (&[2, 2, b'a', 1, 4, 2, b'b', 0][..], true),
        (&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 4, 2, b'a', 0][..], false),
    ] {
        let mut value = whole.clone();
        value.splice(at..at + one.len(), blocks.iter().copied());
        let own = store::<Rejected>().decode::<Rejected>(Some(&value)).ok();
        assert_eq!(own.as_ref() == Some(&record), sound, "{blocks:?}");
        assert_eq!(own, library_read::<Rejected>(&value[wire::HEADER_LEN..]), "{blocks:?}");
        assert_eq!(
            own.is_some(),
            library_resolve::<Rejected>(&value[wire::HEADER_LEN..]).is_some(),
            "{blocks:?}"
        );
    }
}

/// What is not exactly this build's schema must not be read as if it were.
#[test]
fn other_versions_take_the_way_through_the_library() {
    let text = RecordKind::Rejected.schema_text();
    let swapped = text.replace("\"reason\"", "\"x\"").replace("\"detail\"", "\"reason\"");
    let swapped = Schema::parse_str(&swapped.replace("\"x\"", "\"detail\"")).unwrap();
    let record = Draw(5).rejected();
    let value = agree(&record);
    let other = SchemaStore::new();
    other.insert(ID, &serde_json::to_string(&swapped).unwrap());
    let resolved = other.decode::<Rejected>(Some(&value)).unwrap();
    assert_eq!((&resolved.reason, &resolved.detail), (&record.detail, &record.reason));

    let text = RecordKind::RawWebhook.schema_text();
    let symbols = "\"symbols\": [\"webhook\", \"reconcile\"";
    assert!(text.contains(symbols));
    let turned = text.replace(symbols, "\"symbols\": [\"reconcile\", \"webhook\"");
    let raw = RawWebhook { origin: Origin::Webhook, ..Draw(6).raw() };
    let value = agree(&raw);
    other.insert(ID, &turned);
    let resolved = other.decode::<RawWebhook>(Some(&value)).unwrap();
    assert_eq!(resolved.origin, Origin::Reconcile);
    assert_eq!(other.decode_raw(Some(&value)), Ok(RawEvent::from(resolved)));
}
