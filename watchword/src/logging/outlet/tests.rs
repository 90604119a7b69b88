use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A pipe with nobody at its end yet: what opens its other side, and its reader.
macro_rules! piped {
    () => {{
        static WRITER: Mutex<Option<File>> = Mutex::new(None);
        let (reader, writer) = pipe().expect("a pipe");
        *WRITER.lock().expect("a lock") = Some(File::from(OwnedFd::from(writer)));
        let open: Open = || Ok(WRITER.lock().expect("a lock").take().expect("opened once"));
        (open, reader)
    }};
}

fn outlet(open: Open, room: usize) -> &'static Outlet {
    Box::leak(Box::new(Outlet::new("log", open, room)))
}

fn line(number: usize) -> Vec<u8> {
    format!("line {number:0>90}\n").into_bytes()
}

/// The numbers of lines up to one that is of another kind, and that line.
fn numbers(reader: &mut BufReader<PipeReader>) -> (Vec<usize>, String) {
    let mut numbers = vec![];
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("it can be read") > 0, "the pipe ended");
        match line.trim_end().strip_prefix("line ") {
            Some(number) => numbers.push(number.parse().expect("a number")),
            None => return (numbers, line),
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reader_that_stops_loses_lines_and_is_told_how_many() {
    const LINES: usize = 10_000;
    let (open, reader) = piped!();
    // Several times what the pipe takes, so that the queue stays full.
    let outlet = outlet(open, 400_000);
    (0..LINES).for_each(|number| outlet.push(line(number)));
    let lost = usize::try_from(outlet.standing().lost).expect("small");
    assert!(lost > LINES / 2 && outlet.standing().trouble.is_some());

    let mut reader = BufReader::new(reader);
    let (first, told) = numbers(&mut reader);
    assert_eq!(first, (0..LINES - lost).collect::<Vec<_>>(), "in order, without a gap");
    assert!(told.starts_with(&format!("{lost} lines were lost from ")), "{told}");
    until("it is well again", || outlet.standing().trouble.is_none());

    outlet.push(line(7));
    outlet.push(b"the end\n".to_vec());
    assert_eq!(numbers(&mut reader), (vec![7], "the end\n".to_owned()), "it was said once");
    assert_eq!(usize::try_from(outlet.standing().lost), Ok(lost));
}

#[test]
fn a_line_that_is_too_large_costs_only_itself() {
    let (open, reader) = piped!();
    let outlet = outlet(open, 10_000);
    outlet.push(vec![b'x'; 20_000]);
    outlet.push(line(1));
    outlet.push(b"the end\n".to_vec());
    let mut reader = BufReader::new(reader);
    let (numbers_before, told) = numbers(&mut reader);
    assert!(numbers_before.is_empty() && told.starts_with("1 lines were lost from "), "{told}");
    assert_eq!(numbers(&mut reader), (vec![1], "the end\n".to_owned()));
}

#[test]
fn what_cannot_be_written_is_written_later() {
    static IS_FULL: AtomicBool = AtomicBool::new(true);
    static WRITER: Mutex<Option<File>> = Mutex::new(None);
    let (reader, writer) = pipe().expect("a pipe");
    *WRITER.lock().expect("a lock") = Some(File::from(OwnedFd::from(writer)));
    let open: Open = || {
        if IS_FULL.load(Ordering::Relaxed) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(WRITER.lock().expect("a lock").take().expect("opened once"))
    };
    let outlet = outlet(open, 100_000);
    (0..10).for_each(|number| outlet.push(line(number)));
    until("it knows", || outlet.standing().trouble.is_some());
    assert_eq!(outlet.standing().lost, 0);
    IS_FULL.store(false, Ordering::Relaxed);
    outlet.push(b"the end\n".to_vec());
    assert_eq!(numbers(&mut BufReader::new(reader)).0, (0..10).collect::<Vec<_>>());
    assert_eq!(outlet.standing(), Standing::default());
}

#[test]
fn the_end_waits_for_lines_but_not_for_ever() {
    // Everything is written.
    let (open, reader) = piped!();
    let well = outlet(open, 100_000);
    (0..10).for_each(|number| well.push(line(number)));
    well.push(b"the end\n".to_vec());
    well.finish(Instant::now() + PATIENCE);
    assert_eq!(well.standing(), Standing::default());
    assert_eq!(numbers(&mut BufReader::new(reader)).0.len(), 10);

    // A stream that takes nothing is tried once more.
    let failing = outlet(|| Err(ErrorKind::BrokenPipe.into()), 100_000);
    failing.push(line(1));
    failing.push(line(2));
    let begun = Instant::now();
    failing.finish(begun + PATIENCE);
    assert!(begun.elapsed() < PATIENCE, "it did not wait for what never comes");

    // One that stands still is waited for as long as was said.
    let (open, _reader) = piped!();
    let stalled = outlet(open, 1_000_000);
    (0..2000).for_each(|number| stalled.push(line(number)));
    let begun = Instant::now();
    stalled.finish(begun + Duration::from_millis(50));
    assert!(begun.elapsed() >= Duration::from_millis(50));
}
