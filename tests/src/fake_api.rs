//! A provider's API on loopback whose answers a test writes, per object.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
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
    /// Body; by default a small JSON object that names the id.
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
    calls: Vec<Call>,
}

/// The API; ends when dropped.
#[derive(Debug)]
pub struct FakeApi {
    port: u16,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl FakeApi {
    /// Starts it. An id without a script is answered with 200.
    pub async fn start() -> FakeApi {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().route("/objects/{id}", get(answer)).with_state(script.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving");
        });
        FakeApi { port, script, server }
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

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let reply = {
        let mut script = script.lock().unwrap();
        script.calls.push(Call {
            id: id.clone(),
            at: now_ms(),
            authorization: header("authorization"),
            traceparent: header("traceparent"),
        });
        match script.replies.get_mut(&id) {
            None => Reply::status(200),
            Some(replies) if replies.len() > 1 => replies.remove(0),
            Some(replies) => replies[0].clone(),
        }
    };
    tokio::time::sleep(reply.delay).await;
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let body = reply.body.unwrap_or_else(|| format!("{{\"id\":\"{id}\",\"fetched\":true}}"));
    let mut response = (status, body).into_response();
    if let Some(after) = reply.retry_after {
        response.headers_mut().insert("retry-after", after.parse().expect("a header value"));
    }
    response
}
