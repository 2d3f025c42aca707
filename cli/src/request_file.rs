//! Reads a saved HTTP request: request line, headers, a blank line, the body.
//!
//! Line ends of the head may be LF or CRLF. The body is taken byte for byte, because that is what was
//! signed; `Content-Length` tells it from what an editor may have added at the end of the file.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_LENGTH};

/// A request as it was saved.
#[derive(Debug, Clone)]
pub struct SavedRequest {
    /// Method in upper case.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// All headers in order.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What was odd about the file, in words.
    pub remarks: Vec<String>,
}

/// Why a file is no saved request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFileError {
    /// The first line is not a request line.
    #[error("line 1 is not a request line; write it like `POST /webhooks/stripe HTTP/1.1`")]
    RequestLine,
    /// A line of the head is no header.
    #[error(
        "line {line} is not a header; write it like `Stripe-Signature: t=…`, and a blank line before the body"
    )]
    Header {
        /// Its number, from 1.
        line: usize,
    },
    /// The head does not end.
    #[error("there is no blank line after the headers, so there is no body")]
    NoBlankLine,
}

/// Reads the bytes of a file.
///
/// # Errors
/// Where the head is not written as HTTP has it.
pub fn parse(file: &[u8]) -> Result<SavedRequest, RequestFileError> {
    let mut rest = file;
    let request_line = take_line(&mut rest).ok_or(RequestFileError::RequestLine)?;
    let (method, target) = request_line_of(request_line).ok_or(RequestFileError::RequestLine)?;
    let mut headers = HeaderMap::new();
    for line in 2.. {
        let text = take_line(&mut rest).ok_or(RequestFileError::NoBlankLine)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = header_of(text).ok_or(RequestFileError::Header { line })?;
        headers.append(name, value);
    }
    let mut remarks = Vec::new();
    let body = body_of(rest, &headers, &mut remarks);
    Ok(SavedRequest { method, target, headers, body: Bytes::copy_from_slice(body), remarks })
}

/// The next line without its end; `None` when no line end follows.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

fn request_line_of(line: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let version = words.next();
    let well = !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_alphabetic())
        && version.is_none_or(|version| version.starts_with("HTTP/"))
        && words.next().is_none();
    well.then(|| (method.to_ascii_uppercase(), origin_form(target)))
        .filter(|(_, target)| target.starts_with('/'))
}

/// Path and query of a target that may be written as a whole URL.
fn origin_form(target: &str) -> String {
    let Some((_, after_scheme)) = target.split_once("://") else {
        return target.to_owned();
    };
    match after_scheme.find(['/', '?']) {
        Some(at) if after_scheme[at..].starts_with('/') => after_scheme[at..].to_owned(),
        Some(at) => format!("/{}", &after_scheme[at..]),
        None => "/".to_owned(),
    }
}

fn header_of(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

fn body_of<'a>(rest: &'a [u8], headers: &HeaderMap, remarks: &mut Vec<String>) -> &'a [u8] {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    match declared {
        Some(length) if length < rest.len() => {
            let extra = rest.len() - length;
            remarks.push(format!(
                "the file holds {extra} byte(s) more than Content-Length says; they were left out"
            ));
            &rest[..length]
        }
        Some(length) if length > rest.len() => {
            remarks.push(format!(
                "Content-Length says {length} bytes, but the file holds {} of the body: it was cut or altered when it was saved",
                rest.len()
            ));
            rest
        }
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn both_line_ends_are_read_and_the_body_is_exact() {
        for end in ["\n", "\r\n"] {
            let file =
                ["post /webhooks/shop?a=1 HTTP/1.1", "X-A: 1 ", "x-a:2", "", "{\r\n}\n"].join(end);
            let request = parse(file.as_bytes()).unwrap();
            assert_eq!(request.method, "POST");
            assert_eq!(request.target, "/webhooks/shop?a=1");
            let values: Vec<_> = request.headers.get_all("x-a").iter().collect();
            assert_eq!(values, ["1", "2"]);
            assert_eq!(&request.body[..], b"{\r\n}\n");
            assert!(request.remarks.is_empty());
        }
    }

    #[test]
    fn a_whole_url_is_cut_to_path_and_query() {
        for (target, wanted) in [
            ("https://pay.example/hook?x=1", "/hook?x=1"),
            ("https://pay.example?x=1", "/?x=1"),
            ("https://pay.example", "/"),
            ("/hook", "/hook"),
        ] {
            let request = parse(format!("POST {target}\n\nb").as_bytes()).unwrap();
            assert_eq!(request.target, wanted);
        }
    }

    #[test]
    fn content_length_tells_the_body_from_what_an_editor_added() {
        let long = parse(b"POST / HTTP/1.1\ncontent-length: 2\n\n{}\n").unwrap();
        assert_eq!(&long.body[..], b"{}");
        assert!(long.remarks[0].contains("1 byte(s) more"), "{:?}", long.remarks);
        let short = parse(b"POST / HTTP/1.1\ncontent-length: 9\n\n{}").unwrap();
        assert_eq!(&short.body[..], b"{}");
        assert!(short.remarks[0].contains("cut or altered"), "{:?}", short.remarks);
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_line() {
        let error = |file: &[u8]| parse(file).unwrap_err();
        assert_eq!(error(b""), RequestFileError::RequestLine);
        assert_eq!(error(b"{\"id\": 1}\n\n"), RequestFileError::RequestLine);
        assert_eq!(error(b"POST hook HTTP/1.1\n\n"), RequestFileError::RequestLine);
        assert_eq!(
            error(b"POST / HTTP/1.1\na: b\nno header\n\n"),
            RequestFileError::Header { line: 3 }
        );
        assert_eq!(error(b"POST / HTTP/1.1\na: b\n"), RequestFileError::NoBlankLine);
        assert!(parse(b"POST / HTTP/1.1\na: b\n\n").is_ok());
    }
}
