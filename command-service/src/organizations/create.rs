//! Creating an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cqrs_es::Aggregate;
use dispatcher::{Committed, Context, DispatchError, Reads, Work};
use domain::Event;
use domain::app::App;
use domain::decisions::CreateOrganization;
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationEvent, OrganizationId, Slug};
use http_kit::auth::UserCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use schemas::field_codes;
use schemas::problems;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::apps::check_name;
use crate::organizations::{OrganizationBody, not_organized};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A new organization.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrganization {
    /// The name shown to people.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Its name in URLs. If absent, one is made of the name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z0-9](-?[a-z0-9])*$")]
    slug: Option<String>,
}

/// Create an organization.
///
/// Whoever creates it is its owner. Its name is a label that everybody who works with its events can read, so it should say
/// nothing personal. A user can be in at most 100 organizations.
#[utoipa::path(post, path = "/v1/apps/{app_id}/orgs", tag = "organizations", operation_id = "create_organization",
    params(("app_id" = String, Path, description = "The app")), security(("user" = [])),
    request_body = NewOrganization,
    responses((status = 201, description = "The organization", body = OrganizationBody),
        (status = 409, description = "`slug_taken`, `too_many_organizations`"),
        (status = 422, description = "`validation_failed`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<NewOrganization>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let (name, slug) = both(check_name(&body.name), body.slug.map(|slug| parse_slug(&slug)).transpose())?;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let organization_id = OrganizationId(service.clock.new_id());
    let (owner, at) = (caller.user_id, context.at);
    let (slug, otherwise) = slugs(slug, &name, organization_id);
    let create = CreateOrganization { organization_id, name, slug, owner, at };
    let mut done = service.create_organization(&caller, context.clone(), create.clone()).await;
    if let (Err(DispatchError::ClaimTaken { .. }), Some(slug)) = (&done, otherwise) {
        done = service.create_organization(&caller, context, CreateOrganization { slug, ..create }).await;
    }
    let done = done.map_err(slug_problem)?;
    let body = OrganizationBody::of(&created_organization(&done), owner)
        .ok_or_else(|| Problem::internal("no event says who owns the organization"))?;
    Ok(Done::created(done.position, body))
}

/// The slug of a new organization; if it is made of the name, also the one to take if another organization has it.
pub(crate) fn slugs(slug: Option<Slug>, name: &str, id: OrganizationId) -> (Slug, Option<Slug>) {
    if let Some(slug) = slug {
        return (slug, None);
    }
    let made = Slug::of_name(name);
    let otherwise = made.with_ending(id.0);
    (made, Some(otherwise))
}

pub(crate) fn parse_slug(text: &str) -> Result<Slug, Problem> {
    Slug::parse(text).map_err(|error| Problem::invalid("/slug", field_codes::INVALID, error.to_string()))
}

/// For a slug that another organization has.
pub(crate) fn slug_problem(error: DispatchError<Problem>) -> Problem {
    match error {
        DispatchError::ClaimTaken { .. } => Problem::new(problems::SLUG_TAKEN).field(
            "/slug",
            problems::SLUG_TAKEN,
            "another organization of the app has this slug",
        ),
        other => other.into(),
    }
}

impl CommandService {
    async fn create_organization(
        &self,
        caller: &UserCaller,
        context: Context,
        create: CreateOrganization,
    ) -> Result<Committed<()>, DispatchError<Problem>> {
        let (mut reads, app) = Reads::one::<App>(&caller.app_id);
        let organization = reads.new_one::<Organization>(&create.organization_id);
        let memberships = reads.of::<Memberships>(&create.owner);
        self.run_live(caller, context, reads, move |work: &mut Work| {
            let (app, organization, memberships) = work.drafts((app, organization, memberships));
            create.decide(app, organization, memberships).map_err(not_organized)
        })
        .await
    }
}

/// The organization as these events created it: a repetition gets the original answer.
pub(crate) fn created_organization(done: &Committed<()>) -> Organization {
    let mut organization = Organization::default();
    for event in &done.events {
        if let Event::Organization(event) = event {
            organization.apply(OrganizationEvent::clone(event));
        }
    }
    organization
}
