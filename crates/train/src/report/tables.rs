//! Tables of text.

use std::fmt::Write;

use super::Table;
use super::text::escape;

/// The table as HTML.
pub fn table(table: &Table) -> String {
    let n_columns = table.rows.iter().map(Vec::len).chain([table.header.len()]).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| escape(row.get(column).map_or("", |s| s));
    let class = |column: usize| match is_numeric(table, column) {
        true => " class=\"number\"",
        false => "",
    };
    let mut html = String::from("<div class=\"table\"><table>\n");
    let _ = writeln!(html, "<caption>{}</caption>", escape(&table.title));
    if !table.header.is_empty() {
        html.push_str("<thead><tr>");
        for column in 0..n_columns {
            let text = cell(&table.header, column);
            let _ = write!(html, "<th scope=\"col\"{}>{text}</th>", class(column));
        }
        html.push_str("</tr></thead>\n");
    }
    html.push_str("<tbody>\n");
    for row in &table.rows {
        html.push_str("<tr>");
        for column in 0..n_columns {
            let _ = write!(html, "<td{}>{}</td>", class(column), cell(row, column));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n");
    if !table.note.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&table.note));
    }
    html.push_str("</div>\n");
    html
}

/// Whether every filled cell of a column starts like a number; units may follow.
fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells = table.rows.iter().filter_map(|row| row.get(column)).filter(|s| !s.is_empty()).peekable();
    cells.peek().is_some()
        && cells.all(|s| {
            s.trim_start_matches(['-', '+', '~', '≈', '<', '−']).starts_with(|c: char| c.is_ascii_digit()) || s == "–"
        })
}

pub(super) fn pairs_table(pairs: &[(String, String)]) -> String {
    let rows: String = pairs
        .iter()
        .map(|(name, value)| format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value)))
        .collect();
    format!("<table class=\"pairs\">\n<tbody>\n{rows}</tbody>\n</table>\n")
}
