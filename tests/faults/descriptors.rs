//! The process may open no further file: those who only wait make room for those who ask, and it is said.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use tests::workload::History;
use tests::{PATIENCE, Server, checker};

use crate::{SETTINGS, until};

/// Sets the limit of open files of a running server (prlimit(1)).
fn limit(server: &Server, files: usize) {
    let (pid, files) = (format!("--pid={}", server.pid()), format!("--nofile={files}:"));
    assert!(Command::new("prlimit").args([pid, files]).status().expect("it runs").success());
}

fn open_files(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

fn connect(server: &Server) -> TcpStream {
    let address = server.base().trim_start_matches("http://").to_owned();
    let stream = TcpStream::connect(address).expect("the system takes it for the server");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is set");
    stream
}

/// The answer to a request on a connection of its own. As text, as the pool of a client may have one that just ended.
fn ask(server: &Server, path: &str) -> String {
    let key = server.platform_key();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    let (mut stream, mut answer) = (connect(server), String::new());
    stream.write_all(head.as_bytes()).expect("it is sent");
    stream.read_to_string(&mut answer).expect("it is answered");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_can_be_opened() {
    let mut server = Server::start_with(&SETTINGS).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(30).await).await;
    let before = open_files(&server);
    let waiting: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    until("they are accepted", async || open_files(&server) >= before + waiting.len()).await;
    limit(&server, open_files(&server) - 2);

    for _ in 0..10 {
        let answer = ask(&server, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.says("connections cannot be accepted").await;
    let metrics = ask(&server, "/metrics");
    assert!(metrics.contains("watchword_accept_failures_total{reason=\"descriptors\"}"), "{metrics}");
    assert!(metrics.contains("watchword_ended_for_room_total{of=\"connections\"}"), "{metrics}");
    // What is open stays open: the stores are written.
    let ready = ask(&server, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");

    limit(&server, 1024);
    drop(waiting);
    history.during(&[&server], async |load| load.done(30).await).await;
    checker::check(&mut server, None, &history).await;
}
