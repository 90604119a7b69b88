//! Making an API key of an organization.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Committed, Reads, Work};
use domain::organization::{
    Acting, IssueKey, Organization, OrganizationEvent, OrganizationKey, OrganizationKeyIssued, Rank,
    RolePermission,
};
use domain::role_templates::RoleTemplates;
use domain::{Event, OrganizationKeyId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::{Problem, both, each};
use http_kit::reader::Time;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use tokens::OrganizationKeyToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::apps::check_name;
use crate::organization_keys::OrganizationKeyBody;
use crate::organizations::{OrganizationSegments, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// A new API key of an organization.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrganizationKey {
    /// The name of the key.
    #[schema(example = "ci", min_length = 1, max_length = 100)]
    name: String,
    /// What it allows in the app, at most 50 names of the app's own: lower-case letters, digits, `_` and `-`, with parts after
    /// `:` that may also have `*`.
    #[schema(example = json!(["billing:read"]), min_items = 1, max_items = 50)]
    permissions: Vec<String>,
    /// When it expires; never, if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// A newly made API key of an organization.
#[derive(Serialize, ToSchema)]
#[schema(as = IssuedOrganizationApiKey)]
pub(crate) struct IssuedOrganizationKey {
    #[serde(flatten)]
    api_key: OrganizationKeyBody,
    /// The text of the key, shown only once.
    #[schema(example = "wwk_…")]
    key: String,
}

/// Create an API key of an organization.
///
/// For programs of the organization that call the app's programs, which check it with `POST …/auth/introspect`: its permissions are
/// the `scope`. Only this answer shows its text (and its repetition under the same `Idempotency-Key`). It is the organization's:
/// it outlives the membership of whoever made it, and ends with the organization. Watchword's own routes do not accept it. Needs
/// the role `admin` or `owner`. An organization can have 100.
#[utoipa::path(post, path = "/v1/apps/{app_id}/orgs/{org_id}/api-keys", tag = "organizations",
    operation_id = "issue_organization_api_key",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("user" = [])),
    request_body = NewOrganizationKey,
    responses((status = 201, description = "The key, with its text", body = IssuedOrganizationKey),
        (status = 403, description = "`forbidden`: the caller's role does not allow it, or the app gives a permission to owners alone"),
        (status = 409, description = "`too_many_api_keys`"),
        (status = 422, description = "`validation_failed`")))]
async fn issue(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    body: Result<Body<NewOrganizationKey>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let (name, permissions) = both(check_name(&body.name), parse_permissions(&body.permissions))?;
    let context = service.context(&request, &app_id, caller.user.actor(), idempotency);
    let (acting, at) = (Acting::User(caller.user.user_id), context.at);
    let key_id = OrganizationKeyId(service.clock.new_id());
    let expires_at = body.expires_at.map(|time| time.0);
    let issue = IssueKey { acting, key_id, name, permissions, expires_at, at };
    // Before a repetition is answered: whoever is an admin no more is not shown the key again.
    caller.organization.state.require(acting, Rank::Admin).map_err(refused)?;
    let (mut reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let templates = reads.of::<RoleTemplates>(&app_id);
    let done = service
        .run_live(&caller.user, context, reads, move |work: &mut Work| {
            let (organization, templates) = work.drafts((organization, templates));
            issue.decide(organization, templates).map_err(refused)
        })
        .await?;
    issued(&service, &done)
}

/// Taken from the event, so that a repetition gets the original key.
fn issued(service: &CommandService, done: &Committed<()>) -> Result<Response, Problem> {
    let event = done.events.iter().find_map(|event| match event {
        Event::Organization(OrganizationEvent::OrganizationKeyIssued(event)) => Some(event.clone()),
        _ => None,
    });
    let OrganizationKeyIssued { organization_id, key_id, name, permissions, issued_by, expires_at, at } =
        event.ok_or_else(|| Problem::internal("no event says that the key was made"))?;
    let key = OrganizationKeyToken { organization_id, key_id }.encode(&service.tokens);
    let known = OrganizationKey { name, permissions, issued_by, expires_at, at };
    let api_key = OrganizationKeyBody::of(key_id, &known);
    Ok(Done::created(done.position, IssuedOrganizationKey { api_key, key }))
}

fn parse_permissions(texts: &[String]) -> Result<BTreeSet<RolePermission>, Problem> {
    let parse = |(at, text): (usize, &String)| {
        RolePermission::parse(text.as_str()).map_err(|error| {
            Problem::invalid(format!("/permissions/{at}"), field_codes::INVALID, error.to_string())
        })
    };
    each(texts.iter().enumerate().map(parse))
}
