//! The contract with consumers of events and with our own past.

mod asyncapi;
mod cloud_events;
mod codec;
mod envelope;
mod event_schemas;
mod goldens;
mod samples;
mod strict_readers;

/// Whether to write files instead of comparing them.
fn update() -> bool {
    std::env::var_os("UPDATE").is_some_and(|value| value == "1")
}

/// JSON as it is committed.
fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("JSON") + "\n"
}
