//! `sluice verify` as scripts and operators see it: verdicts, explanations, exit status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
};

use common::{
    CONFIG, SECRET, SIGNED_AT, folder, hmac, run, signed_request, sluice, status, stderr, stdout,
};
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn verify_accepts_what_is_signed_and_says_what_did_not_match() {
    let folder = folder();
    let body = r#"{"id":"evt_7","object":"event","type":"charge.refunded","data":{"object":{"id":"ch_1"}}}"#;
    let file = folder.path().join("saved.http");
    let verify = |extra: &[&str]| {
        let mut arguments = vec!["verify", "--source", "shop", "--request", "saved.http"];
        arguments.extend(extra);
        run(folder.path(), &arguments)
    };
    for end in ["\n", "\r\n"] {
        fs::write(&file, signed_request(body, end)).unwrap();
        let accepted = verify(&["--now", SIGNED_AT]);
        assert_eq!(status(&accepted), 0, "{}", stderr(&accepted));
        let text = stdout(&accepted);
        assert!(text.contains("accepted") && text.contains("shop:evt_7"), "{text}");
        assert!(text.contains("file:secret") && !text.contains(SECRET), "{text}");
    }
    let stale = verify(&[]);
    assert_eq!(status(&stale), 3);
    assert!(stdout(&stale).contains(&format!("--now {SIGNED_AT}")), "{}", stdout(&stale));

    let mut trailing = signed_request(body, "\n");
    trailing.push(b'\n');
    fs::write(&file, trailing).unwrap();
    let edited = verify(&["--now", SIGNED_AT]);
    assert_eq!(status(&edited), 3);
    assert!(stdout(&edited).contains("without the line break"), "{}", stdout(&edited));

    let altered = String::from_utf8(signed_request(body, "\n")).unwrap().replace("evt_7", "evt_8");
    fs::write(&file, altered).unwrap();
    let forged = verify(&["--now", SIGNED_AT, "--output", "json"]);
    assert_eq!(status(&forged), 3);
    let value: Value = serde_json::from_slice(&forged.stdout).unwrap();
    assert_eq!(
        (value["accepted"].as_bool(), value["reason"].as_str()),
        (Some(false), Some("mismatch"))
    );

    fs::write(&file, "POST /webhooks/shop HTTP/1.1\nContent-Type: a/b\n\n{}").unwrap();
    let unsigned = verify(&[]);
    assert_eq!(status(&unsigned), 3);
    assert!(stdout(&unsigned).contains("stripe-signature"), "{}", stdout(&unsigned));

    fs::write(&file, "hello").unwrap();
    assert_eq!(status(&verify(&[])), 2);
}

const BODY: &str = r#"{"id":"evt_7","object":"event","type":"payout.paid","data":{"object":{"id":"po_1","url":"a/b"}}}"#;

/// The hints for a saved request of the source `shop`, which is rejected.
fn hints(folder: &Path, request: &[u8]) -> String {
    fs::write(folder.join("saved.http"), request).unwrap();
    let arguments = ["verify", "--source", "shop", "--request", "saved.http", "--now", SIGNED_AT];
    let output = run(folder, &arguments);
    assert_eq!(status(&output), 3, "{} {}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains(SECRET), "{text}");
    text
}

fn with_body(request: &[u8], body: &str) -> Vec<u8> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    format!("{}{body}", &text[..text.len() - BODY.len()]).into_bytes()
}

#[test]
fn a_body_that_was_parsed_and_written_again_is_recognised() {
    let folder = folder();
    let signed = signed_request(BODY, "\n");
    let value: Value = serde_json::from_str(BODY).unwrap();
    let spaced = BODY.replace(':', ": ").replace(',', ", ");
    for (body, says) in
        [(spaced, "without white space"), (BODY.replace("a/b", "a\\/b"), "slashes not escaped")]
    {
        let text = hints(folder.path(), &with_body(&signed, &body));
        assert!(text.contains(says) && text.contains("parsed the body"), "{body}: {text}");
    }
    // Control: another content has no explanation. (Sorted keys cannot be told either.)
    for body in [BODY.replace("po_1", "po_2"), value.to_string().replace("po_1", "po_3")] {
        let text = hints(folder.path(), &with_body(&signed, &body));
        assert!(!text.contains("note:"), "{text}");
    }
    let marked = signed_request(BODY, "\n");
    let at = marked.len() - BODY.len();
    let marked = [&marked[..at], b"\xef\xbb\xbf", BODY.as_bytes()].concat();
    let text = hints(folder.path(), &marked);
    assert!(text.contains("without the byte order mark"), "{text}");
    let compressed = [&marked[..at], b"\x1f\x8b\x08\0\0\0\0\0\0\x03"].concat();
    let text = hints(folder.path(), &compressed);
    assert!(text.contains("compressed (gzip)"), "{text}");
    let encoded = base64(BODY.as_bytes());
    let text = hints(folder.path(), &with_body(&signed, &encoded));
    assert!(text.contains("decoded from base64"), "{text}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_wrong_secret_is_told_by_where_the_right_one_is() {
    let folder = folder();
    let signed = signed_request(BODY, "\n");
    for (written, says) in [
        (format!("\"{SECRET}\""), "without the quotes"),
        (SECRET.replace("whsec_", ""), "whsec_ before it"),
        (base64(SECRET.as_bytes()), "decoded from base64"),
        (SECRET.to_uppercase(), "in lower case"),
    ] {
        fs::write(folder.path().join("secret"), written).unwrap();
        let text = hints(folder.path(), &signed);
        assert!(text.contains(says) && text.contains("file:secret"), "{text}");
    }
    fs::write(folder.path().join("secret"), "whsec_another").unwrap();
    let text = hints(folder.path(), &signed);
    assert!(!text.contains("note:"), "control: {text}");
    fs::write(folder.path().join("live"), SECRET).unwrap();
    let other = "\n[[source]]\nname = 'live'\nprovider = 'stripe'\nsecrets = ['file:live']\n";
    fs::write(folder.path().join("sluice.toml"), format!("{CONFIG}{other}")).unwrap();
    let text = hints(folder.path(), &signed);
    assert!(text.contains("secret of source `live`"), "{text}");
}

#[test]
fn headers_that_were_joined_or_added_are_told() {
    let folder = folder();
    let signed = String::from_utf8(signed_request(BODY, "\n")).unwrap();
    let line = signed.lines().find(|line| line.starts_with("Stripe-Signature: ")).unwrap();
    let added = signed.replace(line, &format!("{line}\nStripe-Signature: t=1,v1=00"));
    let text = hints(folder.path(), added.as_bytes());
    assert!(text.contains("line 1 of the 2 lines of header stripe-signature"), "{text}");
    let value = line.strip_prefix("Stripe-Signature: ").unwrap();
    let joined = signed.replace(line, &format!("Stripe-Signature: t=1,v1=00, {value}"));
    let text = hints(folder.path(), joined.as_bytes());
    assert!(text.contains("split at its commas"), "{text}");
}

#[test]
fn a_source_of_another_kind_is_told() {
    let folder = folder();
    let config = CONFIG.replace(
        "\"stripe\"",
        "\"hmac\"\nsettings = { header = \"x-signature\", encoding = \"base64\" }",
    );
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    let signed = signed_request(BODY, "\n");
    let text = hints(folder.path(), &signed);
    assert!(text.contains("provider = \"stripe\""), "{text}");
    assert!(text.contains("the file has these headers: content-type"), "{text}");
}

#[test]
fn settings_of_a_described_scheme_are_found() {
    let folder = folder();
    let config = CONFIG.replace(
        "\"stripe\"",
        "\"hmac\"\nsettings = { header = \"x-signature\", algorithm = \"sha512\" }",
    );
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    let tag = hmac("-sha1", SECRET, BODY);
    let request = format!("POST /webhooks/shop HTTP/1.1\nX-Signature: sha1={tag}\n\n{BODY}");
    let text = hints(folder.path(), request.as_bytes());
    assert!(text.contains("algorithm = \"sha1\", prefix = \"sha1=\""), "{text}");
    let forged = request.replace("po_1", "po_2");
    assert!(!hints(folder.path(), forged.as_bytes()).contains("note:"), "control");
}

/// A folder whose source `shop` is of another provider.
fn folder_of(provider: &str, settings: &str) -> TempDir {
    let folder = folder();
    let config =
        CONFIG.replace("\"stripe\"", &format!("\"{provider}\"\nsettings = {{ {settings} }}"));
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    folder
}

/// The HMAC in base64.
fn base64_hmac(digest: &str, data: &str) -> String {
    let hex = hmac(digest, SECRET, data);
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    base64(&bytes)
}

#[test]
fn a_signed_url_that_is_written_otherwise_at_the_provider_is_found() {
    let folder = folder_of("square", "public_url = \"https://pay.example/hook\"");
    let body = r#"{"event_id":"e1","type":"payment.updated"}"#;
    let request = |url: &str| {
        let tag = base64_hmac("-sha256", &format!("{url}{body}"));
        format!(
            "POST /webhooks/shop HTTP/1.1\nHost: seen.example:8443\nX-Square-Hmacsha256-Signature: {tag}\n\n{body}"
        )
    };
    for (url, says) in [
        ("http://pay.example/hook", "(http, not https)"),
        ("https://pay.example/hook/", "(with a slash at its end)"),
        ("https://pay.example:443/hook", "(with port 443)"),
        ("https://seen.example:8443/hook", "(another host; with port 8443)"),
        ("https://pay.example/webhooks/shop", "(another path)"),
    ] {
        let text = hints(folder.path(), request(url).as_bytes());
        assert!(text.contains(says) && text.contains("settings.public_url"), "{url}: {text}");
    }
    let text = hints(folder.path(), request("https://elsewhere.example/x").as_bytes());
    assert!(!text.contains("note:"), "control: {text}");
}

#[test]
fn a_request_id_that_a_proxy_wrote_over_is_found() {
    let folder = folder_of("mercadopago", "");
    let signed = |manifest: &str| hmac("-sha256", SECRET, manifest);
    let request = |target: &str, tag: &str| {
        format!(
            "POST {target} HTTP/1.1\nX-Request-Id: proxy\nX-Origin-Id: req-1\nX-Signature: ts={SIGNED_AT},v1={tag}\n\n{{\"id\":1,\"type\":\"payment\",\"data\":{{\"id\":\"77\"}}}}"
        )
    };
    let target = "/webhooks/shop?data.id=77&type=payment";
    for (target, manifest, says) in [
        (target, format!("id:77;request-id:req-1;ts:{SIGNED_AT};"), "header x-origin-id holds"),
        (target, format!("id:77;ts:{SIGNED_AT};"), "without x-request-id"),
        ("/webhooks/shop", format!("id:77;request-id:proxy;ts:{SIGNED_AT};"), "query `data.id=77`"),
    ] {
        let text = hints(folder.path(), request(target, &signed(&manifest)).as_bytes());
        assert!(text.contains(says), "{says}: {text}");
    }
    let other = signed(&format!("id:78;request-id:req-1;ts:{SIGNED_AT};"));
    assert!(!hints(folder.path(), request(target, &other).as_bytes()).contains("note:"), "control");
}

#[test]
fn events_and_challenges_that_come_with_get_are_told_apart() {
    let folder =
        folder_of("twilio", "public_url = \"https://pay.example/hook\", accept_get = true");
    let query = "MessageSid=SM00000000000000000000000000000001&MessageStatus=sent";
    let tag = base64_hmac("-sha1", &format!("https://pay.example/hook?{query}"));
    let request = format!("GET /hook?{query} HTTP/1.1\nX-Twilio-Signature: {tag}\n\n");
    let verify = ["verify", "--source", "shop", "--request", "saved.http"];
    fs::write(folder.path().join("saved.http"), &request).unwrap();
    let output = run(folder.path(), &verify);
    assert_eq!(status(&output), 0, "{} {}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("event shop:SM0000"), "{}", stdout(&output));
    assert!(!hints(folder.path(), request.replace("=sent", "=read").as_bytes()).contains("note:"));

    let folder = folder_of("braintree", "public_key = \"6z4fg2kq8pdt7m9x\"");
    let challenge = "GET /hook?bt_challenge=0123456789abcdef0123 HTTP/1.1\n\n";
    fs::write(folder.path().join("saved.http"), challenge).unwrap();
    let output = run(folder.path(), &verify);
    assert_eq!(status(&output), 0, "{} {}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("an endpoint challenge") && text.contains("6z4fg2kq8pdt7m9x|"), "{text}");
}

#[test]
fn a_get_that_is_neither_event_nor_challenge_is_refused() {
    let folder = folder();
    let signed = String::from_utf8(signed_request(BODY, "\n")).unwrap();
    let text = hints(folder.path(), signed.replace("POST ", "GET ").as_bytes());
    assert!(text.contains("do not come with GET"), "{text}");
}

#[test]
fn a_key_that_is_none_is_a_mistake() {
    let folder = folder();
    fs::write(folder.path().join("saved.http"), signed_request(BODY, "\n")).unwrap();
    let verify = ["verify", "--source", "shop", "--request", "saved.http", "--now", SIGNED_AT];
    assert_eq!(status(&run(folder.path(), &verify)), 0, "control");
    let output = run(folder.path(), &[&verify[..], &["--key", "secret"]].concat());
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("--key secret: it holds neither"), "{}", stderr(&output));
}

/// A provider that signs with a published key: without it there is no verdict, only what to fetch.
#[test]
fn a_published_key_is_asked_for_and_used() {
    let vectors = include_str!("../../providers/tests/vectors.jsonl").lines();
    let vector = vectors
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|vector| vector["provider"] == "google-pubsub" && vector["expect"] == "accept")
        .unwrap();
    let config = &vector["config"];
    let accounts: Vec<&Value> = match &config["service_account_email"] {
        Value::Array(accounts) => accounts.iter().collect(),
        one => vec![one],
    };
    let settings = format!(
        "audience = {}, service_accounts = {}",
        config["audience"],
        serde_json::to_string(&accounts).unwrap()
    );
    let folder = folder_of("google-pubsub", &settings);
    let path = folder.path().join("sluice.toml");
    let without_secret =
        fs::read_to_string(&path).unwrap().replace("secrets = [\"file:secret\"]", "");
    fs::write(&path, without_secret).unwrap();
    let mut request = "POST /hooks/pubsub HTTP/1.1\n".to_owned();
    for header in vector["headers"].as_array().unwrap() {
        let text = |at: usize| header[at].as_str().unwrap();
        request.push_str(&format!("{}: {}\n", text(0), text(1)));
    }
    request.push_str(&format!("\n{}", vector["body"].as_str().unwrap()));
    fs::write(folder.path().join("saved.http"), request).unwrap();
    fs::write(folder.path().join("keys.json"), config["jwks"].to_string()).unwrap();
    let now = vector["now"].to_string();
    let verify = ["verify", "--source", "shop", "--request", "saved.http", "--now", &now];
    let undecided = run(folder.path(), &verify);
    assert_eq!(status(&undecided), 3, "{}", stderr(&undecided));
    let text = stdout(&undecided);
    assert!(text.contains("not decided (key)"), "{text}");
    assert!(text.contains("curl -fsS") && text.contains("'https://www.googleapis.com/"), "{text}");
    let decided = run(folder.path(), &[&verify[..], &["--key", "keys.json"]].concat());
    assert_eq!(status(&decided), 0, "{} {}", stdout(&decided), stderr(&decided));
    assert!(stdout(&decided).contains("accepted"), "{}", stdout(&decided));
}

/// A case that is accepted, whose event has this ID.
fn case(id: &str) -> String {
    let body = BODY.replace("evt_7", id);
    let signed = String::from_utf8(signed_request(&body, "\n")).unwrap();
    let line = signed.lines().find(|line| line.starts_with("Stripe-Signature: ")).unwrap();
    let now: i64 = SIGNED_AT.parse().unwrap();
    json!({
        "id": id, "provider": "stripe", "secret": SECRET, "url": "https://pay.example/hook",
        "headers": [["Stripe-Signature", line.strip_prefix("Stripe-Signature: ").unwrap()]],
        "body": body, "now": now, "expect": "accept", "event_id": id,
    })
    .to_string()
}

#[test]
fn vectors_need_nothing_but_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let forged = case("evt_2").replace("payout.paid", "payout.made");
    fs::write(folder.path().join("cases"), format!("{}\n\n  \n{forged}\n", case("evt_1"))).unwrap();
    let output = run(folder.path(), &["verify", "--vectors", "cases"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[0],
        json!({"id": "evt_1", "verdict": "accept", "reason": "stripe-v1", "event_id": "evt_1", "event_type": "payout.paid"})
    );
    assert_eq!((&lines[1]["verdict"], &lines[1]["event_id"]), (&json!("reject"), &Value::Null));
    assert!(lines[1]["reason"].as_str().unwrap().starts_with("mismatch: "), "{text}");
    assert_eq!(lines.len(), 2);
    // A configuration is not read, so it may be broken.
    fs::write(folder.path().join("sluice.toml"), "nonsense").unwrap();
    let json = run(folder.path(), &["--output", "json", "verify", "--vectors", "cases"]);
    assert_eq!((status(&json), stdout(&json)), (0, text));
    assert_eq!(status(&run(folder.path(), &["config", "check"])), 2, "control");
}

#[test]
fn expectations_are_compared_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cases");
    let expect = ["verify", "--vectors", "cases", "--expect"];
    fs::write(&file, case("evt_1")).unwrap();
    let good = run(folder.path(), &expect);
    assert_eq!(status(&good), 0);
    assert!(stderr(&good).contains("1 compared: 1 agree"), "{}", stderr(&good));
    let wrong = case("evt_1").replace("\"accept\"", "\"reject\"");
    fs::write(&file, &wrong).unwrap();
    let bad = run(folder.path(), &expect);
    assert_eq!(status(&bad), 3);
    assert!(stderr(&bad).contains("evt_1: accept, expected reject"), "{}", stderr(&bad));
    assert_eq!(status(&run(folder.path(), &expect[..3])), 0, "not asked for");
    fs::write(&file, wrong.replace("\"expect\"", "\"must\":false,\"expect\"")).unwrap();
    let choice = run(folder.path(), &expect);
    assert_eq!(status(&choice), 0);
    assert!(stderr(&choice).contains("1 differ by choice"), "{}", stderr(&choice));
}

#[test]
fn a_line_that_is_no_vector_ends_it_after_the_lines_before() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cases"), format!("{}\n\n{{\"id\":1}}\n", case("evt_1"))).unwrap();
    let output = run(folder.path(), &["verify", "--vectors", "cases"]);
    assert_eq!(status(&output), 2);
    assert!(stdout(&output).contains("evt_1"), "{}", stdout(&output));
    assert!(stderr(&output).contains("cases: line 3 is no vector"), "{}", stderr(&output));
    assert_eq!(status(&run(folder.path(), &["verify", "--vectors", "absent"])), 1);
    for wrong in [
        &["verify"][..],
        &["verify", "--source", "shop"],
        &["verify", "--vectors", "cases", "--source", "shop", "--request", "x"],
        &["verify", "--source", "shop", "--request", "x", "--expect"],
        &["verify", "--vectors", "cases", "--now", "1"],
    ] {
        assert_eq!(status(&run(folder.path(), wrong)), 2, "{wrong:?}");
    }
}

#[test]
fn each_answer_comes_before_the_next_line_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = sluice(folder.path(), &["verify", "--vectors", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in ["evt_1", "evt_2"] {
        writeln!(input, "{}", case(id)).unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["event_id"], id);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_vector_that_must_agree_does_through_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let providers = run(folder.path(), &["providers", "--output", "json"]);
    let known: Vec<String> = stdout(&providers)
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned()
        })
        .collect();
    let all = include_str!("../../providers/tests/vectors.jsonl");
    let of_known = |line: &&str| {
        let provider = serde_json::from_str::<Value>(line).unwrap()["provider"].clone();
        provider == "generic" || known.iter().any(|name| provider == name.as_str())
    };
    let lines: Vec<&str> = all.lines().filter(of_known).collect();
    fs::write(folder.path().join("cases"), lines.join("\n")).unwrap();
    let output = run(folder.path(), &["verify", "--vectors", "cases", "--expect"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), lines.len());
    assert!(lines.len() >= 50, "{}", lines.len());
}
