//! The few requests the gateway makes itself: published keys and confirmation links.
//!
//! Their URLs come out of requests. A provider's rules have pinned the host before they get here; what is
//! left to this module holds for every one of them:
//! * https alone, to the host as it is written: no user, no port, no other reading of the text;
//! * GET, no redirects, no cookies, none of our secrets;
//! * `key_origin` of a source replaces scheme, host and port, and there plain http is allowed: an egress
//!   proxy that ends TLS, or a test.
//!
//! The environment's proxies are used, except towards this machine itself.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, Response, Url};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Scheme, host and port that requests go to instead.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Origin(Url);

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

impl Origin {
    /// Reads `http://HOST:PORT` or `https://HOST:PORT`; the port may be left out.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not a URL; write http://HOST:PORT")?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !bare || !anonymous {
            return Err("must be scheme, host and port alone, such as \"http://10.0.0.5:3000\"");
        }
        Ok(Self(url))
    }
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target(Url);

impl fmt::Debug for Target {
    /// Without path and query, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.host())
    }
}

impl Target {
    /// The place that `url` names, at `origin` if there is one. `None`: no URL to be fetched.
    pub(crate) fn new(url: &str, origin: Option<&Origin>) -> Option<Self> {
        let parsed = Url::parse(url).ok()?;
        let host = parsed.host_str()?;
        // The provider's rules looked at the text: it must mean the same to them and to the client.
        let rest = url.strip_prefix("https://")?.strip_prefix(host)?;
        if !rest.starts_with('/') || parsed.fragment().is_some() {
            return None;
        }
        let Some(Origin(origin)) = origin else {
            return Some(Self(parsed));
        };
        let mut moved = origin.clone();
        moved.set_path(parsed.path());
        moved.set_query(parsed.query());
        Some(Self(moved))
    }

    /// The host that is asked; safe to log.
    pub(crate) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The whole URL, not for logs.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.0.query_pairs();
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn is_local(&self) -> bool {
        let host = self.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The HTTP clients, made once.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    /// By the environment's proxies.
    usual: Client,
    /// For this machine itself.
    direct: Client,
}

impl Outbound {
    /// Clients that have not connected to anything yet.
    ///
    /// # Errors
    /// TLS or the environment's proxies cannot be set up.
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self { usual: builder().build()?, direct: builder().no_proxy().build()? })
    }

    /// Asks for the target. The caller bounds the wait and what it reads of the answer.
    ///
    /// # Errors
    /// No answer; the error does not repeat the URL.
    pub(crate) async fn get(&self, target: &Target) -> Result<Response, reqwest::Error> {
        let client = if target.is_local() { &self.direct } else { &self.usual };
        client.get(target.0.clone()).send().await.map_err(reqwest::Error::without_url)
    }
}

/// An error with its causes: the client's own words hide what happened behind "error sending request".
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for good in ["http://127.0.0.1:9", "https://proxy.example", "http://[::1]:80/"] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "proxy:80", "ftp://h", "http://h/x", "http://h?x", "http://u:p@h", "http://h#f"]
        {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_is_the_very_host_of_the_text_or_the_origin() {
        let url = "https://api.example.com/certs/A-1?x=%41&y=2";
        assert_eq!(Target::new(url, None).unwrap().as_str(), url);
        let origin = Origin::parse("http://127.0.0.1:9999").unwrap();
        let moved = Target::new(url, Some(&origin)).unwrap();
        assert_eq!(moved.as_str(), "http://127.0.0.1:9999/certs/A-1?x=%41&y=2");
        assert_eq!(moved.parameter("x").as_deref(), Some("A"));
        for bad in [
            "http://api.example.com/certs/A-1",
            "https://u@api.example.com/x",
            "https://api.example.com:8443/x",
            "https://api.example.com",
            "https://API.example.com/x",
            "https://api.example.com\\@evil.example/x",
            "https:///api.example.com/x",
            "https://api.example.com/x#f",
            " https://api.example.com/x",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(Target::new(bad, None), None, "{bad}");
            assert_eq!(Target::new(bad, Some(&origin)), None, "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_local_and_a_token_is_not_shown() {
        let local = |text: &str| {
            let origin = Origin::parse(text).unwrap();
            Target::new("https://h/x", Some(&origin)).unwrap().is_local()
        };
        for text in ["http://127.0.0.1:1", "http://127.9.9.9", "http://localhost:3", "http://[::1]"]
        {
            assert!(local(text), "{text}");
        }
        for text in ["http://10.0.0.1", "http://[2001:db8::1]", "http://localhost.example"] {
            assert!(!local(text), "{text}");
        }
        let target = Target::new("https://h/p?Token=topsecret", None).unwrap();
        assert_eq!(format!("{target:?}"), "Target(h)");
    }
}
