//! Where providers publish their keys, on loopback: what a source with this `key_origin` asks instead.
//!
//! It knows the documents a test has put there, below the paths of the real ones, and notes every request.
//! The link that confirms a subscription leads here as well.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What Amazon SNS answers to an opened link, in short.
const CONFIRMED: &str =
    "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"/>";

#[derive(Debug, Default)]
struct Known {
    documents: HashMap<String, String>,
    is_down: bool,
    asked: Vec<String>,
}

/// The publisher; ends when dropped.
#[derive(Debug)]
pub struct FakeKeys {
    port: u16,
    known: Arc<Mutex<Known>>,
    server: JoinHandle<()>,
}

impl FakeKeys {
    /// Starts it without any document: 404 to everything but a confirmation link.
    pub async fn start() -> FakeKeys {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let known = Arc::new(Mutex::new(Known::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&known));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving");
        });
        FakeKeys { port, known, server }
    }

    /// The `key_origin` that leads here.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Publishes a document, in place of what was there.
    pub fn put(&self, path: &str, document: &str) {
        self.known.lock().unwrap().documents.insert(path.to_owned(), document.to_owned());
    }

    /// Answers 503 to everything, or no longer.
    pub fn is_down(&self, is_down: bool) {
        self.known.lock().unwrap().is_down = is_down;
    }

    /// The requests so far whose path and query begin so, each as `GET /path?query`.
    pub fn asked(&self, beginning: &str) -> Vec<String> {
        let known = self.known.lock().unwrap();
        let of_this = |request: &&String| {
            request.split_once(' ').is_some_and(|(_, target)| target.starts_with(beginning))
        };
        known.asked.iter().filter(of_this).cloned().collect()
    }
}

impl Drop for FakeKeys {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(known): State<Arc<Mutex<Known>>>, method: Method, uri: Uri) -> Response {
    let mut known = known.lock().unwrap();
    known.asked.push(format!("{method} {uri}"));
    if known.is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(document) = known.documents.get(uri.path()) {
        return document.clone().into_response();
    }
    let confirms = uri.query().is_some_and(|query| query.contains("Action=ConfirmSubscription"));
    if uri.path() == "/" && confirms {
        return CONFIRMED.into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}
