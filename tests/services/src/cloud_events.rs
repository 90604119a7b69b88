//! The npm package `cloudevents`, which reads events strictly according to the specification.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{paths, value};

/// What is wrong with each of these JSON events, one per line; empty if the SDK accepts it.
pub fn faults_of_cloud_events(lines: &[String]) -> Vec<String> {
    let programs = paths("cloudevents");
    let mut child = Command::new(value(&programs, "CLOUDEVENTS_NODE"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cloud_events/read.mjs"))
        .arg(value(&programs, "CLOUDEVENTS_PACKAGE"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node can be started");
    let mut input = child.stdin.take().expect("it is piped");
    // It reads everything before it writes anything.
    input.write_all((lines.join("\n") + "\n").as_bytes()).expect("node reads");
    drop(input);
    let output = child.wait_with_output().expect("node ends");
    assert!(output.status.success(), "the SDK does not run");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let faults: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(faults.len(), lines.len(), "an answer for each event");
    faults
}
