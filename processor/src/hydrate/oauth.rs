//! Access tokens by client credentials (RFC 6749 §4.4), one at a time per source.
//!
//! A token is used until a minute before it expires. Whoever finds none asks for one, the others wait
//! for that answer: the lock is held over the request, and the wait is bounded by each caller's own
//! time-out. A token is never logged and never part of an error.

use super::{
    client::{self, Refusal},
    endpoint::encode,
};
use crate::failure::Failure;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A token is replaced this long before it expires.
const MARGIN: Duration = Duration::from_secs(60);

/// Life of a token whose answer does not tell it.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// Longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(86_400);

/// Largest answer of a token endpoint, bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Longest token, bytes.
const MAX_TOKEN: usize = 16 << 10;

/// The token of one source and how to get the next.
#[derive(Debug)]
pub(super) struct Tokens {
    url: String,
    id: SecretString,
    secret: SecretString,
    cached: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    value: SecretString,
    /// When the next one is fetched.
    until: Instant,
}

impl Tokens {
    /// Tokens from the endpoint at `url`.
    pub(super) fn new(url: String, (id, secret): (SecretString, SecretString)) -> Tokens {
        Tokens { url, id, secret, cached: Mutex::new(None) }
    }

    /// A token that is good now, fetched if there is none.
    pub(super) async fn get(&self, http: &reqwest::Client) -> Result<SecretString, Refusal> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.value.clone());
        }
        // RFC 6749 §2.3.1: both are form-encoded before they become user and password.
        let encoded = |secret: &SecretString| encode(secret.expose_secret());
        let request = http
            .post(&self.url)
            .basic_auth(encoded(&self.id), Some(encoded(&self.secret)))
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials");
        let asked = Instant::now();
        let answer = client::send(request, MAX_ANSWER).await?;
        let (value, life) = read(&answer).ok_or_else(|| {
            Failure::transient("hydrate_token", "the token endpoint's answer has no usable token")
        })?;
        *cached = Some(Token { value: value.clone(), until: asked + usable(life) });
        Ok(value)
    }

    /// Drops a token that was refused, unless another one has taken its place already.
    pub(super) async fn forget(&self, refused: &SecretString) {
        let mut cached = self.cached.lock().await;
        cached.take_if(|token| token.value.expose_secret() == refused.expose_secret());
    }
}

/// How long a token of this life is used.
fn usable(life: Duration) -> Duration {
    let life = life.min(MAX_LIFE);
    life.saturating_sub(MARGIN).max(life / 2)
}

/// Token and life of an answer (RFC 6749 §5.1).
fn read(answer: &[u8]) -> Option<(SecretString, Duration)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let token = answer.get("access_token")?.as_str()?;
    let legal = !token.is_empty() && token.len() <= MAX_TOKEN;
    if !legal || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let life = match answer.get("expires_in") {
        Some(Value::Number(seconds)) => seconds.as_u64(),
        Some(Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    Some((token.into(), life.map_or(DEFAULT_LIFE, Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_before_it_expires() {
        let seconds = Duration::from_secs;
        assert_eq!(usable(seconds(32_400)), seconds(32_340));
        assert_eq!(usable(seconds(90)), seconds(45), "a short life is not used up by the margin");
        assert_eq!(usable(seconds(u64::MAX)), seconds(86_340));
    }

    #[test]
    fn answers_are_read_with_care() {
        let life = |text: &str| read(text.as_bytes()).map(|(_, life)| life.as_secs());
        assert_eq!(life(r#"{"access_token":"A21.x","expires_in":32400}"#), Some(32_400));
        assert_eq!(life(r#"{"access_token":"A21.x","expires_in":"90"}"#), Some(90));
        assert_eq!(life(r#"{"access_token":"A21.x"}"#), Some(300));
        for bad in [r#"{"expires_in":1}"#, r#"{"access_token":""}"#, "{", r#"{"access_token":7}"#] {
            assert_eq!(life(bad), None, "{bad}");
        }
        assert_eq!(life("{\"access_token\":\"a b\"}"), None, "white space");
        assert_eq!(life(&format!(r#"{{"access_token":"{}"}}"#, "x".repeat(MAX_TOKEN + 1))), None);
    }
}
