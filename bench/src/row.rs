//! What a measurement prints.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// One measured quantity.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Median of the rounds.
    pub median: f64,
    /// Least of the rounds.
    pub min: f64,
    /// Greatest of the rounds.
    pub max: f64,
    /// How many rounds.
    pub rounds: usize,
    /// The row it is compared with.
    pub ratio_to: Option<String>,
    /// Its median by that row's.
    pub ratio: Option<f64>,
}

impl Row {
    /// A row of these rounds, of which there is at least one.
    pub fn of(name: impl Into<String>, unit: &'static str, mut rounds: Vec<f64>) -> Row {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
        Row {
            name: name.into(),
            unit,
            median: at(rounds.len() / 2),
            min: at(0),
            max: at(rounds.len().saturating_sub(1)),
            rounds: rounds.len(),
            ratio_to: None,
            ratio: None,
        }
    }
}

/// Prints the rows as an aligned table, or as JSON.
///
/// # Errors
/// Standard output is closed.
pub fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &serde_json::json!({ "rows": rows }))?;
        writeln!(out)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let compared = rows.iter().any(|row| row.ratio.is_some());
    let mut titles = vec!["WHAT", "MEDIAN", "MIN", "MAX", "ROUNDS", "UNIT"];
    if compared {
        titles.extend(["RATIO", "TO"]);
    }
    table.set_header(titles.into_iter().map(|title| match title {
        "WHAT" | "UNIT" | "TO" => Cell::new(title),
        _ => right(title.to_owned()),
    }));
    for row in rows {
        let cell = |value: f64| right(number(value));
        let mut cells = vec![
            Cell::new(&row.name),
            cell(row.median),
            cell(row.min),
            cell(row.max),
            right(row.rounds.to_string()),
            Cell::new(row.unit),
        ];
        if compared {
            cells.push(right(row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))));
            cells.push(Cell::new(row.ratio_to.as_deref().unwrap_or_default()));
        }
        table.add_row(cells);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

/// A number with as many digits as a reader can use.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
