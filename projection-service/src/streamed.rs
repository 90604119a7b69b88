//! Answers that are made while they are sent.

use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, stream};
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use http_kit::places::Place;
use http_kit::{Problem, uncached};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;
use serde::Serialize;

use crate::ProjectionService;
use crate::answers::refused;

/// How many events are read at a time.
const BATCH: u32 = 500;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A page as JSON, which is not streamed.
    Json,
    /// A line of JSON for each item.
    Ndjson,
    /// A table.
    Csv,
    /// A line of text for each item.
    Text,
}

impl Form {
    fn media(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application/json", "json"),
            Self::Ndjson => ("application/x-ndjson", "ndjson"),
            Self::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
            Self::Text => ("text/plain; charset=utf-8", "txt"),
        }
    }
}

/// What an answer consists of.
pub(crate) trait Pieces: Send + 'static {
    /// The next piece of the body; none at its end.
    fn next(&mut self) -> impl Future<Output = Result<Option<String>, Problem>> + Send;
}

/// An answer of these pieces, to be saved as a file of that name. An error aborts the connection, so that a client cannot
/// take a part for the whole. The place is released at the end.
pub(crate) fn streamed(
    form: Form,
    name: &str,
    heading: Option<String>,
    place: Place,
    pieces: impl Pieces,
) -> Response {
    let rest = stream::unfold(Some((pieces, place)), async |state| {
        let (mut pieces, place) = state?;
        match pieces.next().await {
            Ok(text) => text.map(|text| (Ok(text), Some((pieces, place)))),
            Err(problem) => {
                tracing::warn!(code = problem.code(), "an export was aborted");
                Some((Err(BrokenOff), None))
            }
        }
    });
    let mut response = uncached(Body::from_stream(stream::iter(heading.map(Ok)).chain(rest)));
    let (media, suffix) = form.media();
    let file = HeaderValue::try_from(format!("attachment; filename=\"{name}.{suffix}\""));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, file.expect("names of files are ours"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// The events of the log that match a filter, batch by batch, up to a position: what comes later is not part of it, so that
/// it ends.
pub(crate) struct Walk {
    pub(crate) service: Arc<ProjectionService>,
    pub(crate) filter: AuditFilter,
    pub(crate) after: u64,
    pub(crate) last: u64,
}

impl Walk {
    /// The next events; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>, Problem> {
        let log = self.service.models.audit_log();
        let mut positions = log.positions(&self.filter, self.after, 0, BATCH).await.map_err(refused)?;
        positions.retain(|position| *position <= self.last);
        let Some(last) = positions.last() else { return Ok(None) };
        self.after = *last;
        Ok(Some(self.service.journal().read_positions(&positions).await?))
    }
}

/// Adds an item as a line of JSON.
pub(crate) fn push_json(text: &mut String, item: &impl Serialize) -> Result<(), Problem> {
    text.push_str(&serde_json::to_string(item).map_err(Problem::internal)?);
    text.push('\n');
    Ok(())
}

/// An export that cannot continue. The log says why.
#[derive(Debug, thiserror::Error)]
#[error("the export was aborted")]
struct BrokenOff;
