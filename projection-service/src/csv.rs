//! Tables as CSV (RFC 4180) that spreadsheets show and never run.

/// What some spreadsheets need to see at the very start, or they take the text for that of an older encoding. RFC 4180 knows no such
/// thing, so a table has it only on request.
pub const BOM: &str = "\u{feff}";

/// Adds one row, with its CRLF.
pub fn push_row(text: &mut String, cells: &[&str]) {
    for (n, cell) in cells.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        push_cell(text, cell);
    }
    text.push_str("\r\n");
}

/// A cell that a spreadsheet would take for a formula gets an apostrophe in front, which makes it a text (OWASP, "CSV
/// injection").
fn push_cell(text: &mut String, cell: &str) {
    let formula = cell.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
        || cell.starts_with(['\t', '\r', '\n']);
    let guarded = if formula { format!("'{cell}") } else { cell.to_owned() };
    if guarded.contains(['"', ',', '\r', '\n']) || formula {
        text.push('"');
        text.push_str(&guarded.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(&guarded);
    }
}

#[cfg(test)]
mod tests {
    use super::push_row;

    #[test]
    fn formulas_become_texts_and_quotes_are_doubled() {
        let mut text = String::new();
        push_row(&mut text, &["1", "a,b", "say \"hi\"", "=1+1", " @x", "\t=1", "-2", "a\r\nb"]);
        assert_eq!(text, "1,\"a,b\",\"say \"\"hi\"\"\",\"'=1+1\",\"' @x\",\"'\t=1\",\"'-2\",\"a\r\nb\"\r\n");
    }
}
