//! Standard error cannot be written: its disk is full, nobody reads it, or it is closed. No request, no writer and no
//! shutdown depends on it.

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, Read, pipe};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;
use test_services::Disk;
use tests::workload::History;
use tests::{Bus, Output, PATIENCE, Server, checker};

use crate::{SETTINGS, until};

/// A buffer of the smallest size, and many lines.
const CHATTY: [(&str, &str); 2] = [("WATCHWORD_LOG", "debug"), ("WATCHWORD_LOG_BUFFER_MIB", "1")];

/// A server whose output goes there.
async fn server_writing_to(bus: &Bus, settings: &[(&str, &str)], output: Output) -> Server {
    let url = bus.url();
    let environment = [&SETTINGS[..], &[("WATCHWORD_NATS_URL", url.as_str())], &CHATTY, settings].concat();
    let mut server = Server::new(&environment);
    server.set_output(output);
    server.up().await;
    server
}

/// Appends to a file.
fn to_file(path: PathBuf) -> Output {
    Output::To(Box::new(move || {
        OpenOptions::new().create(true).append(true).open(&path).expect("it can be opened").into()
    }))
}

/// Writes into a pipe whose reader stays here.
fn to_pipe() -> (Output, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let writer = Mutex::new(writer);
    let output = move || Stdio::from(writer.lock().expect("a lock").try_clone().expect("a handle"));
    (Output::To(Box::new(output)), reader)
}

/// The check of the log, as the platform sees it.
async fn log_check(server: &Server) -> Value {
    server.readiness().await.expect(200).json()["checks"]["log"].clone()
}

async fn lost_lines(server: &Server) -> u64 {
    let text = server.metrics().await;
    let line = text.lines().find(|line| line.starts_with("watchword_log_lost_lines_total "));
    line.expect("the metric is there").rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// Ends the server by SIGTERM, and lets the next one log into the harness's file, for the checker.
async fn ends_and_is_whole(mut server: Server, bus: &Bus, history: &History) {
    let asked = Instant::now();
    let status = server.terminate().await;
    assert!(status.success(), "{status} after {:?}", asked.elapsed());
    let log = server.data().with_file_name("server.log");
    server.set_output(to_file(log));
    server.up().await;
    checker::check(&mut server, Some(bus), history).await;
}

/// The events that say that lines were lost, and how many.
fn told_losses(log: &Path) -> Vec<u64> {
    let text = fs::read_to_string(log).expect("it can be read");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is whole"));
    lines
        .filter_map(|line| {
            let (count, _) = line["message"].as_str()?.split_once(" lines were lost from ")?;
            count.parse().ok()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_disk_is_full() {
    let (bus, disk) = (Bus::start(), Disk::new(8));
    let log = disk.path().join("server.log");
    let server = server_writing_to(&bus, &[], to_file(log.clone())).await;
    let mut history = History::new(&server).await;
    let lost = history
        .during(&[&server], async |load| {
            load.done(30).await;
            disk.fill(0);
            until("lines are lost", async || lost_lines(&server).await > 0).await;
            let check = log_check(&server).await;
            assert_eq!(check["ok"], false, "{check}");
            let doctor = server.command(&["doctor"]).output().expect("it runs");
            let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
            assert!(doctor.status.success() && told.contains("No space left on device"), "{told}");
            load.done(30).await;
            disk.free();
            until("it is written again", async || log_check(&server).await["ok"] == true).await;
            load.done(30).await;
            lost_lines(&server).await
        })
        .await;
    assert!(history.all_were_answered(), "nothing depends on the log");
    assert!(lost > 0);
    // A slow disk may lose some more while it is written again.
    until("it says how many were lost", async || {
        told_losses(&log).iter().sum::<u64>() == lost_lines(&server).await
    })
    .await;
    ends_and_is_whole(server, &bus, &history).await;
}

/// Both the stores and the log are on a disk that fills up: what fails is logged, and cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_stores_and_the_log_is_full() {
    let (bus, disk) = (Bus::start(), Disk::new(64));
    let data = disk.path().join("data").display().to_string();
    let output = to_file(disk.path().join("server.log"));
    let server = server_writing_to(&bus, &[("WATCHWORD_DATA_DIR", &data)], output).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            disk.fill(0);
            load.failed(60).await;
            until("lines are lost", async || lost_lines(&server).await > 0).await;
            disk.free();
            load.done(60).await;
        })
        .await;
    let mut server = server;
    assert!(server.terminate().await.success());
    server.up().await;
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stderr_is_closed() {
    let bus = Bus::start();
    let server = server_writing_to(&bus, &[], Output::Closed).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(60).await).await;
    assert!(history.all_were_answered());
    ends_and_is_whole(server, &bus, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_reader_is_gone() {
    let (bus, (output, reader)) = (Bus::start(), to_pipe());
    let server = server_writing_to(&bus, &[], output).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            drop(reader);
            until("it is noticed", async || log_check(&server).await["ok"] == false).await;
            until("lines are lost", async || lost_lines(&server).await > 0).await;
            load.done(30).await;
        })
        .await;
    assert!(history.all_were_answered());
    ends_and_is_whole(server, &bus, &history).await;
}

/// A reader that has stopped reading holds up nothing, SIGTERM included.
#[tokio::test(flavor = "multi_thread")]
async fn the_logs_reader_sleeps() {
    let (bus, (output, reader)) = (Bus::start(), to_pipe());
    let server = server_writing_to(&bus, &[], output).await;
    let mut history = History::new(&server).await;
    let load_until_lost = async |history: &mut History, server: &Server| {
        let before = lost_lines(server).await;
        history
            .during(&[server], async |load| {
                until("lines are lost", async || lost_lines(server).await > before).await;
                load.done(30).await;
            })
            .await;
    };
    load_until_lost(&mut history, &server).await;
    // It wakes up, and sleeps again.
    let read = reads_until_it_is_told(reader, &server).await;
    load_until_lost(&mut history, &server).await;
    assert!(history.all_were_answered());
    ends_and_is_whole(server, &bus, &history).await;
    drop(read);
}

/// Reads until the loss of lines is told, and returns the reader.
async fn reads_until_it_is_told(mut reader: PipeReader, server: &Server) -> PipeReader {
    let reading = tokio::task::spawn_blocking(move || {
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let count = reader.read(&mut buffer).expect("it can be read");
            assert!(count > 0, "the server ended");
            seen.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&seen).contains(" lines were lost from ") {
                return reader;
            }
        }
    });
    let reader = tokio::time::timeout(PATIENCE, reading).await.expect("it is told").expect("no panic");
    until("it is well", async || log_check(server).await["ok"] == true).await;
    reader
}

/// A command whose reader goes away ends without a panic.
#[tokio::test(flavor = "multi_thread")]
async fn the_reader_of_a_command_is_gone() {
    let server = Server::start().await;
    for arguments in
        [&["doctor"][..], &["doctor", "--keys"], &["openapi"], &["schemas"], &["demo"], &["--help"]]
    {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let said = tempfile::tempfile().expect("a file");
        let mut command = server.command(arguments);
        // The demo serves by itself.
        command.env_remove("WATCHWORD_DATA_DIR");
        command.stdout(writer).stderr(said.try_clone().expect("a handle"));
        let status = command.status().expect("it runs");
        let said = read(said);
        assert!(!said.contains("panicked"), "{arguments:?}, {status}: {said}");
        assert!(status.code().is_some_and(|code| code <= 1), "{arguments:?}, {status}: {said}");
    }
}

fn read(mut file: File) -> String {
    use std::io::Seek as _;
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("it can be read");
    text
}
