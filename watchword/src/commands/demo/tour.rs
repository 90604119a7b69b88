//! Sends, prints and checks each step of the demo.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::channel::{Answer, HttpClient};

const WIDTH: usize = 96;

/// The expected answer.
pub struct Expected {
    statuses: std::ops::RangeInclusive<u16>,
    code: Option<&'static str>,
}

impl Expected {
    pub fn status(status: u16) -> Self {
        Self { statuses: status..=status, code: None }
    }

    pub fn success() -> Self {
        Self { statuses: 200..=299, code: None }
    }

    pub fn refusal(status: u16, code: &'static str) -> Self {
        Self { statuses: status..=status, code: Some(code) }
    }
}

/// The guide: tracks which events were shown, and whether every step went as expected.
pub struct Tour {
    client: HttpClient,
    admin: SecretString,
    shown: u64,
    consistency: Option<String>,
    step: u32,
    faults: Vec<String>,
}

impl Tour {
    pub fn new(client: HttpClient, admin: SecretString) -> Self {
        Self { client, admin, shown: 0, consistency: None, step: 0, faults: Vec::new() }
    }

    /// The operator's key.
    pub fn admin(&self) -> SecretString {
        self.admin.clone()
    }

    /// The last event that was shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    pub fn step(&mut self, title: &str, prose: &str) {
        self.step += 1;
        tell(&format!("\n{}. {title}", self.step));
        self.say(prose);
    }

    #[expect(clippy::unused_self, reason = "telling is the tour's job, as showing is")]
    pub fn say(&self, prose: &str) {
        for line in wrapped(prose, WIDTH - 3) {
            tell(&format!("   {line}"));
        }
    }

    #[expect(clippy::unused_self, reason = "telling is the tour's job, as showing is")]
    pub fn fact(&self, text: &str) {
        tell(&format!("   {text}"));
    }

    #[expect(clippy::unused_self, reason = "telling is the tour's job, as showing is")]
    pub fn model(&self, name: &str, text: &str) {
        tell(&format!("     read model {name}: {text}"));
    }

    /// Checks an expectation.
    pub fn check(&mut self, as_it_should_be: bool, what: &str) {
        if as_it_should_be {
            tell(&format!("   ok: {what}"));
        } else {
            tell(&format!("   WRONG: {what} - this is not so"));
            self.faults.push(format!("step {}: {what}", self.step));
        }
    }

    /// Sends a request, prints it with its answer, and checks the answer.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&SecretString>,
        body: Option<&Value>,
        expected: Expected,
    ) -> anyhow::Result<Answer> {
        let shown_body = body.map(|body| format!("  {}", without_secrets(body))).unwrap_or_default();
        let who = match bearer {
            Some(key) if key.expose_secret().starts_with("wwk_") => "  (operator's key)",
            Some(_) => "  (access token)",
            None => "",
        };
        tell(&format!("     -> {method} {path}{who}{shown_body}"));
        let answer = self.client.send(method, path, bearer, &self.token_header(), body).await?;
        tell(&format!("     <- {}", summary(&answer)));
        let code = answer.json["code"].as_str();
        let as_expected = expected.statuses.contains(&answer.status)
            && expected.code.is_none_or(|expected| code == Some(expected));
        if !as_expected {
            let wanted = expected.code.map(|code| format!(" {code}")).unwrap_or_default();
            self.check(false, &format!("the answer is {}{wanted}", expected.statuses.start()));
        }
        Ok(answer)
    }

    /// Makes later queries wait until their read model includes what this command wrote.
    pub fn after(&mut self, answer: &Answer) {
        let token = answer.headers.get("consistency-token").and_then(|token| token.to_str().ok());
        self.consistency = token.map(str::to_owned).or_else(|| self.consistency.take());
    }

    fn token_header(&self) -> Vec<(&'static str, String)> {
        self.consistency.iter().map(|token| ("consistency-token", token.clone())).collect()
    }

    /// Queries as the operator, without printing the exchange.
    pub async fn query(&self, path: &str) -> anyhow::Result<Value> {
        let answer =
            self.client.send(Method::GET, path, Some(&self.admin), &self.token_header(), None).await?;
        if !answer.is_success() {
            bail!("GET {path} was refused: {}", answer.refusal());
        }
        Ok(answer.json)
    }

    /// Prints the events written since the last call, and returns them.
    pub async fn new_events(&mut self) -> anyhow::Result<Vec<Value>> {
        let page = self.query(&format!("/v1/events?after={}&limit=200", self.shown)).await?;
        let events = page["items"].as_array().context("the event feed has no items")?.clone();
        for event in &events {
            let text = |member: &str| event[member].as_str().unwrap_or("?").to_owned();
            let sealed = if event["personal"].is_string() { ", personal data sealed" } else { "" };
            tell(&format!(
                "     event {:>2}  {:<19} in {} (by {}{sealed})",
                event["position"],
                text("type"),
                short_stream(&text("subject")),
                event["actorkind"].as_str().unwrap_or("?").replace('_', " ")
            ));
            self.shown = event["position"].as_u64().context("an event has no position")?;
        }
        Ok(events)
    }

    /// Prints the new events and checks that they are these, in any order.
    pub async fn expect_events(&mut self, names: &[&str]) -> anyhow::Result<()> {
        let before = self.shown;
        let events = self.new_events().await?;
        let mut written: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        // The tour reads Ada's data repeatedly, and an hour may end meanwhile.
        written.retain(|name| *name != "PersonalDataRead" || names.contains(name));
        let mut expected = names.to_vec();
        written.sort_unstable();
        expected.sort_unstable();
        let gapless = events.iter().zip(before + 1..).all(|(event, position)| event["position"] == position);
        if names.is_empty() {
            self.check(written.is_empty(), "no event was written");
        } else {
            let what = format!("the log has {} more, numbered without a gap", names.len());
            self.check(written == expected && gapless, &what);
        }
        Ok(())
    }

    /// Prints what the read models show of the user.
    pub async fn models(&self, user: &str) -> anyhow::Result<()> {
        for model in ["users", "sessions", "stats"] {
            self.settle(model).await?;
        }
        let admin = "/v1/apps/default/admin";
        let shown = self.query(&format!("{admin}/users/{user}")).await?;
        let state = if shown["banned"] == true { "banned" } else { "active" };
        self.model("users", &format!("{}, {state}", shown["email"].as_str().unwrap_or("?")));
        let sessions = self.query(&format!("{admin}/users/{user}/sessions")).await?;
        self.model("sessions", &format!("{} live", sessions["total"]));
        let counts = self.query(&format!("{admin}/stats?granularity=day")).await?;
        let sum = |member: &str| {
            counts["items"].as_array().into_iter().flatten().map(|day| total(&day[member])).sum::<u64>()
        };
        self.model(
            "stats",
            &format!(
                "registrations {}, logins {}, failed logins {}, refreshes {}, sessions ended {}",
                sum("registrations"),
                sum("logins"),
                sum("failures"),
                sum("refreshes"),
                sum("revocations")
            ),
        );
        Ok(())
    }

    /// The progress of a read model.
    pub async fn projection(&self, name: &str) -> anyhow::Result<Value> {
        let all = self.query("/v1/projections").await?;
        let items = all["items"].as_array().or_else(|| all.as_array()).context("no list of projections")?;
        items
            .iter()
            .find(|item| item["name"] == name)
            .cloned()
            .with_context(|| format!("there is no read model {name}"))
    }

    /// Waits until a read model has caught up.
    pub async fn settle(&self, name: &str) -> anyhow::Result<()> {
        for _ in 0..500 {
            if self.projection(name).await?["position"].as_u64() >= Some(self.shown) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the read model {name} has not caught up within 5 seconds")
    }

    #[expect(clippy::unused_self, reason = "telling is the tour's job, as showing is")]
    pub fn audit_row(&self, item: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let name = if item["type"].is_string() { text(&item["type"]) } else { text(&item["action"]) };
        tell(&format!(
            "     audit {:>2}  {name:<19} by {}",
            item["position"],
            text(&item["actor"]["kind"]).replace('_', " ")
        ));
    }

    /// Reads `count` events from the live feed.
    pub async fn follow(&self, path: &str, after: u64, count: usize) -> anyhow::Result<Vec<u64>> {
        tell(&format!("     -> GET {path}  Accept: text/event-stream, Last-Event-ID: {after}"));
        let mut response = self
            .client
            .get(path)?
            .bearer_auth(self.admin.expose_secret())
            .header("accept", "text/event-stream")
            .header("last-event-id", after)
            .send()
            .await?;
        // Comments keep the connection open and are no events.
        let events = |text: &str| {
            let blocks = text.split_inclusive("\n\n").filter(|it| it.ends_with("\n\n"));
            blocks.filter(|block| !block.starts_with(':')).count()
        };
        let mut text = String::new();
        while events(&text) < count {
            let chunk = tokio::time::timeout(Duration::from_secs(5), response.chunk());
            match chunk.await.context("the feed is silent")?? {
                Some(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                None => break,
            }
        }
        let ids =
            text.lines().filter_map(|line| line.strip_prefix("id:")).filter_map(|id| id.trim().parse().ok());
        let ids: Vec<u64> = ids.take(count).collect();
        for line in text.lines().filter_map(|line| line.strip_prefix("data:")) {
            let event: Value = serde_json::from_str(line.trim()).unwrap_or_default();
            tell(&format!("     <- id: {}  {}", event["position"], event["type"].as_str().unwrap_or("?")));
        }
        Ok(ids)
    }

    /// Prints the result.
    pub fn conclude(&self) -> bool {
        if self.faults.is_empty() {
            tell(&format!("\nAll {} steps went as they should. The temporary folder is deleted.", self.step));
            tell("Run `watchword serve` for an instance of your own; its documentation is at /docs.");
            return true;
        }
        tell("\nNot as it should be:");
        for fault in &self.faults {
            tell(&format!("  {fault}"));
        }
        false
    }
}

/// Prints a line. The tour goes on if nobody reads it: its exit code says how it went.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A count, or the sum of counts by kind.
fn total(value: &Value) -> u64 {
    match value {
        Value::Object(kinds) => kinds.values().map(total).sum(),
        other => other.as_u64().unwrap_or_default(),
    }
}

/// The answer in one line.
fn summary(answer: &Answer) -> String {
    let reason = StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
    let status = format!("{} {}", answer.status, reason.unwrap_or_default());
    if let Some(code) = answer.json["code"].as_str() {
        let detail = answer.json["detail"].as_str().or(answer.json["title"].as_str()).unwrap_or_default();
        return format!("{status}  {code}: {detail}");
    }
    if answer.json.is_null() {
        return status;
    }
    let mut text = without_secrets(&answer.json);
    if text.chars().count() > 200 {
        text = text.chars().take(199).chain(['…']).collect();
    }
    format!("{status}  {text}")
}

/// JSON in which each secret is cut to the part that identifies its kind.
fn without_secrets(value: &Value) -> String {
    fn cut(name: &str, value: &Value) -> Value {
        match (name, value) {
            // The request already showed whose tokens they are.
            ("password" | "new_password" | "old_password", Value::String(_)) | ("user", Value::Object(_)) => {
                "…".into()
            }
            ("access_token" | "refresh_token" | "key" | "token", Value::String(text)) => {
                // Tokens of one kind share a prefix; a few characters of the end distinguish them.
                let start: String = text.chars().take(4).collect();
                let end: String = text.chars().skip(text.chars().count().saturating_sub(4).max(4)).collect();
                format!("{start}…{end}").into()
            }
            (_, Value::Object(members)) => Value::Object(
                members.iter().map(|(name, value)| (name.clone(), cut(name, value))).collect::<Map<_, _>>(),
            ),
            (_, Value::Array(items)) => Value::Array(items.iter().map(|item| cut("", item)).collect()),
            (_, other) => other.clone(),
        }
    }
    cut("", value).to_string()
}

/// A stream's name with the end of its id, the part in which ids of the same moment differ.
fn short_stream(name: &str) -> String {
    match name.split_once('-') {
        Some((aggregate, id)) if id.len() == 36 => format!("{aggregate} …{}", &id[30..]),
        Some((aggregate, id)) => format!("{aggregate} {id}"),
        None => name.to_owned(),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{short_stream, without_secrets, wrapped};

    #[test]
    fn secrets_are_cut_wherever_they_are() {
        let shown = without_secrets(&json!({
            "password": "hunter2hunter2",
            "tokens": [{ "refresh_token": "wwr_0123456789abcdef" }],
        }));
        assert!(!shown.contains("hunter2") && !shown.contains("0123456789"), "{shown}");
    }

    #[test]
    fn names_of_streams_are_short() {
        assert_eq!(short_stream("user-0193a5f0-0000-7000-8000-0000003f9a2c"), "user …3f9a2c");
        assert_eq!(short_stream("app-default"), "app default");
    }

    #[test]
    fn prose_fits() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
    }
}
