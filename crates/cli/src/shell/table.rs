//! Documents as a table: one column for each field, in the order in which fields first appear.
//!
//! Used by the shell, the demo, the benchmark's report and `status`.

use bson::{Bson, Document};
use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

use crate::literal::print;

/// Longest text of a cell, in characters.
const CELL_CHARS_MAX: usize = 60;

/// A table of `documents` that is at most `width` columns wide.
pub fn documents(documents: &[Document], width: usize) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in documents.iter().flat_map(|document| document.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut table = empty(&names, width);
    for document in documents {
        table.add_row(names.iter().map(|name| document.get(name).map_or_else(String::new, cell)));
    }
    for (index, name) in names.iter().enumerate() {
        let numeric = documents.iter().filter_map(|d| d.get(name)).all(is_number);
        if let (true, Some(column)) = (numeric, table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A table of texts whose columns, all but the first, are aligned to the right.
pub fn rows(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let mut table = empty(header, width);
    for row in rows {
        table.add_row(row);
    }
    for index in 1..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn empty(header: &[&str], width: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─');
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(header);
    table
}

fn cell(value: &Bson) -> String {
    let text = match value {
        Bson::String(text) => text.clone(),
        Bson::Int64(number) => number.to_string(),
        value => print::line(value),
    };
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    let cut: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    format!("{cut}…")
}

fn is_number(value: &Bson) -> bool {
    matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_))
}
