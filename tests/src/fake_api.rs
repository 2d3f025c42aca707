//! A provider's API on the loopback, for hydration: what it answers is written beforehand for each
//! object, and it remembers when each question came.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::now_ms;

/// One answer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Value of `Retry-After`, seconds.
    pub retry_after: Option<u32>,
    /// How long the answer is held back.
    pub delay: Duration,
    /// Body.
    pub body: String,
}

impl Answer {
    /// An answer at once, without a body worth reading.
    pub fn status(status: u16) -> Self {
        Self { status, retry_after: None, delay: Duration::ZERO, body: "{}".to_owned() }
    }

    /// 200 with this body.
    pub fn found(body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }
}

/// One question the API was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it came, ms since 1970.
    pub at: i64,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// What was answered.
    pub status: u16,
}

#[derive(Debug, Default)]
struct Script {
    answers: Vec<Answer>,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, Default)]
struct Scripts(Arc<Mutex<HashMap<String, Script>>>);

impl Scripts {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Script>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The API; it ends with this value.
#[derive(Debug)]
pub struct FakeApi {
    base: String,
    scripts: Scripts,
    server: JoinHandle<()>,
}

impl FakeApi {
    /// Starts an API that knows no object: every question is answered 404.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let scripts = Scripts::default();
        let router =
            Router::new().route("/objects/{id}", get(answer)).with_state(scripts.clone());
        let server = tokio::spawn(async move {
            // It ends with the runtime or the abort of its owner; a test then has no more questions.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { base, scripts, server })
    }

    /// The URL for `[source.hydrate]`, with the placeholder for the object.
    pub fn url(&self) -> String {
        format!("{}/objects/{{object_id}}", self.base)
    }

    /// What is answered for an object, in order; the last answer repeats. Replaces what was said before,
    /// and keeps the calls.
    pub fn script(&self, object: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut scripts = self.scripts.lock();
        let script = scripts.entry(object.to_owned()).or_default();
        script.answers = answers.into_iter().collect();
        script.answers.reverse();
    }

    /// Every question about an object so far.
    pub fn calls(&self, object: &str) -> Vec<Call> {
        self.scripts.lock().get(object).map_or_else(Vec::new, |script| script.calls.clone())
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(scripts): State<Scripts>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = {
        let mut scripts = scripts.lock();
        let script = scripts.entry(id).or_default();
        let answer = match script.answers.as_slice() {
            [] => Answer::status(404),
            [last] => last.clone(),
            _ => script.answers.pop().unwrap_or_else(|| Answer::status(404)),
        };
        script.calls.push(Call { at: now_ms(), authorization, status: answer.status });
        answer
    };
    // The delay is what is scripted: a slow API, not a wait for anything here.
    tokio::time::sleep(answer.delay).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
