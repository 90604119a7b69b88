//! The event feed: pages, and a live stream of server-sent events that clients can resume where they left off.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use domain::{AppId, Permission};
use event_store::{Lost, epoch};
use futures::stream;
use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderName, HeaderValue};
use http_kit::accept::preferred;
use http_kit::auth::{AdminCaller, Caller};
use http_kit::cookies::Credentials;
use http_kit::places::{Applicant, NoPlace, Place};
use http_kit::problem::both;
use http_kit::{AfterToken, AppScope, Params, Problem, uncached};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;
use schemas::problems;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, paging, position_after, position_cursor};
use crate::{audit, filters};

/// How many events a stream reads at a time.
const STREAM_BATCH: usize = 500;
/// After this long a stream checks again whether its reader may still read, even if nothing happens.
const RECHECK: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how many seconds a reader that got no place may retry.
const PLACE_RETRY: u64 = 5;
/// The header with the epoch of the journal: see [`event_store::epoch`].
pub(crate) const EPOCH: HeaderName = HeaderName::from_static("journal-epoch");
/// What a live stream sends before it ends because the journal went back.
const WENT_BACK: &str = "JournalWentBack";

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(of_all)).routes(routes!(of_app))
}

/// A page of events.
#[derive(Serialize, utoipa::ToSchema)]
struct EventPage {
    /// The events, oldest first.
    #[schema(schema_with = http_kit::openapi::cloud_events)]
    items: Vec<Value>,
    /// The number of events on all pages.
    total: u64,
    /// The `cursor` of the next page; null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// The representations: a page and a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Stream,
}

const FORMS: &[(&str, Form)] = &[("application/json", Form::Page), ("text/event-stream", Form::Stream)];

/// How a stream signals that it is alive, in addition to comments, which libraries do not pass on.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Heartbeat {
    Event,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AppEvents {
    /// Only events after this position. `Last-Event-ID` takes precedence.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Only events of these types, separated by commas.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The maximum number of events: 1 to 200, 20 by default. A stream has no limit.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// `event`: the stream sends an event `heartbeat` at its start and then every 15 seconds, in addition to the comments that
    /// keep proxies from closing it.
    #[param(inline)]
    heartbeat: Option<Heartbeat>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AllEvents {
    /// Only events after this position. `Last-Event-ID` takes precedence.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Only events of these types, separated by commas.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only events of this app.
    #[param(value_type = Option<String>)]
    app_id: Option<AppId>,
    /// The maximum number of events: 1 to 200, 20 by default. A stream has no limit.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// `event`: the stream sends an event `heartbeat` at its start and then every 15 seconds, in addition to the comments that
    /// keep proxies from closing it.
    #[param(inline)]
    heartbeat: Option<Heartbeat>,
}

/// The reader, checked again while a stream runs, so that revoking a key ends it.
#[derive(Clone)]
enum Reader {
    Platform,
    App(AppId),
}

impl Reader {
    async fn check(
        &self,
        service: &ProjectionService,
        credentials: &Credentials,
    ) -> Result<AdminCaller, Problem> {
        match self {
            Self::Platform => service.authenticator.platform(credentials).await,
            Self::App(app_id) => {
                service.authenticator.admin(app_id, credentials, Permission::EventsRead).await
            }
        }
    }
}

/// Read the events of all apps.
///
/// With `Accept: text/event-stream` the answer is a live stream of server-sent events: `id:` is the position, `data:` the
/// `CloudEvent`. An interrupted stream continues after `Last-Event-ID`, without a gap. Needs a platform key.
///
/// The header `Journal-Epoch` changes when positions were given out anew, because the journal lost events: then compare the
/// events you have with the journal, from the `lost` of its newest `JournalWentBack` backwards. A live stream ends with an
/// event of that name.
#[utoipa::path(get, path = "/v1/events", tag = "audit", operation_id = "list_events",
    security(("api_key" = [])), params(AfterToken, AllEvents),
    responses((status = 200, description = "A page of CloudEvents, oldest first", content(
        (EventPage = "application/json"), (String = "text/event-stream")),
        headers(("Journal-Epoch" = String, description = "Changes when positions were given out anew"))),
        (status = 422, description = "`validation_failed`")))]
async fn of_all(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    headers: HeaderMap,
    token: AfterToken,
    Params(params): Params<AllEvents>,
) -> Result<Response, Problem> {
    let AllEvents { after, kind, app_id, limit, offset, cursor, heartbeat } = params;
    let request = AppEvents { after, kind, limit, offset, cursor, heartbeat };
    read(service, credentials, headers, Reader::Platform, app_id, token, request).await
}

/// Read the events of an app.
///
/// With `Accept: text/event-stream` the answer is a live stream of server-sent events: `id:` is the position, `data:` the
/// `CloudEvent`. An interrupted stream continues after `Last-Event-ID`, without a gap. Needs the permission `events:read`.
///
/// The header `Journal-Epoch` changes when positions were given out anew, because the journal lost events: then compare the
/// events you have with the journal, from the `lost` of its newest `JournalWentBack` backwards. A live stream ends with an
/// event of that name.
#[utoipa::path(get, path = "/v1/apps/{app_id}/events", tag = "audit", operation_id = "list_app_events",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, AppEvents),
    responses((status = 200, description = "A page of CloudEvents, oldest first", content(
        (EventPage = "application/json"), (String = "text/event-stream")),
        headers(("Journal-Epoch" = String, description = "Changes when positions were given out anew"))),
        (status = 422, description = "`validation_failed`")))]
async fn of_app(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<AppEvents>,
) -> Result<Response, Problem> {
    read(service, credentials, headers, Reader::App(app_id.clone()), Some(app_id), token, params).await
}

async fn read(
    service: Arc<ProjectionService>,
    credentials: Credentials,
    headers: HeaderMap,
    reader: Reader,
    app_id: Option<AppId>,
    token: AfterToken,
    params: AppEvents,
) -> Result<Response, Problem> {
    let caller = reader.check(&service, &credentials).await?;
    let form = preferred(&headers, FORMS)?;
    let kinds = audit::kinds(params.kind.as_deref());
    let paging = paging(params.limit, params.offset, params.cursor);
    let ((kinds, paging), after) = both(both(kinds, paging), position_after(params.after))?;
    if let (Reader::Platform, Some(app_id)) = (&reader, &app_id) {
        filters::known_app(&service.repository, app_id).await?;
    }
    let after = position_cursor(paging.cursor.as_deref())?.unwrap_or(after);
    let epoch = epoch_of(&service).await?;
    if form == Form::Stream {
        let after = last_event_id(&headers)?.unwrap_or(after);
        let place = service.streams.take(applicant(&caller)).map_err(no_place)?;
        let feed = Feed::new(service, credentials, reader, app_id, kinds, after, place);
        let mut response = live(feed, params.heartbeat);
        response.headers_mut().insert(EPOCH, epoch);
        return Ok(response);
    }
    let filter = AuditFilter { app_id, kinds, ..AuditFilter::default() };
    let (recorded, total, next_cursor) = if filter == AuditFilter::default() {
        service.wait_for_journal(token).await?;
        whole_journal(&service, after.saturating_add(paging.offset.into()), paging.limit).await?
    } else {
        service.wait_for_token(read_models::audit_log::NAME, token).await?;
        audit::page(&service, &filter, after, paging.offset, paging.limit).await?
    };
    let items: Vec<Value> = recorded.iter().map(|event| event.to_cloud_event(&service.origin)).collect();
    let mut response = answer(EventPage { items, total, next_cursor });
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(EPOCH, epoch);
    Ok(response)
}

/// The value of [`EPOCH`], to be read before the events: of those read later it may only be too old, which leads to a look
/// too many.
pub(crate) async fn epoch_of(service: &ProjectionService) -> Result<HeaderValue, Problem> {
    let epoch = epoch::read(&**service.journal()).await?.to_string();
    Ok(HeaderValue::from_str(&epoch).expect("a UUID is ASCII"))
}

/// The share of the places that a caller counts against.
pub(crate) fn applicant(caller: &AdminCaller) -> Applicant {
    match &caller.caller {
        Caller::ApiKey { key_id, app_id } => Applicant {
            app_id: Some(app_id.clone()),
            caller: Some(key_id.0.as_u128()),
            is_platform: app_id.is_platform(),
            is_known: false,
        },
        Caller::User(user) => Applicant {
            app_id: Some(user.app_id.clone()),
            caller: Some(user.user_id.0.as_u128()),
            is_platform: false,
            is_known: false,
        },
    }
}

/// 503 if there is no free place.
pub(crate) fn no_place(why: NoPlace) -> Problem {
    Problem::new(problems::OVERLOADED).detail(why.to_string()).retry_after(PLACE_RETRY)
}

async fn whole_journal(
    service: &ProjectionService,
    after: u64,
    limit: u32,
) -> Result<(Vec<RecordedEvent>, u64, Option<String>), Problem> {
    let total = service.journal().head().await?;
    let recorded = service.journal().read_all(after, limit as usize).await?;
    let last = recorded.last().map(|event| event.position);
    Ok((recorded, total, last.filter(|last| *last < total).map(|last| last.to_string())))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let bad =
        || Problem::malformed_header("Last-Event-ID", "must be the position of an event, as `id` gave it");
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad())?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| bad()) }
}

/// A live stream: its position and what it shows.
struct Feed {
    service: Arc<ProjectionService>,
    credentials: Credentials,
    reader: Reader,
    app_id: Option<AppId>,
    kinds: Vec<String>,
    after: u64,
    head: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
    ready: VecDeque<Event>,
    /// Whether it has told that the journal went back.
    told: bool,
    /// Released when the stream ends.
    _place: Place,
}

impl Feed {
    fn new(
        service: Arc<ProjectionService>,
        credentials: Credentials,
        reader: Reader,
        app_id: Option<AppId>,
        kinds: Vec<String>,
        after: u64,
        place: Place,
    ) -> Self {
        let (head, ending) = (service.journal().watch_head(), service.ending());
        metrics::gauge!("watchword_event_streams").increment(1);
        let ready = VecDeque::new();
        Self {
            service,
            credentials,
            reader,
            app_id,
            kinds,
            after,
            head,
            ending,
            ready,
            told: false,
            _place: place,
        }
    }

    /// The next event, and before the end that the journal went back, if it did.
    async fn next(&mut self) -> Option<Event> {
        if self.told {
            return None;
        }
        let next = self.next_of_journal().await;
        if next.is_some() {
            return next;
        }
        let Lost { position, event, head } = self.service.journal().lost()?;
        self.told = true;
        let data = json!({ "lost": position, "lost_event": event, "head": head });
        // Without an id: readers resume, if at all, where they compare.
        Some(Event::default().event(WENT_BACK).data(data.to_string()))
    }

    /// The next event. `None` ends the stream: the process ends, the reader lost access, or the journal cannot be read.
    /// A client reconnects with `Last-Event-ID` and misses nothing.
    async fn next_of_journal(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if *self.ending.borrow_and_update() {
                return None;
            }
            self.reader.check(&self.service, &self.credentials).await.ok()?;
            self.head.borrow_and_update();
            let recorded = self.service.journal().read_all(self.after, STREAM_BATCH).await;
            let recorded =
                recorded.inspect_err(|error| tracing::warn!(%error, "an event stream was aborted")).ok()?;
            if recorded.is_empty() {
                tokio::select! {
                    changed = self.head.changed() => changed.ok()?,
                    _ = self.ending.changed() => {}
                    () = tokio::time::sleep(RECHECK) => {}
                }
                continue;
            }
            for event in recorded {
                self.after = event.position;
                if self.shows(&event) {
                    let data = event.to_canonical_json(&self.service.origin);
                    self.ready.push_back(Event::default().id(event.position.to_string()).data(data));
                }
            }
        }
    }

    fn shows(&self, event: &RecordedEvent) -> bool {
        self.app_id.as_ref().is_none_or(|app_id| event.metadata.app_id == *app_id)
            && (self.kinds.is_empty() || self.kinds.contains(&event.name))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        metrics::gauge!("watchword_event_streams").decrement(1);
    }
}

fn live(mut feed: Feed, heartbeat: Option<Heartbeat>) -> Response {
    let mut keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    // Some proxies pass the head on with the first bytes only. So few that a compressor, which would wait for more,
    // leaves the response as it is (Caddy: 512).
    feed.ready.push_back(Event::default().comment("begins"));
    if heartbeat.is_some() {
        // Without an id, so that a reader resumes at its last real event; with data, without which it would not be an
        // event.
        let beat = || Event::default().event("heartbeat").data(json!({}).to_string());
        feed.ready.push_back(beat());
        keep_alive = keep_alive.event(beat().comment(""));
    }
    let events = stream::unfold(feed, async |mut feed| {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    let mut response = uncached(Sse::new(events).keep_alive(keep_alive));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    // What a proxy transforms, it collects first; and `no-store` stays.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Proxies that buffer responses would delay events.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
