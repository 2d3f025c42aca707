//! The same JSON in other spellings.
//!
//! Something that parses a body and writes it again (a framework, an API gateway, a logger) keeps what it
//! says and loses the bytes that were signed. The spellings here are those that common writers produce:
//! white space, escaped slashes, escaped letters. The order of keys and the spelling of numbers stay, since
//! what was there before cannot be told.

/// White space between the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// None.
    Compact,
    /// A space after each colon and comma, as Python writes.
    Spaced,
    /// Lines indented by so many spaces, and a space after each colon.
    Indented(usize),
}

/// How a character is written inside strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    AsIs,
    Escaped,
    Plain,
}

/// Deepest nesting that is indented; what is deeper is written by no hand.
const MAX_DEPTH: usize = 64;

/// Every other spelling of a JSON document, with words for what it is; none of what is no JSON.
pub(super) fn spellings(body: &[u8]) -> impl Iterator<Item = (Vec<u8>, String)> {
    let layouts = [
        (Layout::Compact, "without white space between its parts"),
        (Layout::Spaced, "with a space after each colon and comma"),
        (Layout::Indented(2), "indented by two spaces"),
        (Layout::Indented(4), "indented by four spaces"),
    ];
    let slashes = [
        (Escapes::AsIs, ""),
        (Escapes::Escaped, ", slashes escaped"),
        (Escapes::Plain, ", slashes not escaped"),
    ];
    let letters = [
        (Escapes::AsIs, ""),
        (Escapes::Escaped, ", letters beyond ASCII escaped"),
        (Escapes::Plain, ", letters beyond ASCII not escaped"),
    ];
    let text = std::str::from_utf8(body)
        .ok()
        .filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
        .map(str::to_owned);
    text.into_iter().flat_map(move |text| {
        layouts.into_iter().flat_map(move |(layout, white)| {
            let text = text.clone();
            slashes.into_iter().flat_map(move |(slash, slashed)| {
                let text = text.clone();
                letters.into_iter().map(move |(letter, lettered)| {
                    let written = written(&text, layout, slash, letter);
                    (written.into_bytes(), format!("{white}{slashed}{lettered}"))
                })
            })
        })
    })
}

/// Writes a valid document anew.
fn written(text: &str, layout: Layout, slash: Escapes, letter: Escapes) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut depth = 0_usize;
    let mut characters = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        if let Layout::Indented(width) = layout {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth.min(MAX_DEPTH)));
        }
    };
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => {}
            '"' => {
                out.push('"');
                string(&mut characters, &mut out, slash, letter);
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                if layout == Layout::Spaced {
                    out.push(' ');
                }
                line(&mut out, depth);
            }
            ':' => {
                out.push(':');
                if layout != Layout::Compact {
                    out.push(' ');
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// The rest of a string, its closing quote included.
fn string(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
    slash: Escapes,
    letter: Escapes,
) {
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                out.push('"');
                return;
            }
            '\\' => match characters.next() {
                Some('/') if slash == Escapes::Plain => out.push('/'),
                Some('u') => {
                    let digits: String = characters.by_ref().take(4).collect();
                    unescape(&digits, characters, out, letter);
                }
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '/' if slash == Escapes::Escaped => out.push_str("\\/"),
            other if letter == Escapes::Escaped && !other.is_ascii() => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            other => out.push(other),
        }
    }
}

/// Writes the character behind `\u`, plain where that is asked for and it is beyond ASCII.
fn unescape(
    digits: &str,
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    out: &mut String,
    letter: Escapes,
) {
    let unit = u16::from_str_radix(digits, 16).unwrap_or(0);
    if letter != Escapes::Plain || unit < 0x80 {
        out.push_str("\\u");
        out.push_str(digits);
        return;
    }
    let mut units = vec![unit];
    let mut low = String::new();
    if (0xd800..0xdc00).contains(&unit) {
        // The second half of a pair, `\uXXXX`; valid JSON may lack it.
        let mut ahead = characters.clone();
        if ahead.next() == Some('\\') && ahead.next() == Some('u') {
            low = ahead.by_ref().take(4).collect();
            units.extend(u16::from_str_radix(&low, 16));
        }
    }
    match String::from_utf16(&units) {
        Ok(text) => {
            out.push_str(&text);
            // The second half was read as well: `\u` and its digits.
            for _ in 0..low.len().min(4) + if low.is_empty() { 0 } else { 2 } {
                characters.next();
            }
        }
        Err(_) => {
            out.push_str("\\u");
            out.push_str(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn each_layout_is_what_common_writers_produce() {
        let text = "{\"a\" :[1, 2,{}],\n\"b\":{\"c\":\"x: {y}, \\\"z\"},\"d\":[ ]}";
        let as_is = |layout| written(text, layout, Escapes::AsIs, Escapes::AsIs);
        assert_eq!(as_is(Layout::Compact), r#"{"a":[1,2,{}],"b":{"c":"x: {y}, \"z"},"d":[]}"#);
        assert_eq!(
            as_is(Layout::Spaced),
            r#"{"a": [1, 2, {}], "b": {"c": "x: {y}, \"z"}, "d": []}"#
        );
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(as_is(Layout::Indented(2)), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn escapes_are_changed_inside_strings_alone_and_say_the_same() {
        let text = r#"{"u":"a/b\/c \u00e9é \ud83d\ude00 \ud83d x \u0041"}"#;
        let with = |slash, letter| written(text, Layout::Compact, slash, letter);
        assert_eq!(with(Escapes::AsIs, Escapes::AsIs), text);
        assert_eq!(
            with(Escapes::Escaped, Escapes::Escaped),
            r#"{"u":"a\/b\/c \u00e9\u00e9 \ud83d\ude00 \ud83d x \u0041"}"#
        );
        assert_eq!(with(Escapes::Plain, Escapes::Plain), r#"{"u":"a/b/c éé 😀 \ud83d x \u0041"}"#);
    }

    #[test]
    fn what_is_no_json_has_no_other_spelling() {
        assert_eq!(spellings(b"{\"a\":1}").count(), 36);
        assert_eq!(spellings(b"a=1&b=2").count(), 0);
        assert_eq!(spellings(b"\xff").count(), 0);
        assert_eq!(spellings(b"").count(), 0);
    }
}
