//! Providers' APIs on loopback. A test writes what they know, and the answers they give instead, per id.
//!
//! One server plays them all, below the paths of the real ones ([`providers`]), with their authorisation,
//! their bodies and their words for what they refuse; and one of the test's own below `/objects/`.

pub mod providers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::send::now_ms;

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Wait before it is given.
    pub delay: Duration,
    /// `Retry-After`, if any.
    pub retry_after: Option<String>,
    /// Body; by default the object of this id, or what the API says with such a status.
    pub body: Option<String>,
}

impl Reply {
    /// A plain answer.
    pub fn status(status: u16) -> Reply {
        Reply { status, delay: Duration::ZERO, retry_after: None, body: None }
    }
}

/// One call that came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// The path asked for.
    pub path: String,
    /// The id asked for.
    pub id: String,
    /// When, in ms since the epoch.
    pub at: i64,
    /// The request's `Authorization`.
    pub authorization: Option<String>,
    /// The request's `traceparent`.
    pub traceparent: Option<String>,
}

#[derive(Debug, Default)]
struct Script {
    replies: HashMap<String, Vec<Reply>>,
    objects: HashMap<String, Value>,
    calls: Vec<Call>,
    /// The OAuth token that is good now, and how many there were.
    token: Option<String>,
    tokens: usize,
}

type Shared = Arc<Mutex<Script>>;

/// The API; ends when dropped.
#[derive(Debug)]
pub struct FakeApi {
    port: u16,
    script: Shared,
    server: JoinHandle<()>,
}

impl FakeApi {
    /// Starts it. An id without a script is answered with 200 below `/objects/`; the providers' APIs answer
    /// with the object of that id, or 404.
    pub async fn start() -> FakeApi {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().route("/objects/{id}", get(object)).merge(providers::routes());
        let router = router.with_state(script.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving");
        });
        FakeApi { port, script, server }
    }

    /// The `hydrate.base_url` that asks it in place of any provider.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The `hydrate.url` that asks it by object id.
    pub fn by_object(&self) -> String {
        format!("http://127.0.0.1:{}/objects/{{object_id}}", self.port)
    }

    /// The `hydrate.url` that asks it by event id.
    pub fn by_event(&self) -> String {
        format!("http://127.0.0.1:{}/objects/{{event_id}}", self.port)
    }

    /// Answers for an id, one per call; the last one stays.
    pub fn script(&self, id: &str, replies: Vec<Reply>) {
        assert!(!replies.is_empty(), "a script has answers");
        self.script.lock().unwrap().replies.insert(id.to_owned(), replies);
    }

    /// What an API knows of an id from now on.
    pub fn put(&self, id: &str, object: Value) {
        self.script.lock().unwrap().objects.insert(id.to_owned(), object);
    }

    /// Makes the OAuth token that was given last worthless.
    pub fn revoke(&self) {
        self.script.lock().unwrap().token = None;
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.script.lock().unwrap().calls.clone()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An API of the test's own: it knows every id.
async fn object(
    State(script): State<Shared>,
    uri: Uri,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let reply = next(&script, &uri, &id, &headers).unwrap_or_else(|| Reply::status(200));
    let body = format!("{{\"id\":\"{id}\",\"fetched\":true}}");
    respond(reply, body).await
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Enters a call and returns what is scripted for it.
fn next(script: &Shared, uri: &Uri, id: &str, headers: &HeaderMap) -> Option<Reply> {
    let mut script = script.lock().unwrap();
    script.calls.push(Call {
        path: uri.path().to_owned(),
        id: id.to_owned(),
        at: now_ms(),
        authorization: header(headers, "authorization"),
        traceparent: header(headers, "traceparent"),
    });
    match script.replies.get_mut(id)? {
        replies if replies.len() > 1 => Some(replies.remove(0)),
        replies => Some(replies[0].clone()),
    }
}

/// Gives an answer; `body` is for a reply without one.
async fn respond(reply: Reply, body: String) -> Response {
    tokio::time::sleep(reply.delay).await;
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let json = [("content-type", "application/json")];
    let mut response = (status, json, reply.body.unwrap_or(body)).into_response();
    if let Some(after) = reply.retry_after {
        response.headers_mut().insert("retry-after", after.parse().expect("a header value"));
    }
    response
}
