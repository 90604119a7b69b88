//! Mails of an app that could not be delivered: listing and retrying them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::delivery::{Delivery, DeliveryCommand, DeliveryError, DeliveryEvent, FailureReason, MailFailed};
use domain::mail::{MailKind, mails_of};
use domain::{AppId, Event, EventId, Permission, Stream, Timestamp, UserId};
use effects::mailer::{MailRef, given_up};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, NoBody, Params, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

type MailFailurePage = Page<MailFailureBody>;

/// A mail that could not be delivered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MailFailure)]
pub(crate) struct MailFailureBody {
    /// The id of the mail.
    #[schema(example = "1042-password_reset")]
    id: String,
    /// The purpose of the mail.
    #[schema(value_type = String, example = "password_reset")]
    mail: MailKind,
    /// The recipient.
    #[schema(value_type = Uuid)]
    user_id: UserId,
    /// The event that requested it.
    #[schema(value_type = Uuid)]
    event_id: EventId,
    /// The number of delivery attempts.
    attempts: u32,
    /// Why the last attempt failed.
    #[schema(value_type = String, example = "rejected")]
    reason: FailureReason,
    /// The mail server's reply (RFC 5321 section 4.2); null if there was none.
    #[schema(required)]
    smtp_code: Option<u16>,
    /// When the last attempt failed.
    #[schema(value_type = String, format = DateTime)]
    failed_at: Timestamp,
}

/// List failed mails.
///
/// Mails that the mail server refused, that could not be sent in time, or whose link has expired.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/mail/failures", tag = "admin", operation_id = "list_mail_failures",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The mails, oldest first", body = MailFailurePage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let page = page.of(given_up(&**service.repository.journal(), &app_id).await?)?;
    let mut items = Vec::with_capacity(page.items.len());
    for mail in &page.items {
        items.extend(failure(&service, *mail).await?);
    }
    Ok(Done::read(page.with(items)))
}

/// The last failure of a mail; `None` if it was sent since.
async fn failure(service: &CommandService, mail: MailRef) -> Result<Option<MailFailureBody>, Problem> {
    let journal = service.repository.journal();
    let Some(asking) = journal.read_positions(&[mail.position]).await?.into_iter().next() else {
        return Ok(None);
    };
    let mut found = None;
    for recorded in journal.read_stream(&Delivery::stream(&EventId(asking.id)), 0).await? {
        match service.repository.decode(&recorded).await? {
            Event::Delivery(DeliveryEvent::MailFailed(failed)) if failed.mail == mail.kind => {
                found = Some(body(mail, &failed));
            }
            Event::Delivery(DeliveryEvent::MailSent(sent)) if sent.mail == mail.kind => found = None,
            _ => {}
        }
    }
    Ok(found)
}

fn body(mail: MailRef, failed: &MailFailed) -> MailFailureBody {
    MailFailureBody {
        id: format!("{}-{}", mail.position, mail.kind.as_str()),
        mail: failed.mail,
        user_id: failed.user_id,
        event_id: failed.event_id,
        attempts: failed.attempt,
        reason: failed.reason,
        smtp_code: failed.smtp_code,
        failed_at: failed.at,
    }
}

/// The path parameters that identify a mail.
#[derive(Deserialize)]
struct MailSegments {
    app_id: AppId,
    mail_id: String,
}

impl MailSegments {
    fn mail(&self) -> Option<MailRef> {
        let (position, kind) = self.mail_id.split_once('-')?;
        Some(MailRef { position: position.parse().ok()?, kind: effects::mailer::kind(kind)? })
    }
}

/// Retry a failed mail.
///
/// The mail is tried at once, with as many attempts as a new one. A mail whose link has expired is not sent again: its
/// recipient has to request a new one.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/mail/failures/{mail_id}/retry", tag = "admin",
    operation_id = "retry_mail",
    params(("app_id" = String, Path, description = "The app"), ("mail_id" = String, Path, description = "The mail")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The mail is queued again"),
        (status = 409, description = "`mail_sent` or `mail_expired`")))]
async fn retry(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<MailSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let app_id = segments.app_id.clone();
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let mail = segments.mail().ok_or_else(Problem::not_found)?;
    let asking = service.repository.journal().read_positions(&[mail.position]).await?;
    let asking =
        asking.first().filter(|event| event.metadata.app_id == app_id).ok_or_else(Problem::not_found)?;
    let event = service.repository.decode(asking).await?;
    let wanted = mails_of(&event).into_iter().find(|wanted| wanted.kind == mail.kind);
    let useless_after = wanted.ok_or_else(Problem::not_found)?.expires_at;
    let id = EventId(asking.id);
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let (reads, delivery) = Reads::one::<Delivery>(&id);
    let committed = service
        .run_as(&caller, context, reads, move |work: &mut Work| {
            let again = DeliveryCommand::Retry { mail: mail.kind, useless_after, at };
            work.is_about_mails_of(id, mail.position);
            work.execute(delivery, again).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}

fn refused(error: DeliveryError) -> Problem {
    match error {
        DeliveryError::Absent | DeliveryError::Delivered => Problem::not_found(),
        DeliveryError::Sent => Problem::new(problems::MAIL_SENT),
        DeliveryError::Expired => Problem::new(problems::MAIL_EXPIRED),
    }
}
