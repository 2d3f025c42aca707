//! One HTTP request: bounded in size, without redirects, and its failures told apart.

use crate::failure::Failure;
use secrecy::{ExposeSecret, SecretString};

/// Largest answer kept, bytes.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// Longest `Retry-After` believed, ms.
const MAX_RETRY_AFTER: i64 = 86_400_000;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another status than 200.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`, ms.
        retry_after: Option<i64>,
    },
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Failed(failure)
    }
}

/// The client of all sources.
pub(super) fn build() -> Result<reqwest::Client, reqwest::Error> {
    // A redirect could carry the token to another host.
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Fetches `url`. Waiting is bounded by the caller.
pub(super) async fn get(
    http: &reqwest::Client,
    url: &str,
    headers: &[(&str, &str)],
    bearer: Option<&SecretString>,
) -> Result<Vec<u8>, Refusal> {
    let mut request = http.get(url).header("accept", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer.expose_secret());
    }
    send(request, MAX_ANSWER).await
}

/// Sends a request and reads its answer, at most `longest` bytes of it.
pub(super) async fn send(
    request: reqwest::RequestBuilder,
    longest: usize,
) -> Result<Vec<u8>, Refusal> {
    let unavailable = |error: reqwest::Error| {
        // The URL may name a customer's object; the cause is enough.
        Failure::transient("hydrate_connection", with_causes(&error.without_url()))
    };
    let mut response = request.send().await.map_err(unavailable)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Refusal::Status { status, retry_after: retry_after(&response) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
        if body.len() + chunk.len() > longest {
            let text = format!("the answer has more than {longest} bytes");
            return Err(Failure::permanent("hydrate_too_large", text).into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The HTTP client's own words hide what happened behind "error sending request".
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `Retry-After` in ms, where it is given in seconds (RFC 9110 §10.2.3).
fn retry_after(response: &reqwest::Response) -> Option<i64> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    let seconds: i64 = value.trim().parse().ok()?;
    (seconds >= 0).then(|| seconds.saturating_mul(1000).min(MAX_RETRY_AFTER))
}
