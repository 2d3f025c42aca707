//! What providers insist on being told: bodies, statuses, challenges, methods.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use sluice_tests::{
    account::{Account, drained},
    endpoints::{BRAINTREE_PUBLIC_KEY, Endpoint, PUBLIC_URL, forged},
    sluice::Role,
    stack::shared,
    wait::secs,
};

use super::{of_source, pipeline, start, stored};

/// Status, `Content-Type`, `Allow` and body of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    content_type: String,
    allow: String,
    body: String,
}

/// Sends one request. `target` is what follows `/webhooks/`.
async fn send(
    role: &Role,
    method: Method,
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Told {
    let client = reqwest::Client::builder().no_proxy().timeout(secs(10)).build().unwrap();
    let url = format!("{}/webhooks/{target}", role.url());
    let mut request = client.request(method, url).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (content_type, allow) = (header("content-type"), header("allow"));
    let status = answer.status().as_u16();
    Told { status, content_type, allow, body: answer.text().await.unwrap() }
}

fn sha1_mac(key: &[u8], signed: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A signature of Twilio's over the URL with this query, and the fields in their order.
fn twilio(endpoint: &Endpoint, query: &str, fields: &str) -> Vec<(String, String)> {
    let signed = format!("{PUBLIC_URL}?{query}{fields}");
    let tag = STANDARD.encode(sha1_mac(endpoint.secret.as_bytes(), &signed));
    vec![("x-twilio-signature".to_owned(), tag)]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_told_what_it_waits_for() {
    let providers = ["adyen", "braintree", "gocardless", "twilio", "github"];
    let endpoints = providers.map(Endpoint::of);
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "all", &endpoints, &[]);
    role.ready().await;
    let of = |name: &str| endpoints.iter().find(|endpoint| endpoint.name == name).unwrap();

    // Genuine and forged, by POST.
    let twiml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";
    for (provider, content_type, body, refusal) in [
        ("adyen", "text/plain; charset=utf-8", "[accepted]", 401),
        ("twilio", "text/xml; charset=utf-8", twiml, 403),
        ("gocardless", "", "", 498),
    ] {
        let webhook = of(provider).samples().event(1);
        let told = send(&role, Method::POST, provider, &webhook.headers, &webhook.body).await;
        let wanted = Told {
            status: 200,
            content_type: content_type.to_owned(),
            allow: String::new(),
            body: body.to_owned(),
        };
        assert_eq!(told, wanted, "{provider}");
        let forged = forged(provider, &webhook);
        let told = send(&role, Method::POST, provider, &forged.headers, &forged.body).await;
        assert_eq!(told.status, refusal, "{provider}: {told:?}");
        assert!(told.content_type.starts_with("application/problem+json"), "{told:?}");
    }
    assert_eq!(stored(&pipeline).await, 3);

    // Braintree asks whether this endpoint has the private key.
    let challenge = "20f9f8ed05f77439fe955c977e4c8a53";
    let key = Sha1::digest(of("braintree").secret.as_bytes());
    let proof = hex::encode(sha1_mac(&key, challenge));
    let target = format!("braintree?bt_challenge={challenge}");
    let told = send(&role, Method::GET, &target, &[], b"").await;
    assert_eq!((told.status, told.body), (200, format!("{BRAINTREE_PUBLIC_KEY}|{proof}")));
    // Whoever may choose the text would have anything signed.
    for bad in ["20f9f8ed05f7743", "20F9F8ED05F77439FE955C977E4C8A53", "PD94bWwg", ""] {
        let target = format!("braintree?bt_challenge={bad}");
        let told = send(&role, Method::GET, &target, &[], b"").await;
        assert_eq!((told.status, told.allow.as_str()), (405, "POST"), "{bad}: {told:?}");
        assert!(!told.body.contains(BRAINTREE_PUBLIC_KEY), "{bad}: {told:?}");
    }
    // Nobody else answers a challenge.
    let told =
        send(&role, Method::GET, &format!("github?bt_challenge={challenge}"), &[], b"").await;
    assert_eq!((told.status, told.allow.as_str()), (405, "POST"));

    // Twilio delivers by GET, too: everything is in the signed query then.
    let message = "SM0123456789abcdef0123456789abcdef";
    let query = format!(
        "AccountSid=AC0123456789abcdef0123456789abcdef&MessageSid={message}&MessageStatus=delivered"
    );
    let headers = twilio(of("twilio"), &query, "");
    let told = send(&role, Method::GET, &format!("twilio?{query}"), &headers, b"").await;
    assert_eq!((told.status, told.body.as_str()), (200, twiml));
    let other = query.replace("delivered", "failed");
    let told = send(&role, Method::GET, &format!("twilio?{other}"), &headers, b"").await;
    assert_eq!(told.status, 403, "{told:?}");
    // JSON is bound by its digest in the query.
    let json = br#"[{"specversion":"1.0","type":"com.twilio.messaging.message.failed","source":"/e2e","id":"EZe2e0000000000000000000000000001","time":"2026-11-20T10:15:30Z","data":{"messageSid":"SMe2e00000000000000000000000000001"}}]"#;
    let query = format!("bodySHA256={}", hex::encode(Sha256::digest(json)));
    let headers = twilio(of("twilio"), &query, "");
    let target = format!("twilio?{query}");
    let told = send(&role, Method::POST, &target, &headers, json).await;
    assert_eq!((told.status, told.body.as_str()), (200, twiml));
    let altered = String::from_utf8_lossy(json).replace("failed", "delivered");
    let told = send(&role, Method::POST, &target, &headers, altered.as_bytes()).await;
    assert_eq!(told.status, 403, "{told:?}");

    // No other method, whatever it carries.
    for (source, allow) in [("github", "POST"), ("braintree", "POST"), ("twilio", "GET, POST")] {
        let webhook = of(source).samples().event(9);
        for method in [Method::PUT, Method::HEAD, Method::DELETE, Method::OPTIONS] {
            let told = send(&role, method.clone(), source, &webhook.headers, &webhook.body).await;
            assert_eq!((told.status, told.allow.as_str()), (405, allow), "{method} {source}");
        }
    }
    let webhook = of("github").samples().event(9);
    let told = send(&role, Method::GET, "github", &webhook.headers, &webhook.body).await;
    assert_eq!((told.status, told.allow.as_str()), (405, "POST"));
    let told = send(&role, Method::POST, "github", &webhook.headers, &webhook.body).await;
    assert_eq!(told.status, 200, "control: {told:?}");

    drained(&pipeline, secs(30)).await;
    let account = Account::read(&pipeline).await;
    assert_eq!((account.processed.len(), account.dead.len()), (6, 0));
    let events = of_source(&account, "twilio");
    let kind = |object: &str| {
        let found = events.iter().find(|event| event.object_id.as_deref() == Some(object));
        found.map(|event| event.kind.as_str())
    };
    assert_eq!(kind(message), Some("message.delivered"));
    assert_eq!(kind("SMe2e00000000000000000000000000001"), Some("message.failed"));
    role.terminate().await;
}
