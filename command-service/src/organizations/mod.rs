//! Organizations of users: what their members do.
//!
//! To whoever is no member an organization does not exist: the answer is that of an absent one.

mod caller;
pub(crate) mod change;
pub(crate) mod claims;
pub(crate) mod create;
pub(crate) mod delete;
mod erase;
mod find;
pub(crate) mod members;
mod read;
mod role_templates;
mod roles;

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::decisions::NotOrganized;
use domain::organization::{
    InvalidRolePermission, Organization, OrganizationError, RolePermission, RoleProblem,
};
use domain::{Role, Timestamp, UserId};
use http_kit::problem::Problem;
use schemas::{field_codes, problems};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::CommandService;
use crate::api::refusals::app_closed;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(read::routes())
        .merge(change::routes())
        .merge(delete::routes())
        .merge(members::routes())
        .merge(roles::routes())
        .merge(role_templates::routes())
}

/// The organization of a path.
#[derive(Deserialize)]
pub(crate) struct OrganizationSegments {
    pub org_id: Uuid,
}

/// An organization.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Organization)]
pub(crate) struct OrganizationBody {
    /// Its id.
    id: Uuid,
    /// Its app.
    app_id: String,
    /// The name shown to people.
    name: String,
    /// Its name in URLs.
    slug: String,
    /// The caller's role in it.
    role: String,
    /// How many members it has.
    member_count: u64,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it, or one of its members, was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl OrganizationBody {
    /// As a member sees it; `None` for everybody else.
    pub fn of(organization: &Organization, user_id: UserId) -> Option<Self> {
        Some(Self {
            id: organization.id?.0,
            app_id: organization.app_id.as_ref()?.to_string(),
            name: organization.name.clone(),
            slug: organization.slug.as_ref()?.to_string(),
            role: organization.role_of(user_id)?.to_string(),
            member_count: organization.members.len() as u64,
            created_at: organization.created_at,
            updated_at: organization.updated_at,
        })
    }
}

pub(crate) fn parse_role(text: &str) -> Result<Role, Problem> {
    Role::parse(text).map_err(|_| no_such_role(&OrganizationError::NoSuchRole))
}

fn no_such_role(why: &impl ToString) -> Problem {
    Problem::invalid("/role", field_codes::INVALID, why.to_string())
}

/// For a decision about an organization or its members that was refused.
pub(crate) fn not_organized(why: NotOrganized) -> Problem {
    match why {
        NotOrganized::App(closed) => app_closed(closed),
        NotOrganized::Memberships(error) => {
            Problem::new(problems::TOO_MANY_ORGANIZATIONS).detail(error.to_string())
        }
        NotOrganized::Organization(error) => refused(error),
        NotOrganized::NoSuchOwner => Problem::invalid("/owner_id", field_codes::INVALID, why.to_string()),
    }
}

/// For a role that stays as it is.
fn role_refused(error: RoleProblem) -> Problem {
    match error {
        RoleProblem::Absent => Problem::not_found(),
        RoleProblem::Reserved => no_such_role(&error),
        RoleProblem::TooManyPermissions => {
            Problem::invalid("/permissions", field_codes::TOO_LONG, error.to_string())
        }
        RoleProblem::TooMany => Problem::new(problems::TOO_MANY_CUSTOM_ROLES),
        RoleProblem::InUse => Problem::new(problems::ROLE_IN_USE),
    }
}

/// What a role allows.
#[derive(Deserialize, ToSchema)]
#[schema(as = RolePermissionsRequest)]
#[serde(deny_unknown_fields)]
struct RolePermissions {
    /// Permissions of the app's own, such as `billing:read`, at most 50: lower-case letters, digits, `_` and `-`, in parts
    /// divided by `:`; a later part may have `*`. Watchword hands them on in tokens and introspection.
    #[schema(max_items = 50)]
    permissions: Vec<String>,
}

impl RolePermissions {
    fn parse(self) -> Result<BTreeSet<RolePermission>, Problem> {
        let (mut parsed, mut problem) = (BTreeSet::new(), None::<Problem>);
        for (index, text) in self.permissions.into_iter().enumerate() {
            match RolePermission::parse(text) {
                Ok(permission) => {
                    parsed.insert(permission);
                }
                Err(error @ InvalidRolePermission) => {
                    let (pointer, detail) = (format!("/permissions/{index}"), error.to_string());
                    problem = Some(match problem {
                        Some(problem) => problem.field(pointer, field_codes::INVALID, detail),
                        None => Problem::invalid(pointer, field_codes::INVALID, detail),
                    });
                }
            }
        }
        problem.map_or(Ok(parsed), Err)
    }
}

/// For a command that an organization refused.
pub(crate) fn refused(error: OrganizationError) -> Problem {
    match error {
        OrganizationError::Absent
        | OrganizationError::NoSuchMember
        | OrganizationError::NoSuchInvitation
        | OrganizationError::NoSuchKey => Problem::not_found(),
        OrganizationError::NotAllowed | OrganizationError::AboveOneself => {
            Problem::forbidden().detail(error.to_string())
        }
        OrganizationError::Role(error) => role_refused(error),
        OrganizationError::LastOwner => Problem::new(problems::LAST_OWNER),
        OrganizationError::NoSuchRole => no_such_role(&error),
        OrganizationError::TooManyMembers => {
            Problem::new(problems::TOO_MANY_MEMBERS).detail(error.to_string())
        }
        OrganizationError::TooManyInvitations => {
            Problem::new(problems::TOO_MANY_INVITATIONS).detail(error.to_string())
        }
        OrganizationError::TooManyKeys => Problem::new(problems::TOO_MANY_API_KEYS).detail(error.to_string()),
        OrganizationError::KeyPermissions => {
            Problem::invalid("/permissions", field_codes::INVALID, error.to_string())
        }
        OrganizationError::EndsInThePast => {
            Problem::invalid("/expires_at", field_codes::INVALID, error.to_string())
        }
        OrganizationError::AlreadyMember => Problem::new(problems::ALREADY_MEMBER),
        OrganizationError::Exists => Problem::internal(error),
    }
}
