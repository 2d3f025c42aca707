//! docs/providers.md, written from what the providers say about themselves.
//!
//! Nothing in that file is written by hand, so it cannot fall behind the code: a test compares the two and
//! says how to write it anew.
//!
//! Two facts are not fields of [`ProviderInfo`] but follow from it. A setting is required when its summary
//! says "required"; [`EXAMPLES`] has a value for each of those, with which the provider must build. Whether
//! a provider needs a secret is asked by building it without one.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::vectors::DIFFERENT_BY_CHOICE;
use crate::{
    AddressList, Api, BuildError, Condition, Credentials, KINDS, Mapping, ProviderInfo,
    SettingInfo, SourceSpec, build, known_providers,
};

/// Example values of required settings, as TOML (which for strings and lists of them is JSON as well).
const EXAMPLES: &[(&str, &str)] = &[
    ("header", r#""x-signature""#),
    ("public_url", r#""https://pay.example.com/webhooks/shop""#),
    ("public_key", r#""6z4fg2kq8pdt7m9x""#),
    ("webhook_id", r#""8PT597110X687430LKGECATA""#),
    ("topics", r#"["arn:aws:sns:eu-west-1:123456789012:payments"]"#),
    ("audience", r#""https://pay.example.com/webhooks/shop""#),
    ("service_accounts", r#"["pubsub-push@shop.iam.gserviceaccount.com"]"#),
];

const INTRODUCTION: &str = "\
# Providers

<!-- Generated from the code. Do not edit: UPDATE_DOCS=1 cargo test -p sluice-providers --test documentation -->

What sluice knows about each sender of webhooks: how its signature is checked, where the identity of an event
comes from, how it is answered, and what its event types are called in common terms. `sluice providers NAME`
prints the same for one provider.
";

const RULES: &str = "
## Rules for all of them

* The signature is checked over the bytes as received, before anything in them is believed. Signatures are decoded
  strictly (one spelling of each counts) and compared in constant time.
* Several secrets of a source are all live, so that a secret is replaced without a gap: add the new one, change it at
  the provider, remove the old one. The first one signs samples.
* Where a time is signed it may lie `tolerance` from now, in both directions, by default 300 s (where a provider needs
  another default, its notes say so). It is judged after the signature.
* A signature header that occurs several times with different values is refused, unless the provider's scheme says
  otherwise.
* Where an event has no ID of its own, it goes by the SHA-256 digest of its bytes. A redelivery has the same.
* Amounts are integers in minor units of the currency's ISO 4217 exponent: yen have none, Kuwaiti dinars three
  decimals. No amount passes through floating point.
* An event type that is not in the table below comes out as `provider.<type>`. Of several types that announce one fact
  one is mapped, so that adding up `payment.succeeded` counts each payment once.
";

/// A case for the documentation, and its answer.
const CASE: (&str, &str) = (
    r#"{"id": "hello", "provider": "stripe", "secret": "whsec_example", "url": "https://pay.example.com/webhooks/shop", "headers": [["Stripe-Signature", "t=1767225600,v1=7e1221bbeef3e6019acbcaa428ff137c981b94a546c38a5bbb7bd077fbd5f223"]], "body": "{\"id\":\"evt_1\",\"type\":\"payout.paid\"}", "now": 1767225600}"#,
    r#"{"id":"hello","verdict":"accept","reason":"stripe-v1","event_id":"evt_1","event_type":"payout.paid"}"#,
);

const VECTORS: &str = "
## Checking it against other implementations

`sluice verify --vectors FILE` judges signature cases, one JSON object a line, with the code the gateway uses. Each line
brings its own configuration and clock; neither a configuration file nor a network nor Kafka is needed. This line

```json
{case}
```

is answered by this one:

```json
{answer}
```

Read are `id`, `provider`, `secret` (or a list), `method`, `url`, `headers` (a list of name and value), `body`, `now` (Unix
seconds), `tolerance_s` and `config`, whose keys are the provider's own. With `--expect` the verdicts are compared with the
`expect` of each line; lines with `must: false` are a choice and do not count as failures.
";

/// The settings that a source of this provider cannot do without.
pub fn required_settings(info: &ProviderInfo) -> impl Iterator<Item = &'static SettingInfo> {
    let settings: &'static [SettingInfo] = info.settings;
    settings.iter().filter(|setting| is_required(setting))
}

/// Whether a source must have this setting.
pub fn is_required(setting: &SettingInfo) -> bool {
    let words = setting.summary.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.into_iter().any(|word| word == "required" || word == "Required")
}

/// An example of a source's settings table with the required ones in it.
pub fn example_settings(info: &ProviderInfo) -> Value {
    let values = required_settings(info).map(|setting| {
        let value = serde_json::from_str(example(setting)).unwrap_or_default();
        (setting.name.to_owned(), value)
    });
    Value::Object(values.collect::<Map<_, _>>())
}

/// Whether a source of this provider needs a secret: found out by building one without.
pub fn needs_secret(info: &ProviderInfo) -> bool {
    let settings = example_settings(info);
    let spec = SourceSpec {
        name: "example",
        provider: info.name,
        secrets: Vec::new(),
        tolerance: None,
        settings: &settings,
    };
    matches!(build(spec), Err(BuildError::NoSecret { .. }))
}

/// The lines of `sluice.toml` that make a source of this provider.
pub fn example_source(info: &ProviderInfo) -> String {
    let mut toml = format!("[[source]]\nname = \"shop\"\nprovider = \"{}\"\n", info.name);
    if needs_secret(info) {
        toml.push_str("secrets = [\"env:SHOP_SECRET\"]\n");
    }
    let mut required = required_settings(info).peekable();
    if required.peek().is_some() {
        toml.push_str("\n[source.settings]\n");
    }
    for setting in required {
        let _ = writeln!(toml, "{} = {}", setting.name, example(setting));
    }
    toml
}

fn example(setting: &SettingInfo) -> &'static str {
    let known = EXAMPLES.iter().find(|(name, _)| *name == setting.name);
    known.map_or("\"…\"", |(_, value)| value)
}

/// When a row of a mapping table holds, in words; empty for always.
pub fn conditions(mapping: &Mapping) -> String {
    joined(mapping.when.iter().map(Condition::to_string), " and ")
}

/// The whole of docs/providers.md.
pub fn markdown() -> String {
    let providers = known_providers();
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| Provider | `provider =` | Secret | Kinds | API | Addresses |\n|---|---|---|---|---|---|\n");
    for info in providers {
        let _ = writeln!(
            text,
            "| [{title}](#{anchor}) | `{name}` | {secret} | {kinds} | {api} | {addresses} |",
            title = cell(info.title),
            anchor = anchor(info),
            name = info.name,
            secret = if needs_secret(info) { "yes" } else { "no" },
            kinds = kinds(info),
            api = if info.api.is_some() { "yes" } else { "" },
            addresses = joined(info.addresses.iter().map(|list| list.name.to_owned()), ", "),
        );
    }
    text.push_str(
        "\nSecret: whether a source needs one. Kinds: how many of the canonical kinds its events become. API: events are\n\
         completed from it (`[source.hydrate]`). Addresses: lists for `allow_provider_ips`.\n",
    );
    text.push_str(RULES);
    let _ = writeln!(text, "\nThe canonical kinds: {}.", joined(KINDS.iter().map(code), ", "));
    text.push_str(&VECTORS.replace("{case}", CASE.0).replace("{answer}", CASE.1));
    for info in providers {
        provider(&mut text, info);
    }
    different(&mut text);
    text
}

/// Every canonical kind of a provider, counted once.
fn kinds(info: &ProviderInfo) -> usize {
    KINDS.iter().filter(|kind| info.mappings.iter().any(|row| row.kind == **kind)).count()
}

/// How headings are turned into anchors: lower case, blanks become hyphens, punctuation goes.
fn anchor(info: &ProviderInfo) -> String {
    let lower = info.title.to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn provider(text: &mut String, info: &ProviderInfo) {
    let secret = if needs_secret(info) { "Secret" } else { "Secret (optional, or none)" };
    let _ = write!(
        text,
        "\n## {}\n\n{}.\n\n* **Signature:** {}.\n* **{secret}:** {}.\n* **Identity:** {}.\n* **Answer:** {}.\n",
        info.title,
        sentence(info.summary),
        sentence(info.scheme),
        sentence(info.secret),
        sentence(info.identity),
        sentence(info.answer),
    );
    for note in info.notes {
        let _ = writeln!(text, "* {}.", capitalised(sentence(note)));
    }
    let _ = write!(text, "\n```toml\n{}```\n", example_source(info));
    if !info.settings.is_empty() {
        text.push_str("\n| Setting | Meaning |\n|---|---|\n");
        for setting in info.settings {
            let _ = writeln!(text, "| `{}` | {} |", setting.name, cell(setting.summary));
        }
    }
    if let Some(api) = &info.api {
        describe_api(text, api);
    }
    for list in info.addresses {
        describe_addresses(text, list);
    }
    if info.mappings.is_empty() {
        text.push_str("\nNo event type has a canonical kind: all come out as `provider.<type>`, or as the payload's pointers say.\n");
    } else {
        text.push_str("\n| Type | When | Canonical kind | Amount |\n|---|---|---|---|\n");
        for row in info.mappings {
            let _ = writeln!(
                text,
                "| `{}` | {} | `{}` | {} |",
                cell(row.event_type),
                cell(&conditions(row)),
                row.kind,
                joined(row.amount.iter().map(code), ", else "),
            );
        }
    }
    let _ = writeln!(
        text,
        "\nSamples (`sluice send`): {}.",
        joined(info.samples.iter().map(code), ", ")
    );
}

fn describe_api(text: &mut String, api: &Api) {
    let _ = write!(text, "\n**API:** {}, at `{}`", sentence(api.summary), api.base_url);
    if let Some(test) = api.test_base_url {
        let _ = write!(text, " (test: `{test}`)");
    }
    let credentials = match api.credentials {
        Credentials::Bearer { token } => format!("A bearer token: {}", sentence(token)),
        Credentials::ClientCredentials { token_path, client } => {
            format!("A token from `{token_path}` for a client ID and secret: {}", sentence(client))
        }
    };
    let _ = writeln!(text, ". {credentials}.");
    for (name, value) in api.headers {
        let _ = writeln!(text, "Sent with every request: `{name}: {value}`.");
    }
}

fn describe_addresses(text: &mut String, list: &AddressList) {
    let _ = writeln!(
        text,
        "\n**Addresses** `{}` (<{}>, as of {}): {}.",
        list.name,
        list.url,
        list.as_of,
        joined(list.networks.iter().map(code), ", "),
    );
}

fn different(text: &mut String) {
    text.push_str(
        "\n## Vectors decided differently\n\nOf the published and derived signature cases that the tests hold, every one marked `must` is decided as it says.\n",
    );
    if DIFFERENT_BY_CHOICE.is_empty() {
        text.push_str("So is every other.\n");
        return;
    }
    text.push_str(
        "These, on which implementations differ, are decided otherwise:\n\n| Case | Why |\n|---|---|\n",
    );
    for (id, reason) in DIFFERENT_BY_CHOICE {
        let _ = writeln!(text, "| `{id}` | {} |", cell(reason));
    }
}

/// Without the point at its end, which its place supplies.
fn sentence(text: &str) -> &str {
    text.trim_end_matches('.')
}

/// With a capital at its beginning.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A text for a table, whose columns end at a bar.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn code(text: &&'static str) -> String {
    format!("`{text}`")
}

fn joined(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn required_is_a_word_of_the_summary() {
        let required = |summary| is_required(&SettingInfo { name: "a", summary });
        assert!(required("the header; required") && required("Required. The URL"));
        assert!(!required("not needed"));
    }

    #[test]
    fn the_case_of_the_documentation_is_answered_as_it_says() {
        let case: crate::vectors::Vector = serde_json::from_str(CASE.0).unwrap();
        assert_eq!(serde_json::to_string(&case.judge()).unwrap(), CASE.1);
    }

    #[test]
    fn a_bar_does_not_end_a_column() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
