//! A browser and its user.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::{paths, value};

/// Whether the pages' scripts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// The usual case.
    On,
    /// Turned off by the user.
    Off,
}

/// A headless Chromium with one page, a new profile and no mouse except for [`Browser::click`].
///
/// Each step fails the test if it cannot be done within half a minute.
pub struct Browser {
    child: Child,
    // `None` while it is being ended. It ends with its standard input, and so with this process even if that is killed.
    steps: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The page that a browser shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its URL.
    pub url: String,
    /// The status of the answer.
    pub status: u64,
    /// The headers of the answer, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The visible text.
    pub text: String,
}

impl Browser {
    /// Starts a browser that may send requests only to these origins: see [`Browser::inspect`].
    pub fn start(scripts: Scripts, origins: &[&str]) -> Self {
        let programs = paths("browser");
        let scripts = if scripts == Scripts::On { "with-scripts" } else { "without-scripts" };
        let mut child = Command::new(value(&programs, "BROWSER_NODE"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/browser.js"))
            .args(["BROWSER_PLAYWRIGHT", "BROWSER_CHROMIUM"].map(|key| value(&programs, key)))
            .arg(scripts)
            .args(origins)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be started");
        let steps = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, steps, answers }
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.step(&json!({"step": "open", "url": url}));
    }

    /// Shows the HTML of a mail, as a mail program does.
    pub fn show(&mut self, html: &str) {
        self.step(&json!({"step": "show", "html": html}));
    }

    /// Waits for a page with exactly this heading, or this alert.
    pub fn see(&mut self, text: &str) {
        self.step(&json!({"step": "see", "text": text}));
    }

    /// Clicks the link, button or field of this name.
    pub fn click(&mut self, name: &str) {
        self.step(&json!({"step": "click", "name": name}));
    }

    /// Moves to the link, button or field of this name with the Tab key.
    pub fn reach(&mut self, name: &str) {
        self.step(&json!({"step": "reach", "name": name}));
    }

    /// Presses a key, such as `Enter`.
    pub fn press(&mut self, key: &str) {
        self.step(&json!({"step": "press", "key": key}));
    }

    /// Types into the focused element.
    pub fn type_in(&mut self, text: &str) {
        self.step(&json!({"step": "type", "text": text}));
    }

    /// The current page.
    pub fn shown(&mut self) -> Shown {
        let page = self.step(&json!({"step": "page"}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let headers = page["headers"].as_object().into_iter().flatten();
        Shown {
            url: text(&page["url"]),
            status: page["status"].as_u64().unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
            text: text(&page["text"]),
        }
    }

    /// Inspects the page on a phone and on a desktop, in light and in dark mode, and saves screenshots in a folder:
    /// `<name>-phone-dark.png` and so on.
    ///
    /// Returns what makes the page hard to use for some people (language, title, heading, labels, contrast and size),
    /// and what went wrong since the last inspection: requests to other origins, referrers with a token, script and
    /// policy errors.
    pub fn faults(&mut self, folder: &Path, name: &str) -> Vec<String> {
        fs::create_dir_all(folder).expect("the folder can be made");
        let faults = self.step(&json!({"step": "inspect", "folder": folder, "name": name}));
        let faults = faults.as_array().expect("a list").iter();
        faults.map(|fault| fault.as_str().expect("a text").to_owned()).collect()
    }

    /// Fails the test unless there are no [`Browser::faults`].
    #[track_caller]
    pub fn inspect(&mut self, folder: &Path, name: &str) {
        let faults = self.faults(folder, name);
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }

    #[track_caller]
    fn step(&mut self, step: &Value) -> Value {
        let steps = self.steps.as_mut().expect("it is open until it is dropped");
        writeln!(steps, "{step}").expect("the browser runs");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the browser answers");
        let mut answer: Value = serde_json::from_str(&line).expect("the browser runs");
        assert!(answer["error"].is_null(), "{step}: {}", answer["error"]);
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.steps.take());
        let _ = self.child.wait();
    }
}
