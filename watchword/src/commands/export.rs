//! `export`: writes the history to stdout.

use clap::{Args, ValueEnum};
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use domain::access::ExportForm;
use domain::user::Client;
use domain::{AppId, LogOrigin};
use event_store::lookup::app_claim;
use event_store::{Clock, SystemClock};
use http_kit::{AccessLog, Looking, RequestContext};
use projection_service::csv::push_row;
use schemas::{Actor, RecordedEvent};

use super::{Globals, Run, app_id};
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Stores;
use crate::progress::Progress;

const PAGE: usize = 1000;
const COLUMNS: &str =
    "position,time,id,type,stream,version,app_id,actor_kind,actor_id,correlation_id,data,personal";

/// Write the history to stdout, oldest event first
///
/// Personal data stays sealed. With a journal in SQLite the server must be stopped; for a running one use GET
/// /v1/events instead. With PostgreSQL or KurrentDB nodes keep running.
#[derive(Debug, Args)]
pub struct Export {
    /// Only the events of this app
    #[arg(long, value_name = "APP", value_parser = app_id)]
    app: Option<AppId>,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
    /// One CloudEvent per line, or a table
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    format: ExportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// One canonical CloudEvent per line: the bytes that an auditor can hash
    Ndjson,
    /// A table for spreadsheets
    Csv,
}

impl Run for Export {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| run(&config, &self).await)
    }
}

async fn run(config: &Config, export: &Export) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let stores = Stores::open_truth(config).await.with_context(|| {
        format!(
            "the journal cannot be read (a running server gives the same events at http://{}/v1/events)",
            config.listen
        )
    })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let origin = config.log_origin(config.listen)?;
    let origin = event_store::origin::establish(stores.journal(), &*clock, &origin).await?;
    let journal = stores.journal();
    if let Some(app) = &export.app
        && journal.claim_owner(&app_claim(app)).await?.is_none()
    {
        stores.close().await;
        bail!("there is no app {app}. `watchword app list` lists them");
    }
    note(config, &stores, &clock, export).await?;
    let head = journal.head().await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if export.format == ExportFormat::Csv {
        out.write_all(COLUMNS.as_bytes())?;
        out.write_all(b"\r\n")?;
    }
    let progress = Progress::start(head.saturating_sub(export.after));
    let (mut after, mut written) = (export.after, 0_u64);
    loop {
        let events = journal.read_all(after, PAGE).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        for event in &events {
            if export.app.as_ref().is_some_and(|app| *app != event.metadata.app_id) {
                continue;
            }
            match export.format {
                ExportFormat::Ndjson => writeln!(out, "{}", event.to_canonical_json(&origin))?,
                ExportFormat::Csv => out.write_all(csv_row(event, &origin).as_bytes())?,
            }
            written += 1;
        }
        progress.at(after.saturating_sub(export.after), after);
    }
    out.flush()?;
    progress.end();
    writeln!(std::io::stderr(), "exported {written} events")?;
    stores.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Records the export in the history, for anyone who later asks who has a copy.
async fn note(
    config: &Config,
    stores: &Stores,
    clock: &Arc<dyn Clock>,
    export: &Export,
) -> anyhow::Result<()> {
    let request = request(clock);
    let app_id = export.app.clone().unwrap_or_else(AppId::platform);
    let looking = Looking::new(&request, &app_id, &Actor::system());
    let form = match export.format {
        ExportFormat::Ndjson => ExportForm::Ndjson,
        ExportFormat::Csv => ExportForm::Csv,
    };
    let log = AccessLog::new(stores.repository(config), Arc::clone(clock));
    log.exported(&looking, export.app.as_ref(), form, None, false).await.map_err(|problem| {
        anyhow!("the export cannot be recorded in the history ({}), so nothing is exported", problem.code())
    })
}

/// What stands for a request where a command itself looks at data.
pub(super) fn request(clock: &Arc<dyn Clock>) -> RequestContext {
    let correlation_id = clock.new_id();
    RequestContext {
        request_id: correlation_id.to_string().into(),
        correlation_id,
        traceparent: None,
        client: Client::default(),
        address: None,
        idempotency_key: None,
    }
}

fn csv_row(event: &RecordedEvent, origin: &LogOrigin) -> String {
    let envelope = event.to_cloud_event(origin);
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let cells = [
        event.position.to_string(),
        text(&envelope["time"]),
        event.id.to_string(),
        event.name.clone(),
        event.stream.to_string(),
        event.version.to_string(),
        event.metadata.app_id.to_string(),
        text(&envelope["actorkind"]),
        text(&envelope["actorid"]),
        event.metadata.correlation_id.to_string(),
        event.data.clone(),
        text(&envelope["personal"]),
    ];
    let mut row = String::new();
    push_row(&mut row, &cells.each_ref().map(String::as_str));
    row
}
