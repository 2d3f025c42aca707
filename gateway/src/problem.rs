//! Every answer that is not an acknowledgement, as an RFC 9457 problem document.
//!
//! One enum, so that the table of answers can be read in one place and no handler writes a status
//! by hand. Texts are for the sender of the request: they hold no secret, no address of a broker and
//! nothing of the request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use crate::metrics::Outcome;

/// `Content-Type` of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The path names no configured source.
    UnknownSource,
    /// A method the source does not take; those it does, as in `Allow`.
    MethodNotAllowed(&'static str),
    /// The client address is not on the source's allow list.
    AddressNotAllowed,
    /// A rate limit is used up; the time until a request conforms again.
    RateLimited(Duration),
    /// More headers, or larger ones, than configured.
    HeadersTooLarge,
    /// The body is larger than configured.
    BodyTooLarge,
    /// More events in one request than configured, or than the send queue holds.
    BatchTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended early or is not framed as its headers say.
    BodyBroken,
    /// The signature does not verify; the status its provider expects.
    Unverified(u16),
    /// More requests in flight than configured.
    Overloaded,
    /// What the gateway stores to cannot be reached, or did not answer in time.
    Unavailable,
    /// The key that the request names could not be fetched from its provider.
    KeyUnavailable,
}

/// The members of a problem document.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    request_id: &'a str,
}

impl Problem {
    /// HTTP status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::UnknownSource => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::AddressNotAllowed => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge | Self::BatchTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken => StatusCode::BAD_REQUEST,
            // Providers' statuses are constants of theirs; a nonsensical one must not become a 2xx.
            Self::Unverified(status) => StatusCode::from_u16(status)
                .ok()
                .filter(StatusCode::is_client_error)
                .unwrap_or(StatusCode::UNAUTHORIZED),
            Self::Overloaded | Self::Unavailable | Self::KeyUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Whether much of a body may still be on its way, which nobody will read.
    pub(crate) fn leaves_body(self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge | Self::BodyTimeout | Self::Overloaded | Self::RateLimited(_)
        )
    }

    /// How the request is counted.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::UnknownSource => Outcome::UnknownSource,
            Self::MethodNotAllowed(_) => Outcome::MethodNotAllowed,
            Self::AddressNotAllowed => Outcome::AddressNotAllowed,
            Self::RateLimited(_) => Outcome::RateLimited,
            Self::HeadersTooLarge => Outcome::HeadersTooLarge,
            Self::BodyTooLarge | Self::BatchTooLarge => Outcome::BodyTooLarge,
            Self::BodyTimeout => Outcome::Timeout,
            Self::BodyBroken => Outcome::Malformed,
            Self::Unverified(_) => Outcome::Unverified,
            Self::Overloaded => Outcome::Overloaded,
            Self::Unavailable => Outcome::Unavailable,
            Self::KeyUnavailable => Outcome::KeyUnavailable,
        }
    }

    /// Type, title and detail of the document.
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::UnknownSource => (
                "urn:sluice:problem:unknown-source",
                "Unknown source",
                "No source of this name is configured; webhooks are posted to /webhooks/{source}.",
            ),
            Self::MethodNotAllowed(_) => (
                "urn:sluice:problem:method-not-allowed",
                "Method not allowed",
                "This source takes webhooks by the methods in Allow only.",
            ),
            Self::AddressNotAllowed => (
                "urn:sluice:problem:address-not-allowed",
                "Address not allowed",
                "This source takes requests from listed networks only.",
            ),
            Self::RateLimited(_) => (
                "urn:sluice:problem:rate-limited",
                "Too many requests",
                "Send again after the time in Retry-After.",
            ),
            Self::HeadersTooLarge => (
                "urn:sluice:problem:headers-too-large",
                "Request headers too large",
                "The request has more headers, or larger ones, than this endpoint takes.",
            ),
            Self::BodyTooLarge => (
                "urn:sluice:problem:body-too-large",
                "Request body too large",
                "The body is larger than this endpoint takes.",
            ),
            Self::BatchTooLarge => (
                "urn:sluice:problem:batch-too-large",
                "Batch too large",
                "The request carries more events than this endpoint takes at once; send fewer.",
            ),
            Self::BodyTimeout => (
                "urn:sluice:problem:request-timeout",
                "Request timeout",
                "The request did not arrive completely in time; send it again.",
            ),
            Self::BodyBroken => (
                "urn:sluice:problem:malformed-request",
                "Malformed request",
                "The body ended early or is not framed as its headers say.",
            ),
            Self::Unverified(_) => (
                "urn:sluice:problem:signature",
                "Signature not verified",
                "The signature of the request could not be verified.",
            ),
            Self::Overloaded => (
                "urn:sluice:problem:overloaded",
                "Overloaded",
                "Too many requests are in flight; nothing was stored, send it again.",
            ),
            Self::Unavailable => (
                "urn:sluice:problem:unavailable",
                "Temporarily unavailable",
                "The event could not be stored durably in time; send it again.",
            ),
            Self::KeyUnavailable => (
                "urn:sluice:problem:key-unavailable",
                "Temporarily not verifiable",
                "The published key could not be fetched; nothing was stored, send it again.",
            ),
        }
    }

    /// Seconds after which sending again makes sense, if it does.
    fn retry_after(self) -> Option<u64> {
        match self {
            // Rounded up, so that a sender who waits exactly that long conforms.
            Self::RateLimited(wait) => {
                Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
            }
            Self::Overloaded => Some(1),
            Self::Unavailable | Self::KeyUnavailable => Some(5),
            _ => None,
        }
    }

    /// The document as JSON.
    pub(crate) fn document(self, request_id: &str) -> Vec<u8> {
        let (r#type, title, detail) = self.texts();
        let status = self.status().as_u16();
        let document = Document { r#type, title, status, detail, request_id };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The answer.
    pub(crate) fn response(self, request_id: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.document(request_id)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            Self::MethodNotAllowed(allow) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            // RFC 9110 wants a challenge in every 401.
            Self::Unverified(401) => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Webhook-Signature"),
                );
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn all() -> Vec<Problem> {
        vec![
            Problem::UnknownSource,
            Problem::MethodNotAllowed("POST"),
            Problem::AddressNotAllowed,
            Problem::RateLimited(Duration::from_millis(1)),
            Problem::HeadersTooLarge,
            Problem::BodyTooLarge,
            Problem::BatchTooLarge,
            Problem::BodyTimeout,
            Problem::BodyBroken,
            Problem::Unverified(401),
            Problem::Unverified(498),
            Problem::Overloaded,
            Problem::Unavailable,
            Problem::KeyUnavailable,
        ]
    }

    #[test]
    fn every_problem_is_a_complete_document_and_never_a_success() {
        for problem in all() {
            let value: serde_json::Value =
                serde_json::from_slice(&problem.document("an-id")).unwrap();
            assert_eq!(value["status"], problem.status().as_u16());
            assert_eq!(value["request_id"], "an-id");
            for member in ["type", "title", "detail"] {
                assert!(!value[member].as_str().unwrap().is_empty(), "{problem:?} {member}");
            }
            assert!(!problem.status().is_success(), "{problem:?}");
            let response = problem.response("an-id");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn the_headers_a_status_demands_are_there() {
        let header = |problem: Problem, name| {
            problem.response("id").headers().get(name).map(|v| v.to_str().unwrap().to_owned())
        };
        let retry_after = |problem| header(problem, header::RETRY_AFTER);
        for allow in ["POST", "GET, POST"] {
            let problem = Problem::MethodNotAllowed(allow);
            assert_eq!(header(problem, header::ALLOW).as_deref(), Some(allow));
        }
        let rate_limited = |ms| Problem::RateLimited(Duration::from_millis(ms));
        assert_eq!(retry_after(rate_limited(0)).as_deref(), Some("1"));
        assert_eq!(retry_after(rate_limited(2000)).as_deref(), Some("2"));
        assert_eq!(retry_after(rate_limited(2001)).as_deref(), Some("3"));
        assert!(retry_after(Problem::Unavailable).is_some());
        assert!(retry_after(Problem::Overloaded).is_some());
        assert!(retry_after(Problem::KeyUnavailable).is_some());
        assert_eq!(retry_after(Problem::UnknownSource), None);
        assert!(header(Problem::Unverified(401), header::WWW_AUTHENTICATE).is_some());
    }

    #[test]
    fn a_providers_status_is_used_unless_it_would_acknowledge() {
        assert_eq!(Problem::Unverified(498).status().as_u16(), 498);
        for wrong in [200, 302, 500, 7] {
            assert_eq!(Problem::Unverified(wrong).status(), StatusCode::UNAUTHORIZED);
        }
    }
}
