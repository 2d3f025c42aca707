//! `sluice verify --vectors`: judges signature cases, one JSON object a line, as they come.
//!
//! Each line brings its own configuration and clock, so neither a configuration file nor a network is
//! needed. One line is in memory at a time, and each answer is written before the next line is read:
//! a program may hold a conversation with this command over two pipes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::Context as _;
use serde::Deserialize;
use sluice_providers::vectors::{Judgement, Outcome as Verdict, Vector};

use crate::{
    exit::{Outcome, Usage},
    output::{Output, note},
};

/// Longest line in bytes: a request with the largest body that sources can be set to take.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// Most disagreements that are named; all are counted.
const MAX_NAMED: u64 = 20;

/// What a line says should come out, for `--expect`.
#[derive(Debug, Default, Deserialize)]
struct Expectation {
    /// `accept` or `reject`; absent where the line makes no claim.
    #[serde(default)]
    expect: Option<String>,
    /// `false` marks a choice that implementations may make differently.
    #[serde(default)]
    must: Option<bool>,
}

/// How many lines agreed with what they expect.
#[derive(Debug, Default)]
struct Tally {
    compared: u64,
    by_choice: u64,
    wrong: u64,
}

/// Judges every line of a file; `-` is standard input.
///
/// # Errors
/// A file that cannot be read, or a line that is no case; the answers to the lines before it are out.
pub(super) fn run(output: Output, path: &Path, compare: bool) -> anyhow::Result<Outcome> {
    let reading = || format!("reading {}", path.display());
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).with_context(reading)?)
    };
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        let wrong = |problem: &str| Usage(format!("{}: line {number} {problem}", path.display()));
        if !next_line(&mut input, &mut line).with_context(reading)? {
            break;
        }
        if line.len() > MAX_LINE {
            return Err(wrong(&format!("is longer than {MAX_LINE} bytes")).into());
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let vector: Vector = serde_json::from_slice(text)
            .map_err(|error| wrong(&format!("is no vector: {error}")))?;
        let judgement = vector.judge();
        output.json(&judgement)?;
        if compare {
            // What a line claims may be of any shape; what is no claim is not compared.
            tally.add(&judgement, &serde_json::from_slice(text).unwrap_or_default());
        }
    }
    if !compare {
        return Ok(Outcome::Done);
    }
    note(&tally.summary());
    Ok(if tally.wrong == 0 { Outcome::Done } else { Outcome::Differences })
}

/// Reads a line, its end included, of which no more is kept than shows that it is too long. `false` at
/// the end of the file.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)? > 0)
}

impl Expectation {
    /// What differs, in words; `None` when the judgement is as expected.
    fn difference(&self, judgement: &Judgement) -> Option<String> {
        let verdict = if judgement.verdict == Verdict::Accept { "accept" } else { "reject" };
        let expected = self.expect.as_deref().unwrap_or(verdict);
        (expected != verdict)
            .then(|| format!("{verdict}, expected {expected} ({})", judgement.reason))
    }
}

impl Tally {
    fn add(&mut self, judgement: &Judgement, expectation: &Expectation) {
        if expectation.expect.is_none() {
            return;
        }
        self.compared += 1;
        let Some(difference) = expectation.difference(judgement) else {
            return;
        };
        let must = expectation.must.unwrap_or(true);
        *(if must { &mut self.wrong } else { &mut self.by_choice }) += 1;
        if self.wrong + self.by_choice <= MAX_NAMED {
            let weight = if must { "must agree" } else { "a choice" };
            note(&format!("{}: {difference} [{weight}]", judgement.id));
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} compared: {} agree, {} differ by choice, {} must agree and do not",
            self.compared,
            self.compared - self.by_choice - self.wrong,
            self.by_choice,
            self.wrong,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn judgement(verdict: Verdict) -> Judgement {
        Judgement {
            id: "a/b".to_owned(),
            verdict,
            reason: "mismatch".to_owned(),
            event_id: None,
            event_type: None,
        }
    }

    #[test]
    fn what_a_line_claims_is_compared_and_what_it_does_not_claim_is_not() {
        let expects = |text: &str| serde_json::from_str::<Expectation>(text).unwrap();
        let accept = judgement(Verdict::Accept);
        let reject = judgement(Verdict::Reject);
        assert_eq!(expects(r#"{"expect":"accept"}"#).difference(&accept), None);
        let other = expects(r#"{"expect":"reject"}"#).difference(&accept).unwrap();
        assert!(other.contains("expected reject"), "{other}");
        assert_eq!(expects(r#"{"expect":"reject"}"#).difference(&reject), None);

        let mut tally = Tally::default();
        tally.add(&accept, &expects(r#"{"id":1}"#));
        tally.add(&accept, &expects(r#"{"expect":"accept","must":true}"#));
        tally.add(&accept, &expects(r#"{"expect":"reject","must":false}"#));
        tally.add(&reject, &expects(r#"{"expect":"accept"}"#));
        assert_eq!((tally.compared, tally.by_choice, tally.wrong), (3, 1, 1));
        assert!(tally.summary().starts_with("3 compared: 1 agree"), "{}", tally.summary());
    }

    #[test]
    fn a_line_without_an_end_is_kept_no_longer_than_needed() {
        let mut line = Vec::new();
        let mut endless = BufReader::new(io::repeat(b'x'));
        assert!(next_line(&mut endless, &mut line).unwrap());
        assert_eq!(line.len(), MAX_LINE + 1);
        let mut two = &b"a\n\nb"[..];
        for wanted in [&b"a\n"[..], b"\n", b"b"] {
            assert!(next_line(&mut two, &mut line).unwrap());
            assert_eq!(line, wanted);
        }
        assert!(!next_line(&mut two, &mut line).unwrap());
    }
}
