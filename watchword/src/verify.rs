//! `verify`: whether a history is whole and unchanged. An export is checked with nothing but public keys; the stores of an
//! instance are checked with its own keys, too.

pub mod export;
mod history;
pub mod live;
pub mod receipt;
pub mod roots;
mod signatures;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trust;

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

pub use trust::{Given, Witnesses};

/// How many faults are listed: more of them share a cause.
const LISTED: usize = 20;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The event that it is about, if it is about one.
    pub position: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// What was checked and what is wrong.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What was checked, in sentences.
    checked: Vec<String>,
    faults: Vec<Fault>,
    /// The number of further faults.
    more: u64,
    /// For programs.
    facts: Map<String, Value>,
}

impl Verdict {
    /// Says that something is as it should be, or was not checked.
    pub fn say(&mut self, text: impl Into<String>) {
        self.checked.push(text.into());
    }

    /// Adds a member to the answer for programs.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Notes what is wrong with one event, or with the whole.
    pub fn fault(&mut self, position: impl Into<Option<u64>>, problem: impl Into<String>) {
        let (position, mut problem) = (position.into(), problem.into());
        if let Some(position) = position {
            problem = format!("event {position}: {problem}");
        }
        self.note(Fault { position, problem });
    }

    fn note(&mut self, fault: Fault) {
        if self.faults.len() < LISTED {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// What was checked, and what is wrong, in sentences.
    pub fn sentences(&self) -> impl Iterator<Item = &str> {
        let faults = self.faults.iter().map(|fault| fault.problem.as_str());
        self.checked.iter().map(String::as_str).chain(faults)
    }

    /// Whether nothing is wrong so far.
    pub fn is_fine(&self) -> bool {
        self.faults.is_empty()
    }

    /// Prints it, and says how the program ends.
    pub fn print(mut self, as_json: bool) -> anyhow::Result<ExitCode> {
        let is_fine = self.is_fine();
        // The sort is stable: what is about the whole comes first.
        self.faults.sort_by_key(|fault| fault.position);
        let mut out = std::io::stdout();
        if as_json {
            let faults: Vec<Value> = self
                .faults
                .iter()
                .map(|fault| json!({ "position": fault.position, "problem": fault.problem }))
                .collect();
            let mut all = self.facts;
            all.insert("ok".to_owned(), is_fine.into());
            all.insert("checked".to_owned(), self.checked.into());
            all.insert("faults".to_owned(), faults.into());
            all.insert("more_faults".to_owned(), self.more.into());
            writeln!(out, "{}", Value::Object(all))?;
        } else {
            for text in &self.checked {
                writeln!(out, "{text}")?;
            }
            for Fault { problem, .. } in &self.faults {
                writeln!(out, "FAULT  {problem}")?;
            }
            match self.faults.len() as u64 + self.more {
                0 => writeln!(out, "No faults.")?,
                1 => writeln!(out, "1 fault.")?,
                n if self.more > 0 => writeln!(out, "{n} faults, of which these are the first.")?,
                n => writeln!(out, "{n} faults.")?,
            }
        }
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
