//! Files of rows: a JSON array, an object that holds one, or a row a line. None is held in memory as a whole.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use command_service::MAX_LINE;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Entry, Person, Take, Wrong};

/// The longest row in a file of lines, in bytes. Other systems keep much in a row that an import leaves out.
const MAX_ROW: usize = 1 << 20;
/// Ends a deserializer early.
const ENOUGH: &str = "enough was read";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a row becomes a person.
pub type Convert = fn(&Value) -> Result<Person, Wrong>;

/// Lines that are no rows of another system: each is taken as it is.
pub fn lines(reader: impl BufRead, take: Take<'_>) -> anyhow::Result<()> {
    each_line(reader, MAX_LINE, &mut |number, read, line| take(Entry { number, line, left_out: 0, read }))
}

/// Rows of a JSON array, or one a line; with names, of an array that is an object's member of one of them.
pub fn rows(
    mut reader: impl BufRead,
    names: &[&str],
    convert: Convert,
    take: Take<'_>,
) -> anyhow::Result<()> {
    if names.is_empty() && first_byte(&mut reader)? != Some(b'[') {
        return each_line(reader, MAX_ROW, &mut |number, read, line| {
            let row = line.and_then(|line| {
                let read = serde_json::from_slice(&line).map_err(|error| error.to_string());
                read.map_err(|why| Wrong::invalid(why.replace(" at line 1 column ", " at column ")))
            });
            take(entry(number, read, row, convert))
        });
    }
    let (read, mut number) = (Cell::new(0), 0);
    let mut each = |row| {
        number += 1;
        take(entry(number, read.get(), Ok(row), convert))
    };
    let counting = Counting { reader, read: &read };
    let mut deserializer = serde_json::Deserializer::from_reader(counting);
    match (Rows { names, each: &mut each }).deserialize(&mut deserializer) {
        Err(error) if error.to_string().starts_with(ENOUGH) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(deserializer.end()?),
    }
}

fn entry(number: u64, read: u64, row: Result<Value, Wrong>, convert: Convert) -> Entry {
    match row.and_then(|row| convert(&row)) {
        Ok(person) => {
            let left_out = person.left_out;
            Entry { number, line: Ok(person.into_bytes()), left_out, read }
        }
        Err(wrong) => Entry { number, line: Err(wrong), left_out: 0, read },
    }
}

/// The first byte that is neither blank nor of a byte order mark, which stays to be read.
fn first_byte(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        let length = buffer.len();
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || BYTE_ORDER_MARK.contains(byte);
        match buffer.iter().position(|byte| !is_blank(byte)) {
            Some(at) => {
                let first = buffer[at];
                // Lines are counted from the first one that says something.
                reader.consume(if first == b'[' { at } else { 0 });
                return Ok(Some(first));
            }
            None if length == 0 => return Ok(None),
            None => reader.consume(length),
        }
    }
}

/// Each line that is not blank, with its number and how many bytes were read so far. What exceeds the limit is read, and
/// forgotten.
fn each_line(
    mut reader: impl BufRead,
    most: usize,
    each: &mut dyn FnMut(u64, u64, Result<Vec<u8>, Wrong>) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let (mut number, mut read) = (0, 0);
    loop {
        let mut line = Vec::new();
        let taken = reader.by_ref().take(most as u64 + 1).read_until(b'\n', &mut line)?;
        if taken == 0 {
            return Ok(());
        }
        (number, read) = (number + 1, read + taken as u64);
        let is_whole = line.ends_with(b"\n") || line.len() <= most;
        if !is_whole {
            read += skip_line(&mut reader)?;
        }
        let start = if number == 1 && line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let content = line[start..].trim_ascii();
        let line = if is_whole && content.is_empty() {
            continue;
        } else if is_whole {
            Ok(content.to_vec())
        } else {
            Err(Wrong { code: "too_long", detail: format!("the line has more than {most} bytes") })
        };
        if each(number, read, line).is_break() {
            return Ok(());
        }
    }
}

/// Reads up to the end of a line: how many bytes.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(length);
        skipped += length as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
    }
}

/// Counts what is read.
struct Counting<'a, R> {
    reader: R,
    read: &'a Cell<u64>,
}

impl<R: BufRead> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}

/// Gives each element of the array away, and keeps none.
struct Rows<'a, 'b> {
    names: &'a [&'a str],
    each: &'b mut dyn FnMut(Value) -> ControlFlow<()>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names {
            [] => f.write_str("an array of rows"),
            names => write!(f, "an object with the array {}", names.join(" or ")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some(row) = rows.next_element()? {
            if (self.each)(row).is_break() {
                return Err(A::Error::custom(ENOUGH));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut is_there = false;
        while let Some(name) = members.next_key::<String>()? {
            if self.names.contains(&name.as_str()) {
                is_there = true;
                members.next_value_seed(Rows { names: &[], each: &mut *self.each })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        if is_there || self.names.is_empty() {
            return Ok(());
        }
        Err(A::Error::custom(format!("there is no array {}", self.names.join(" or "))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn person(row: &Value) -> Result<Person, Wrong> {
        Person::new(row["email"].as_str(), true)
    }

    /// The number of each entry, and its address or the code of what is wrong.
    fn read(file: &[u8], names: &[&str]) -> Vec<(u64, String)> {
        let mut entries = Vec::new();
        let mut take = |entry: Entry| {
            let what = match entry.line {
                Ok(line) => serde_json::from_slice::<Value>(&line).expect("JSON")["email"].to_string(),
                Err(wrong) => wrong.code.to_owned(),
            };
            entries.push((entry.number, what));
            ControlFlow::Continue(())
        };
        rows(file, names, person, &mut take).unwrap_or_else(|error| panic!("{error:#}"));
        entries
    }

    fn named(numbers: &[u64]) -> Vec<(u64, String)> {
        numbers.iter().map(|n| (*n, format!("\"{n}@example.com\""))).collect()
    }

    #[test]
    fn an_array_and_lines_are_the_same_rows() {
        let row = |n: u64| json!({ "email": format!("{n}@example.com"), "other": [{}] }).to_string();
        let rows = [row(1), row(2), row(3)];
        assert_eq!(read(format!("\n [{}]\n", rows.join(",\n")).as_bytes(), &[]), named(&[1, 2, 3]));
        let object = format!(r#"{{"a": [1], "users": [{}], "b": {{"users": []}}}}"#, rows.join(","));
        assert_eq!(read(object.as_bytes(), &["users"]), named(&[1, 2, 3]));
        let lines = format!("\u{feff}{}\r\n{}\n\n{}", row(1), row(2), row(4));
        assert_eq!(read(lines.as_bytes(), &[]), named(&[1, 2, 4]));
        assert_eq!(read(b"", &[]), []);
    }

    #[test]
    fn a_bad_line_stops_nobody_and_a_bad_array_says_where() {
        let long = format!("{{\"x\": \"{}\"}}", "x".repeat(10 << 20));
        let file = format!("{{\n{{}}\n{long}\n{{\"email\": \"4@example.com\"}}\n");
        let expected = [(1, "invalid"), (2, "missing"), (3, "too_long")];
        let expected = expected.map(|(n, code)| (n, code.to_owned())).into_iter().chain(named(&[4]));
        assert_eq!(read(file.as_bytes(), &[]), expected.collect::<Vec<_>>());
        for (file, names) in
            [("[{},", &[][..]), ("{\"a\": []}", &["users"]), ("[] x", &[]), ("5", &["users"])]
        {
            let read = rows(file.as_bytes(), names, person, &mut |_| ControlFlow::Continue(()));
            assert!(read.is_err(), "{file}");
        }
    }

    #[test]
    fn stops_when_enough_was_read() {
        let mut count = 0;
        let mut take = |_| {
            count += 1;
            if count == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        rows(&b"[{}, {}, {}, no JSON"[..], &[], person, &mut take).expect("the rest is not read");
        assert_eq!(count, 2);
    }
}
