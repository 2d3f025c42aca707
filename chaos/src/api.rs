//! The API that events of the source `thin` ask. What it answers is written in the event's ID.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::ledger::Fate;

/// How often each flaky event has asked. It only counts up: an attempt whose transaction was aborted
/// asks again, and must not find the API failing once more.
type Asked = Arc<Mutex<HashMap<u64, u8>>>;

/// The API on loopback; it ends when dropped.
#[derive(Debug)]
pub struct Api {
    port: u16,
    server: JoinHandle<()>,
}

impl Api {
    /// Starts it.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> anyhow::Result<Api> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the API")?;
        let port = listener.local_addr().context("the API's address")?.port();
        let router = Router::new().route("/events/{id}", get(answer)).with_state(Asked::default());
        let server = tokio::spawn(async move {
            // It ends with the run; nobody is left to tell of an error.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Api { port, server })
    }

    /// The `hydrate.url` that asks it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events/{{event_id}}", self.port)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(asked): State<Asked>, Path(id): Path<String>) -> (StatusCode, String) {
    let status = Fate::of_id(&id).map_or(StatusCode::BAD_REQUEST, |(fate, number)| match fate {
        Fate::Plain | Fate::Ordered | Fate::Batched | Fate::Known => StatusCode::OK,
        Fate::Gone => StatusCode::NOT_FOUND,
        Fate::Hopeless => StatusCode::SERVICE_UNAVAILABLE,
        Fate::Flaky(failures) => {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(number).or_default();
            *times = times.saturating_add(1);
            if *times > failures { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        }
    });
    (status, format!("{{\"id\":\"{id}\"}}"))
}
