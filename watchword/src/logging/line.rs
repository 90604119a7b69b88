//! What a line of the log may contain. Texts in it come from others, too: a mail server, a database, somebody who writes
//! to the bus. None of them may begin a line, and so pretend to be the service, or change how a terminal shows the others.

/// How a colour begins: the formatter's own, which it writes only to terminals.
const COLOUR: &[u8] = b"\x1b[";

/// An event as it was formatted, as one line.
pub fn one(formatted: &[u8], colours: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(formatted.len() + 1);
    let mut rest = formatted.strip_suffix(b"\n").unwrap_or(formatted);
    while let Some((first, tail)) = rest.split_first() {
        let colour = if colours { colour(rest) } else { 0 };
        if colour > 0 {
            line.extend_from_slice(&rest[..colour]);
            rest = &rest[colour..];
            continue;
        }
        // U+0080 to U+009F, the control characters above ASCII.
        if *first == 0xc2 && tail.first().is_some_and(|second| (0x80..0xa0).contains(second)) {
            line.extend_from_slice(&escaped(tail[0]));
            rest = &tail[1..];
            continue;
        }
        match first {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\t' => line.push(b'\t'),
            first if first.is_ascii_control() => line.extend_from_slice(&escaped(*first)),
            first => line.push(*first),
        }
        rest = tail;
    }
    line.push(b'\n');
    line
}

/// As JSON does it, in which the line may be.
fn escaped(character: u8) -> Vec<u8> {
    format!("\\u{character:04x}").into_bytes()
}

/// The length of a colour at the beginning: digits and semicolons between `ESC [` and `m`. It can move no cursor and
/// erase nothing.
fn colour(text: &[u8]) -> usize {
    let Some(parameters) = text.strip_prefix(COLOUR) else { return 0 };
    let length = parameters.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    if parameters.get(length) == Some(&b'm') { COLOUR.len() + length + 1 } else { 0 }
}

/// A text of several lines, such as the message of a panic: only the first begins where lines do.
pub fn indented(text: &str) -> String {
    let lines =
        text.lines().map(|line| String::from_utf8_lossy(&one(line.as_bytes(), false)).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(formatted: &str) -> String {
        String::from_utf8(one(formatted.as_bytes(), true)).expect("text")
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let plain = "2026-01-31T09:30:00Z  INFO http: method=\"GET\" name=\"Zo\u{eb} \u{1f511}\"\ttab\n";
        assert_eq!(shown(plain), plain);
        assert_eq!(
            shown("no\n2026-01-31T09:30:00Z ERROR forged\r\nx\n"),
            "no\\n2026-01-31T09:30:00Z ERROR forged\\u000d\\nx\n"
        );
        assert_eq!(shown("\x1b[31mred\x1b[0m\n"), "\x1b[31mred\x1b[0m\n", "on a terminal");
        assert_eq!(one(b"\x1b[8m\n", false), b"\\u001b[8m\n");
        assert_eq!(
            shown("\x1b[2J\x1b[1;1H\x1b]0;title\x07\x1b[9A\u{9b}2J\x08\0\x7f\x1b\n"),
            "\\u001b[2J\\u001b[1;1H\\u001b]0;title\\u0007\\u001b[9A\\u009b2J\\u0008\\u0000\\u007f\\u001b\n"
        );
        assert_eq!(shown(""), "\n");
    }

    #[test]
    fn only_the_first_line_of_a_text_begins_where_lines_do() {
        assert_eq!(
            indented("watchword: it failed\nwatchword: forged\n\r\x1b[2Jx"),
            "watchword: it failed\n    watchword: forged\n    \\u000d\\u001b[2Jx"
        );
    }
}
