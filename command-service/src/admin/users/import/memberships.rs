//! The memberships of a person who is imported: in organizations that are there, by their slugs.

use dispatcher::{Handle, Reads, Work};
use domain::decisions::SetMember;
use domain::draft::Draft;
use domain::memberships::{MAX_ORGANIZATIONS, Memberships};
use domain::organization::{Acting, Organization, OrganizationId, Slug};
use domain::role_templates::RoleTemplates;
use domain::user::User;
use domain::{AppId, Role, Timestamp, UserId};
use http_kit::problem::{Problem, both, each};
use schemas::field_codes;
use serde::Deserialize;

use crate::CommandService;
use crate::admin::users::roles::parse_role;
use crate::organizations::not_organized;

/// A membership that a line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub slug: Slug,
    pub role: Role,
}

/// One as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceivedMembership {
    slug: String,
    role: String,
}

/// The memberships of a line, each organization once.
pub(super) fn memberships(received: &[ReceivedMembership]) -> Result<Vec<Membership>, Problem> {
    if received.len() > MAX_ORGANIZATIONS {
        let detail = format!("a person can be in at most {MAX_ORGANIZATIONS} organizations");
        return Err(Problem::invalid("/orgs", field_codes::TOO_LONG, detail));
    }
    let read = received.iter().enumerate().map(|(at, ReceivedMembership { slug, role })| {
        let slug = Slug::parse(slug).map_err(|why| {
            Problem::invalid(format!("/orgs/{at}/slug"), field_codes::INVALID, why.to_string())
        });
        let (slug, role) = both(slug, parse_role(role, &format!("/orgs/{at}/role")))?;
        if received[..at].iter().any(|earlier| earlier.slug == slug.as_str()) {
            let detail = "the organization is named twice";
            return Err(Problem::invalid(format!("/orgs/{at}/slug"), field_codes::REPEATED, detail));
        }
        Ok(Membership { slug, role })
    });
    each(read)
}

/// Memberships whose organizations were found, in the order of the line.
pub(super) struct Found {
    app_id: AppId,
    memberships: Vec<(OrganizationId, Role)>,
}

/// Access to them, for a decision.
pub(super) struct Handles {
    memberships: Handle<Memberships>,
    templates: Handle<RoleTemplates>,
    organizations: Vec<(OrganizationId, Handle<Organization>, Role)>,
}

impl Found {
    /// Of a person who is in none.
    pub fn none(app_id: &AppId) -> Self {
        Self { app_id: app_id.clone(), memberships: vec![] }
    }

    /// Finds the organizations.
    pub async fn of(
        service: &CommandService,
        app_id: &AppId,
        memberships: &[Membership],
    ) -> Result<Self, Problem> {
        let mut found = Vec::with_capacity(memberships.len());
        for (at, Membership { slug, role }) in memberships.iter().enumerate() {
            let Some(organization_id) = service.organization_of_slug(app_id, slug).await? else {
                let detail = "no organization of the app has this slug";
                return Err(Problem::invalid(format!("/orgs/{at}/slug"), field_codes::INVALID, detail));
            };
            found.push((organization_id, role.clone()));
        }
        Ok(Self { app_id: app_id.clone(), memberships: found })
    }

    pub fn is_empty(&self) -> bool {
        self.memberships.is_empty()
    }

    /// Adds them to what a decision reads.
    pub fn read(&self, user_id: UserId, reads: &mut Reads) -> Handles {
        let of = |(id, role): &(OrganizationId, Role)| (*id, reads.of::<Organization>(id), role.clone());
        let organizations = self.memberships.iter().map(of).collect();
        let templates = reads.of::<RoleTemplates>(&self.app_id);
        Handles { memberships: reads.of::<Memberships>(&user_id), templates, organizations }
    }

    /// Decides them for a person who is not imported.
    pub async fn check(
        &self,
        service: &CommandService,
        user: &User,
        user_id: UserId,
        at: Timestamp,
    ) -> Result<(), Problem> {
        let templates = service.repository.load::<RoleTemplates>(&self.app_id).await?;
        let mut memberships = Draft::of(service.repository.load::<Memberships>(&user_id).await?);
        for (index, (organization_id, role)) in self.memberships.iter().enumerate() {
            let mut organization = Draft::of(service.repository.load::<Organization>(organization_id).await?);
            set(*organization_id, user_id, role, at)
                .decide(user, &mut organization, &templates.state, &mut memberships)
                .map_err(|why| refused(index, &not_organized(why)))?;
        }
        Ok(())
    }
}

impl Handles {
    /// Decides them, for the person whose account was decided before.
    pub fn decide(
        &self,
        work: &mut Work,
        user: Handle<User>,
        user_id: UserId,
        at: Timestamp,
    ) -> Result<(), Problem> {
        for (index, (organization_id, organization, role)) in self.organizations.iter().enumerate() {
            let (user, organization, templates, memberships) =
                work.drafts((user, *organization, self.templates, self.memberships));
            set(*organization_id, user_id, role, at)
                .decide(user, organization, templates, memberships)
                .map_err(|why| refused(index, &not_organized(why)))?;
        }
        Ok(())
    }
}

fn set(organization_id: OrganizationId, user_id: UserId, role: &Role, at: Timestamp) -> SetMember {
    SetMember { organization_id, acting: Acting::App, user_id, role: role.clone(), at }
}

/// A refusal, as one of a member of the line.
fn refused(index: usize, problem: &Problem) -> Problem {
    let Some(error) = problem.errors().first() else {
        return Problem::invalid(format!("/orgs/{index}"), problem.kind(), problem.text());
    };
    let pointer = format!("/orgs/{index}{}", error.pointer.as_deref().unwrap_or_default());
    Problem::invalid(pointer, field_codes::INVALID, error.detail.clone())
}
