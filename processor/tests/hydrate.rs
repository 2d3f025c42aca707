//! Hydration against a provider's API: what is asked, what the answer changes, what every refusal comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod samples;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use samples::raw_webhook;
use secrecy::SecretString;
use sluice_processor::{
    failure::Failure,
    hydrate::{Hydrate, Hydrated},
    step::{Done, Step},
};
use sluice_providers::{Api, Credentials, Fact, Fetch, Fetched, Normalise, Normalised, Payload};
use sluice_schemas::*;
use sluice_service::config::{Environment, HydrateConfig, NotFound};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

/// What an answer with this status proves.
fn approved(state: String) -> Fact {
    Fact {
        state,
        kind: "payment.succeeded".to_owned(),
        amount_minor: None,
        since_ms: None,
        formerly: Vec::new(),
    }
}

/// Asks for `/things/<object>`, and believes the answer.
#[derive(Debug)]
struct Reader;

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        Normalised {
            kind: format!("provider.{}", payload.event_type),
            object_id: payload.object_id.map(str::to_owned),
            amount_minor: None,
            currency: None,
            status: None,
            customer: None,
            reference: None,
            occurred_at_ms: None,
            provider_version: None,
            livemode: None,
            needs_hydration: true,
        }
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        Some(Fetch { path: format!("/things/{}", payload.object_id?) })
    }

    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let normalised = Normalised {
            kind: "payment.succeeded".to_owned(),
            amount_minor: answer["amount"].as_i64(),
            currency: text("currency"),
            status: text("status"),
            customer: text("customer"),
            reference: text("reference"),
            occurred_at_ms: Some(77),
            livemode: Some(true),
            needs_hydration: answer["status"].is_null(),
            ..self.normalise(payload)
        };
        let facts = text("status").map(approved).into_iter().collect();
        Fetched { normalised, facts, bare: false }
    }
}

const BEARER: Api = Api {
    base_url: "https://live.invalid",
    test_base_url: Some("https://test.invalid"),
    credentials: Credentials::Bearer { token: "the token of the dashboard" },
    headers: &[("x-api-version", "7")],
    summary: "GET /things/{id}",
};

const CLIENT: Api = Api {
    credentials: Credentials::ClientCredentials { token_path: "/token", client: "the app's pair" },
    ..BEARER
};

/// An answer: status, headers, body, delay.
#[derive(Debug, Clone)]
struct Reply(u16, &'static [(&'static str, &'static str)], String, Duration);

fn reply(status: u16, body: &str) -> Reply {
    Reply(status, &[], body.to_owned(), Duration::ZERO)
}

fn thing() -> Reply {
    reply(
        200,
        r#"{"amount":1250,"currency":"BRL","status":"approved","customer":"c","reference":"order 7"}"#,
    )
}

#[derive(Default)]
struct Server {
    things: VecDeque<Reply>,
    tokens: VecDeque<Reply>,
    calls: Vec<(Method, String, HeaderMap, Bytes)>,
    at_once: usize,
    most_at_once: usize,
}

type Shared = Arc<Mutex<Server>>;

/// Serves what it is told, in order; a thing and a new token each time it is told nothing.
async fn serve(things: Vec<Reply>, tokens: Vec<Reply>) -> (String, Shared) {
    let server = Server { things: things.into(), tokens: tokens.into(), ..Server::default() };
    let shared = Arc::new(Mutex::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (base, shared)
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Reply(status, extra, text, delay) = {
        let mut server = shared.lock().unwrap();
        server.at_once += 1;
        server.most_at_once = server.most_at_once.max(server.at_once);
        server.calls.push((method, uri.to_string(), headers, body));
        if uri.path() == "/token" {
            let number = server.calls.len();
            let token = format!(r#"{{"access_token":"T{number}","expires_in":3600}}"#);
            server.tokens.pop_front().unwrap_or_else(|| reply(200, &token))
        } else {
            server.things.pop_front().unwrap_or_else(thing)
        }
    };
    tokio::time::sleep(delay).await;
    shared.lock().unwrap().at_once -= 1;
    let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
    for (name, value) in extra {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn config(base: &str) -> HydrateConfig {
    HydrateConfig { base_url: Some(base.to_owned()), ..HydrateConfig::api() }
}

fn step(api: Api, config: HydrateConfig) -> Hydrate {
    let secret = |text: &str| SecretString::from(text.to_owned());
    let bearer = matches!(api.credentials, Credentials::Bearer { .. });
    let source = Hydrated {
        name: "shop".to_owned(),
        config,
        bearer: bearer.then(|| secret("topsecret")),
        client: (!bearer).then(|| (secret("app id"), secret("app+secret"))),
        api: Some((api, Box::new(Reader))),
    };
    Hydrate::new([source]).unwrap()
}

fn raw(object: Option<&str>, received_at: i64) -> RawWebhook {
    RawWebhook {
        event_type: "thing.changed".into(),
        object_id: object.map(str::to_owned),
        occurred_at: Some(5),
        received_at,
        ..raw_webhook("shop", "p", "e")
    }
}

fn event(raw: &RawWebhook) -> ProcessedEvent {
    ProcessedEvent {
        event_key: raw.event_key.clone(),
        source: raw.source.clone(),
        provider: raw.provider.clone(),
        event_id: raw.event_id.clone(),
        event_type: raw.event_type.clone(),
        kind: "provider.thing.changed".into(),
        object_id: raw.object_id.clone(),
        tenant: None,
        livemode: None,
        amount_minor: None,
        currency: None,
        status: None,
        customer: None,
        reference: None,
        provider_version: Some("from the payload".into()),
        occurred_at: raw.occurred_at,
        received_at: raw.received_at,
        processed_at: 0,
        raw_partition: 0,
        raw_offset: 0,
        replay: false,
        attempts: 1,
        request_id: "r".into(),
        payload: raw.body.clone(),
        hydrated: None,
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Hydrates an event that came in just now.
async fn hydrate(step: &Hydrate) -> Result<(ProcessedEvent, Done), Failure> {
    hydrate_of(step, now()).await
}

async fn hydrate_of(step: &Hydrate, received_at: i64) -> Result<(ProcessedEvent, Done), Failure> {
    let raw = raw(Some("7"), received_at);
    let mut event = event(&raw);
    assert!(step.wants(&event, &raw));
    step.process(&mut event, &raw).await.map(|done| (event, done))
}

async fn code(step: &Hydrate) -> (String, FailureClass) {
    let failure = hydrate(step).await.unwrap_err();
    (failure.code, failure.class)
}

fn paths(shared: &Shared) -> Vec<String> {
    shared.lock().unwrap().calls.iter().map(|(_, path, ..)| path.clone()).collect()
}

fn authorization(shared: &Shared, call: usize) -> String {
    let server = shared.lock().unwrap();
    server.calls[call].2["authorization"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_answer_completes_the_event() {
    let (base, shared) = serve(vec![], vec![]).await;
    let step = step(BEARER, config(&base));
    let (event, done) = hydrate(&step).await.unwrap();
    assert_eq!(event.kind, "payment.succeeded");
    assert_eq!((event.amount_minor, event.currency.as_deref()), (Some(1250), Some("BRL")));
    assert_eq!(event.status.as_deref(), Some("approved"));
    assert_eq!(
        (event.customer.as_deref(), event.reference.as_deref()),
        (Some("c"), Some("order 7"))
    );
    assert_eq!((event.occurred_at, event.livemode), (Some(77), Some(true)));
    assert_eq!(event.object_id.as_deref(), Some("7"));
    assert_eq!(event.hydrated.as_deref(), Some(thing().2.as_bytes()));
    assert_eq!(done, Done { facts: vec![approved("approved".to_owned())], ..Done::default() });
    assert_eq!(paths(&shared), ["/things/7"]);
    assert_eq!(authorization(&shared, 0), "Bearer topsecret");
    assert_eq!(shared.lock().unwrap().calls[0].2["x-api-version"], "7");

    let raw = raw(None, now());
    assert!(!step.wants(&self::event(&raw), &raw), "what names nothing to fetch is complete");
}

#[tokio::test]
async fn the_operators_own_url_changes_nothing_but_hydrated() {
    let (base, shared) = serve(vec![], vec![]).await;
    let config = HydrateConfig::new(format!("{base}/own/{{object_id}}"));
    let source =
        Hydrated { name: "shop".to_owned(), config, bearer: None, client: None, api: None };
    let step = Hydrate::new([source]).unwrap();
    let (hydrated, done) = hydrate(&step).await.unwrap();
    assert_eq!(done, Done::default());
    let plain = event(&raw(Some("7"), hydrated.received_at));
    assert_eq!(hydrated, ProcessedEvent { hydrated: Some(thing().2.into_bytes()), ..plain });
    assert_eq!(paths(&shared), ["/own/7"]);
    assert!(!shared.lock().unwrap().calls[0].2.contains_key("authorization"));
}

#[tokio::test]
async fn the_environment_chooses_where_to_ask() {
    for (environment, host) in [(None, "live"), (Some(Environment::Test), "test")] {
        let config = HydrateConfig { environment, ..HydrateConfig::api() };
        let told = format!("{:?}", step(BEARER, config));
        assert!(told.contains(&format!("https://{host}.invalid")), "{told}");
        assert!(!told.contains("topsecret"), "{told}");
    }
}

#[tokio::test]
async fn a_404_is_transient_for_a_while() {
    let (base, _) = serve(vec![reply(404, "{}"); 5], vec![]).await;
    let step = step(BEARER, config(&base));
    let class = async |step: &Hydrate, age: i64| {
        let failure = hydrate_of(step, now() - age).await.unwrap_err();
        assert_eq!(failure.code, "hydrate_status_404");
        failure.class
    };
    assert_eq!(class(&step, 0).await, FailureClass::Transient);
    assert_eq!(class(&step, 599_000).await, FailureClass::Transient);
    assert_eq!(class(&step, 600_000).await, FailureClass::Permanent);
    assert_eq!(class(&step, -5_000).await, FailureClass::Transient, "a clock behind the gateway's");
    let strict = HydrateConfig { not_found: Some(NotFound::Permanent), ..config(&base) };
    assert_eq!(class(&self::step(BEARER, strict), 0).await, FailureClass::Permanent);
}

#[tokio::test]
async fn refusals_are_transient_and_say_what_to_do() {
    let slow = Reply(200, &[], "{}".to_owned(), Duration::from_secs(30));
    let busy = Reply(429, &[("retry-after", "7")], String::new(), Duration::ZERO);
    let replies = vec![
        reply(401, "{}"),
        reply(503, ""),
        busy,
        reply(200, "<html>sign in</html>"),
        reply(200, r#"{"amount":9}"#),
        reply(422, "{}"),
        slow,
        thing(),
    ];
    let (base, _) = serve(replies, vec![]).await;
    let config = HydrateConfig { timeout: Duration::from_millis(300), ..config(&base) };
    let step = step(BEARER, HydrateConfig { breaker_failures: 100, ..config });
    let failure = hydrate(&step).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Transient);
    assert!(failure.message.contains("check the token of the dashboard"), "{failure:?}");
    assert_eq!(code(&step).await, ("hydrate_status_503".to_owned(), FailureClass::Transient));
    let failure = hydrate(&step).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("hydrate_status_429", Some(7000)));
    assert_eq!(code(&step).await, ("hydrate_not_json".to_owned(), FailureClass::Transient));
    assert_eq!(code(&step).await, ("hydrate_incomplete".to_owned(), FailureClass::Transient));
    assert_eq!(code(&step).await, ("hydrate_status_422".to_owned(), FailureClass::Permanent));
    assert_eq!(code(&step).await, ("hydrate_timeout".to_owned(), FailureClass::Transient));
    assert!(hydrate(&step).await.is_ok(), "control");
}

#[tokio::test]
async fn an_api_that_keeps_failing_is_left_alone() {
    let (base, shared) = serve(vec![reply(500, ""); 2], vec![]).await;
    let config = HydrateConfig {
        breaker_failures: 2,
        breaker_reset: Duration::from_millis(200),
        ..config(&base)
    };
    let step = step(BEARER, config);
    for _ in 0..2 {
        assert_eq!(code(&step).await.0, "hydrate_status_500");
    }
    let failure = hydrate(&step).await.unwrap_err();
    assert_eq!(failure.code, "hydrate_breaker_open");
    let left = u64::try_from(failure.retry_after_ms.unwrap()).unwrap();
    assert_eq!(paths(&shared).len(), 2, "not asked");
    tokio::time::sleep(Duration::from_millis(left + 20)).await;
    assert!(hydrate(&step).await.is_ok(), "closed again");
}

#[tokio::test]
async fn the_rate_and_the_number_at_a_time_are_kept() {
    let slow = || Reply(200, &[], thing().2, Duration::from_millis(20));
    let (base, shared) = serve((0..12).map(|_| slow()).collect(), vec![]).await;
    let step = step(BEARER, HydrateConfig { concurrency: 3, ..config(&base) });
    let all = futures::future::join_all((0..12).map(|_| hydrate(&step))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(shared.lock().unwrap().most_at_once, 3);

    let (base, shared) = serve(vec![], vec![]).await;
    let rate_limit = Some("10/s".parse().unwrap());
    let config = HydrateConfig { rate_limit, timeout: Duration::from_millis(250), ..config(&base) };
    let step = self::step(BEARER, config);
    let all = futures::future::join_all((0..8).map(|_| hydrate(&step))).await;
    let late: Vec<_> = all.into_iter().filter_map(Result::err).collect();
    // At 0, 100 and 200 ms; the next turn would come after the time-out.
    assert_eq!((paths(&shared).len(), late.len()), (3, 5));
    for failure in late {
        assert_eq!(failure.code, "hydrate_rate_limited");
        assert_eq!(failure.class, FailureClass::Transient);
        assert!(failure.retry_after_ms.is_some_and(|wait| wait > 200), "{failure:?}");
    }
}

#[tokio::test]
async fn one_token_serves_all_until_it_is_refused() {
    let (base, shared) = serve(vec![], vec![]).await;
    let step = step(CLIENT, config(&base));
    let all = futures::future::join_all((0..10).map(|_| hydrate(&step))).await;
    assert!(all.iter().all(Result::is_ok));
    let tokens = |shared: &Shared| paths(shared).iter().filter(|path| *path == "/token").count();
    assert_eq!((tokens(&shared), paths(&shared).len()), (1, 11), "one flight");
    {
        let server = shared.lock().unwrap();
        let (method, _, headers, body) = &server.calls[0];
        assert_eq!((method, &body[..]), (&Method::POST, &b"grant_type=client_credentials"[..]));
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        // base64 of "app%20id:app%2Bsecret"
        assert_eq!(headers["authorization"], "Basic YXBwJTIwaWQ6YXBwJTJCc2VjcmV0");
    }
    assert_eq!(authorization(&shared, 1), "Bearer T1");
    assert!(!format!("{step:?}").contains("T1"));

    shared.lock().unwrap().things.push_back(reply(401, "{}"));
    assert!(hydrate(&step).await.is_ok(), "a revoked token is replaced at once");
    assert_eq!(tokens(&shared), 2);
    assert_eq!(authorization(&shared, 13), "Bearer T13");

    shared.lock().unwrap().things.extend([reply(401, "{}"), reply(401, "{}")]);
    let before = paths(&shared).len();
    assert_eq!(code(&step).await, ("hydrate_status_401".to_owned(), FailureClass::Transient));
    assert_eq!(paths(&shared).len() - before, 3, "refused, a new token, refused: no more");
}

#[tokio::test]
async fn what_the_token_endpoint_refuses_is_transient() {
    let busy = Reply(503, &[("retry-after", "3")], String::new(), Duration::ZERO);
    let tokens = vec![reply(401, r#"{"error":"invalid_client"}"#), reply(200, "{}"), busy];
    let (base, shared) = serve(vec![], tokens).await;
    let step = step(CLIENT, config(&base));
    let failure = hydrate(&step).await.unwrap_err();
    assert_eq!(failure.code, "hydrate_token_status_401");
    assert_eq!(failure.class, FailureClass::Transient);
    assert!(failure.message.contains("check the app's pair"), "{failure:?}");
    assert_eq!(code(&step).await, ("hydrate_token".to_owned(), FailureClass::Transient));
    let failure = hydrate(&step).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.retry_after_ms),
        ("hydrate_token_status_503", Some(3000))
    );
    assert_eq!(paths(&shared), ["/token"; 3]);
    assert!(hydrate(&step).await.is_ok(), "control");
}

#[tokio::test]
async fn a_redirect_carries_no_token_away() {
    let (elsewhere, stolen) = serve(vec![], vec![]).await;
    let location: &'static str = Box::leak(format!("{elsewhere}/things/7").into_boxed_str());
    let headers: &'static [(&str, &str)] = Box::leak(Box::new([("location", location)]));
    let away = Reply(302, headers, String::new(), Duration::ZERO);
    let (base, _) = serve(vec![away], vec![]).await;
    let step = step(BEARER, config(&base));
    assert_eq!(code(&step).await, ("hydrate_status_302".to_owned(), FailureClass::Permanent));
    assert!(paths(&stolen).is_empty());
    assert!(hydrate(&step).await.is_ok(), "control");
}
