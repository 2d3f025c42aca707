//! The only way to standard output and standard error.
//!
//! Results go to standard output, as text for people or JSON for machines; everything else (progress,
//! notes, questions) goes to standard error. Writing returns an error instead of panicking, so that a
//! closed pipe ends a command quietly. In text from Kafka or the network what a terminal would obey, or would show in
//! another order than it stands, is escaped: anybody may have written it.

use std::{
    fmt::Display,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use sluice_providers::is_printable;

/// Form of the results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Tables and sentences for people.
    #[default]
    Human,
    /// JSON, one document or one line per result, for machines.
    Json,
}

/// Standard output in the form asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    right: bool,
}

/// A column of text.
pub const fn text(title: &'static str) -> Column {
    Column { title, right: false }
}

/// A column of numbers, aligned to the right.
pub const fn number(title: &'static str) -> Column {
    Column { title, right: true }
}

impl Output {
    /// Output of this form.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a machine reads along.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Writes one line, or several, and sends them off.
    pub fn line(self, text: impl Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Writes a text as it is.
    pub fn raw(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Writes one JSON value on a line of its own.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        let line = json_line(value)?;
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()
    }

    /// Writes a table; nothing when it has no rows.
    pub fn table(self, columns: &[Column], rows: Vec<Vec<String>>) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.line(table(columns, rows))
    }
}

/// A value as JSON on one line, with what is unsafe to print escaped: JSON itself leaves it as it is.
fn json_line(value: &impl Serialize) -> io::Result<String> {
    let mut line = serde_json::to_string(value)?;
    if line.contains(is_unsafe) {
        // JSON leaves them as they are. Outside strings there are none.
        line = line.chars().fold(String::with_capacity(line.len() + 64), |mut escaped, c| {
            if is_unsafe(c) {
                // All of them are in the first plane.
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                escaped.push(c);
            }
            escaped
        });
    }
    line.push('\n');
    Ok(line)
}

fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let cell = |content: String, column: &Column| {
        let alignment = if column.right { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(content).set_alignment(alignment)
    };
    table.set_header(columns.iter().map(|column| cell(column.title.to_owned(), column)));
    for row in rows {
        table.add_row(
            row.iter().zip(columns).map(|(content, column)| cell(one_line(content), column)),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Whether a terminal would obey it, or show what follows in another order, or not show it at all.
fn is_unsafe(c: char) -> bool {
    !is_printable(c)
}

/// The text with what is unsafe to print escaped; line breaks and tabs stay.
pub fn clean(text: &str) -> String {
    escaped(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// As [`clean`], on one line: an ID or a header with a line break in it must not pass for two.
pub fn one_line(text: &str) -> String {
    escaped(text, is_unsafe)
}

fn escaped(text: &str, escape: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if escape(c) && c.is_ascii() => out.extend(c.escape_default()),
            c if escape(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The text in at most `max` characters, an ellipsis included, on one line.
pub fn shorten(text: &str, max: usize) -> String {
    let one_line = text.replace(['\n', '\r', '\t'], " ");
    if one_line.chars().count() <= max {
        return one_line;
    }
    let kept: String = one_line.chars().take(max.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Writes a line to standard error. A closed one is no reason to fail.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", clean(text));
}

/// A progress bar on standard error, hidden unless that is a terminal.
pub fn bar(total: u64, what: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target).with_prefix(what);
    let template = "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A spinner on standard error for work of unknown length, hidden unless that is a terminal.
pub fn spinner(what: impl Into<std::borrow::Cow<'static, str>>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Asks on the terminal; `None` where nobody can answer.
pub fn confirm(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut err = io::stderr().lock();
    write!(err, "{} [y/N] ", clean(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_control_characters_nowhere() {
        let rows = vec![
            vec!["a\u{1b}[31m".to_owned(), "7".to_owned()],
            vec!["long name".to_owned(), "1234".to_owned()],
        ];
        let text = table(&[super::text("NAME"), number("LAG")], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["NAME          LAG", "a\\u{1b}[31m     7", "long name    1234"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let odd = "a\n\t\u{202e}b\u{85}\u{7f}ü\u{feff}";
        assert_eq!(clean(odd), "a\n\t\\u{202e}b\\u{85}\\u{7f}ü\\u{feff}");
        assert_eq!(one_line(odd), "a\\n\\t\\u{202e}b\\u{85}\\u{7f}ü\\u{feff}");
        let line = json_line(&serde_json::json!({ "id": odd })).unwrap();
        assert!(line.is_ascii() || line.chars().all(|c| !is_unsafe(c) || c == '\n'), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["id"], odd, "it is the same JSON");
    }

    #[test]
    fn long_texts_are_shortened_to_one_line() {
        assert_eq!(shorten("a\nb", 5), "a b");
        assert_eq!(shorten("abcdef", 5), "abcd…");
    }
}
