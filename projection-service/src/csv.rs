//! Tables as CSV (RFC 4180) that spreadsheets show but never execute.

/// The byte order mark. Without it, some spreadsheets assume an older encoding. RFC 4180 does not have it, so a table
/// gets it only on request.
pub const BOM: &str = "\u{feff}";

/// The beginning of a table: the byte order mark, if it is asked for, and the names of the columns.
pub fn heading(bom: bool, columns: &[&str]) -> String {
    let mut text = if bom { BOM.to_owned() } else { String::new() };
    push_row(&mut text, columns);
    text
}

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

/// A cell that a spreadsheet would take for a formula gets a leading apostrophe, which makes it text (OWASP, "CSV
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
