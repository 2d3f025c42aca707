//! docs/providers.md is what the code says, and what the code says of each provider is true.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use common::{Configuration, NOW_MS, configurations, request, sample_headers, sample_url};
use serde_json::{Value, json};
use sluice_providers::{
    BuildError, Identified, KINDS, Normalised, Payload, ProviderInfo, Request, SampleSpec, Secret,
    Source, SourceSpec, build, documentation, known_providers, vectors::DIFFERENT_BY_CHOICE,
};

#[test]
fn the_file_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let wanted = documentation::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differing = found.lines().zip(wanted.lines()).position(|(old, new)| old != new);
    assert!(
        found == wanted,
        "docs/providers.md differs from the code (first at line {}); run `UPDATE_DOCS=1 cargo test -p sluice-providers --test documentation`",
        differing.unwrap_or_else(|| found.lines().count().min(wanted.lines().count())) + 1,
    );
}

#[test]
fn every_provider_is_described() {
    let mut names = Vec::new();
    for info in known_providers() {
        let name = info.name;
        for (field, text) in [
            ("name", name),
            ("title", info.title),
            ("summary", info.summary),
            ("secret", info.secret),
            ("scheme", info.scheme),
            ("identity", info.identity),
            ("answer", info.answer),
        ] {
            assert_eq!(text, text.trim(), "{name}: {field}");
            assert!(!text.is_empty() && !text.contains('\n'), "{name}: {field} is {text:?}");
        }
        assert!(info.notes.iter().all(|note| !note.trim().is_empty()), "{name}: an empty note");
        assert!(info.settings.iter().all(|setting| !setting.summary.is_empty()), "{name}");
        assert!(!info.samples.is_empty(), "{name} has no samples");
        distinct(name, info.samples.iter().copied());
        distinct(name, info.settings.iter().map(|setting| setting.name));
        for list in info.addresses {
            assert!(list.url.starts_with("https://"), "{name}: {}", list.url);
            assert!(list.as_of.parse::<calendar::Day>().is_ok(), "{name}: {}", list.as_of);
            assert!(!list.networks.is_empty(), "{name}: {}", list.name);
            distinct(name, list.networks.iter().copied());
        }
        names.push(name);
    }
    distinct("the list of providers", names.into_iter());
    for (id, reason) in DIFFERENT_BY_CHOICE {
        assert!(reason.len() > 20, "{id}: {reason:?} explains nothing");
    }
}

fn distinct<'a>(name: &str, items: impl Iterator<Item = &'a str>) {
    let mut items: Vec<&str> = items.collect();
    items.sort_unstable();
    let repeated = items.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(repeated.is_none(), "{name}: {repeated:?}");
}

/// A day as the address lists write it: `YYYY-MM-DD`.
mod calendar {
    pub struct Day;

    impl std::str::FromStr for Day {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let parts: Vec<&str> = text.split('-').collect();
            let [year, month, day] = parts[..] else { return Err(()) };
            let digits = |part: &str, count: usize| {
                part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit())
            };
            let whole = digits(year, 4) && digits(month, 2) && digits(day, 2);
            let sound = whole && ("01"..="12").contains(&month) && ("01"..="31").contains(&day);
            if sound { Ok(Self) } else { Err(()) }
        }
    }
}

/// The settings said to be required are those without which a source cannot be built.
#[test]
fn a_source_of_the_required_settings_alone_is_complete() {
    for info in known_providers() {
        let settings = documentation::example_settings(info);
        let without_secret = |settings: &Value| {
            let secrets = Vec::new();
            let provider = info.name;
            build(SourceSpec { name: "shop", provider, secrets, tolerance: None, settings })
        };
        match without_secret(&settings) {
            Ok(_) | Err(BuildError::NoSecret { .. }) => {}
            Err(error) => panic!(
                "{error}: a required setting's summary must say \"required\", and documentation.rs must have an example of it that {} takes",
                info.name
            ),
        }
        for setting in documentation::required_settings(info) {
            let mut less = settings.clone();
            less.as_object_mut().unwrap().remove(setting.name);
            let error = without_secret(&less).unwrap_err();
            let told = matches!(&error, BuildError::BadSetting { key, .. } if *key == format!("settings.{}", setting.name));
            assert!(told, "{} is said to be required: {error}", setting.name);
        }
    }
}

fn built(configuration: &Configuration, settings: &Value) -> Result<Source, BuildError> {
    let secret = configuration.secret.to_string();
    let secrets = if secret.is_empty() { Vec::new() } else { vec![Secret::new("a", secret)] };
    let provider = configuration.provider;
    build(SourceSpec { name: "shop", provider, secrets, tolerance: None, settings })
}

/// Each documented setting is read: a value of no sensible type is refused with the setting's name. A
/// setting that is not documented is refused as unknown.
#[test]
fn settings_documented_are_those_accepted() {
    for info in known_providers() {
        let configuration = of(info).next().unwrap();
        let with = |key: &str, value: Value| {
            let mut settings = match &configuration.settings {
                Value::Null => json!({}),
                settings => settings.clone(),
            };
            settings[key] = value;
            built(configuration, &settings)
        };
        assert!(built(configuration, &configuration.settings).is_ok(), "control: {}", info.name);
        for setting in info.settings {
            let error = with(setting.name, json!({"no": ["such", "type"]})).err();
            let Some(BuildError::BadSetting { key, .. }) = &error else {
                panic!("{}: settings.{} is not read: {error:?}", info.name, setting.name);
            };
            assert_eq!(key, &format!("settings.{}", setting.name), "{}", info.name);
        }
        let unknown = with("surely_no_setting", json!("x"));
        assert!(matches!(unknown, Err(BuildError::UnknownSetting { .. })), "{}", info.name);
    }
}

/// The configurations of the tests for a provider.
fn of(info: &ProviderInfo) -> impl Iterator<Item = &'static Configuration> {
    use std::sync::LazyLock;
    static ALL: LazyLock<Vec<Configuration>> = LazyLock::new(configurations);
    ALL.iter().filter(|configuration| configuration.provider == info.name)
}

fn sample(source: &Source, event_type: &str) -> Option<(Identified, Normalised)> {
    let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
    let sample = source.sample(&spec)?;
    let (headers, url) = (sample_headers(&sample), sample_url(&sample));
    let request = Request { url: &url, ..request(&headers, &sample.body) };
    let event = source.identify(&request).into_iter().next().unwrap();
    let normalised = source.normalise(&Payload {
        event_id: &event.event_id,
        event_type: &event.event_type,
        object_id: event.object_id.as_deref(),
        body: &event.body.bytes(&sample.body),
    });
    Some((event, normalised))
}

/// A sample becomes what the mapping table says of its type. Where settings decide which of several types
/// stands for a fact, it does so in one of the configurations and passes through in the others.
#[test]
fn samples_are_normalised_as_the_table_says() {
    for info in known_providers() {
        let name = info.name;
        let sources: Vec<Source> = of(info).map(Configuration::source).collect();
        for event_type in info.samples {
            let samples: Vec<_> =
                sources.iter().filter_map(|source| sample(source, event_type)).collect();
            assert!(!samples.is_empty(), "{name} has no sample of {event_type} anywhere");
            let mut mapped = false;
            for (event, normalised) in &samples {
                let kind = normalised.kind.as_str();
                assert_eq!(event.object_id, normalised.object_id, "{name}: {event_type}");
                let rows = info.mappings.iter().filter(|row| row.event_type == event.event_type);
                let kinds: Vec<&str> = rows.map(|row| row.kind).collect();
                let passed = kind == format!("provider.{}", event.event_type);
                assert!(
                    passed || info.mappings.is_empty() || kinds.contains(&kind),
                    "{name}: {event_type} became {kind}, and the table has {kinds:?}"
                );
                // What is certain only after asking the API has its rows for then.
                mapped |= !passed || kinds.is_empty() || normalised.needs_hydration;
            }
            assert!(mapped, "{name}: {event_type} passes through, and the table has a kind for it");
        }
    }
}

#[test]
fn every_canonical_kind_is_reached_by_some_provider() {
    let unreached: Vec<&&str> = KINDS
        .iter()
        .filter(|kind| {
            let mut mappings = known_providers().iter().flat_map(|info| info.mappings);
            mappings.all(|row| row.kind != **kind)
        })
        .collect();
    assert!(unreached.is_empty(), "no provider has {unreached:?}");
}
