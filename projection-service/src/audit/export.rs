//! Exports of the audit log, as lines of `CloudEvents` or as a table.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures::stream;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use http_kit::places::Place;
use http_kit::{Problem, uncached};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;

use super::key_names::KeyNames;
use super::{Form, personal};
use crate::ProjectionService;
use crate::answers::refused;
use crate::csv::{BOM, push_row};

/// How many events an export reads at a time.
const EXPORT_BATCH: u32 = 500;

/// What only the CSV form of an export needs.
pub(super) struct Table {
    /// Whether personal parts are opened.
    pub(super) open: bool,
    /// Whether it starts with a byte order mark, from which spreadsheets recognize the encoding.
    pub(super) bom: bool,
    pub(super) names: KeyNames,
}

/// The state of an export.
struct Export {
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    form: Form,
    table: Table,
    after: u64,
    /// The last position when the export started: later events are not part of it, so that it ends.
    last: u64,
    ready: VecDeque<String>,
    done: bool,
    /// Released when the export ends.
    _place: Place,
}

pub(super) fn export(
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    range: RangeInclusive<u64>,
    form: Form,
    table: Table,
    place: Place,
) -> Response {
    let (after, last) = range.into_inner();
    let mut ready = VecDeque::new();
    let (media, name) = match form {
        Form::Csv => {
            let mut row = if table.bom { BOM.to_owned() } else { String::new() };
            push_row(
                &mut row,
                &[
                    "position",
                    "time",
                    "type",
                    "app_id",
                    "subject",
                    "user_id",
                    "actor_kind",
                    "actor_id",
                    "email",
                    "ip",
                    "data",
                    "actor_name",
                    "user_agent",
                    "reason",
                ],
            );
            ready.push_back(row);
            ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\"")
        }
        Form::Json | Form::Ndjson => ("application/x-ndjson", "attachment; filename=\"audit.ndjson\""),
    };
    let export = Export { service, filter, form, table, after, last, ready, done: false, _place: place };
    let lines = stream::unfold(export, async |mut export| {
        let text = export.next().await?;
        Some((text, export))
    });
    let mut response = uncached(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

impl Export {
    /// The next chunk of the body. An error aborts the connection, so that a client cannot take a part for the whole.
    async fn next(&mut self) -> Option<Result<String, BrokenOff>> {
        if let Some(text) = self.ready.pop_front() {
            return Some(Ok(text));
        }
        if self.done {
            return None;
        }
        match self.read().await {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(Ok(text)),
            Err(problem) => {
                tracing::warn!(code = problem.code(), "an export was aborted");
                self.done = true;
                Some(Err(BrokenOff))
            }
        }
    }

    async fn read(&mut self) -> Result<String, Problem> {
        let log = self.service.models.audit_log();
        let positions = log.positions(&self.filter, self.after, 0, EXPORT_BATCH).await.map_err(refused)?;
        let positions: Vec<u64> =
            positions.into_iter().take_while(|position| *position <= self.last).collect();
        self.done = positions.len() < EXPORT_BATCH as usize;
        let mut text = String::new();
        let events = self.service.journal().read_positions(&positions).await?;
        if self.form == Form::Csv {
            self.table.names.learn(&self.service, &events).await?;
        }
        for event in events {
            self.after = event.position;
            if self.form == Form::Csv {
                self.push_table_row(&mut text, &event).await;
            } else {
                text.push_str(&event.to_canonical_json(&self.service.origin));
                text.push('\n');
            }
        }
        Ok(text)
    }

    async fn push_table_row(&self, text: &mut String, event: &RecordedEvent) {
        let opened = if self.table.open { personal(&self.service, event).await } else { Ok(None) };
        let unreadable = opened.is_err().then(|| DAMAGED.to_owned());
        let mut personal = opened.ok().flatten().unwrap_or_default();
        personal.email = personal.email.or(unreadable);
        push_row(
            text,
            &[
                &event.position.to_string(),
                &event.at.to_string(),
                &event.name,
                event.metadata.app_id.as_str(),
                event.stream.as_str(),
                &event.person.map(|person| person.to_string()).unwrap_or_default(),
                event.metadata.actor.kind.as_str(),
                event.metadata.actor.id.as_deref().unwrap_or_default(),
                personal.email.as_deref().unwrap_or_default(),
                personal.ip.as_deref().unwrap_or_default(),
                &event.data,
                &self.table.names.get(event).unwrap_or_default(),
                personal.user_agent.as_deref().unwrap_or_default(),
                personal.reason.as_deref().unwrap_or_default(),
            ],
        );
    }
}

/// Where an address would be, for an event whose personal data cannot be read although the person was not erased.
const DAMAGED: &str = "(damaged)";

/// An export that cannot continue. The log says why.
#[derive(Debug, thiserror::Error)]
#[error("the export was aborted")]
struct BrokenOff;
