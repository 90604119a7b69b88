//! Exports of the audit log, as lines of `CloudEvents` or as a table.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::response::Response;
use http_kit::Problem;
use http_kit::places::Place;
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;

use super::key_names::KeyNames;
use super::personal;
use crate::ProjectionService;
use crate::csv::{heading, push_row};
use crate::streamed::{Form, Pieces, Walk, streamed};

const COLUMNS: &[&str] = &[
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
];

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
    walk: Walk,
    form: Form,
    table: Table,
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
    let heading = (form == Form::Csv).then(|| heading(table.bom, COLUMNS));
    streamed(
        form,
        "audit",
        heading,
        place,
        Export { walk: Walk { service, filter, after, last }, form, table },
    )
}

impl Pieces for Export {
    async fn next(&mut self) -> Result<Option<String>, Problem> {
        let Some(events) = self.walk.next().await? else { return Ok(None) };
        let mut text = String::new();
        let mut erased = BTreeSet::new();
        if self.form == Form::Csv {
            self.table.names.learn(&self.walk.service, &events).await?;
            erased = super::erased(&self.walk.service, &events).await?;
        }
        for event in events {
            if self.form == Form::Csv {
                let is_erased = event.person.is_some_and(|person| erased.contains(&person));
                self.push_table_row(&mut text, &event, is_erased).await;
            } else {
                text.push_str(&event.to_canonical_json(&self.walk.service.origin));
                text.push('\n');
            }
        }
        Ok(Some(text))
    }
}

impl Export {
    async fn push_table_row(&self, text: &mut String, event: &RecordedEvent, is_erased: bool) {
        let open = self.table.open && !is_erased;
        let opened = if open { personal(&self.walk.service, event).await } else { Ok(None) };
        let unreadable = if is_erased { Some(ERASED) } else { opened.is_err().then_some(DAMAGED) };
        let unreadable = unreadable.map(str::to_owned);
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
/// The same for an event about an erased person.
const ERASED: &str = "(erased)";
