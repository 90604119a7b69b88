//! Responses that both services share.

use axum::response::{IntoResponse, Response};
use domain::organization::{Member, Organization};
use domain::user::User;
use domain::{AppId, Timestamp, UserId};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A response that must not be cached.
pub fn uncached(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A user, as the person themselves and admins see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserBody {
    /// Its id.
    pub id: Uuid,
    /// Its app.
    pub app_id: String,
    /// The person's normalized address.
    #[schema(required)]
    pub email: Option<String>,
    /// Whether the address is verified.
    pub email_verified: bool,
    /// The name shown to people.
    #[schema(required)]
    pub name: Option<String>,
    /// The profile picture.
    #[schema(required)]
    pub avatar_url: Option<String>,
    /// A telephone number.
    #[schema(required)]
    pub phone: Option<String>,
    /// Whether the user is banned.
    pub banned: bool,
    /// Their roles.
    pub roles: Vec<String>,
    /// When the account was created; of an imported one, in the system that it comes from.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// In lists: `true` if the key of the person's data is missing, as with a key store of an older backup. Their data
    /// cannot be read until it is restored; they were not erased.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

impl UserBody {
    /// The shown part of a user.
    pub fn of(user: &User) -> Self {
        Self {
            id: user.id.map(|id| id.0).unwrap_or_default(),
            app_id: user.app_id.as_ref().map(AppId::to_string).unwrap_or_default(),
            email: user.email.as_ref().map(|email| email.as_str().to_owned()),
            email_verified: user.email_verified,
            name: user.name.clone(),
            avatar_url: user.avatar_url.clone(),
            phone: user.phone.clone(),
            banned: user.banned,
            roles: user.roles.iter().map(ToString::to_string).collect(),
            created_at: user.since(),
            updated_at: user.updated_at,
            damaged: false,
        }
    }
}

/// An organization, as admins of its app see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppOrganization)]
pub struct AppOrganizationBody {
    /// Its id.
    pub id: Uuid,
    /// Its app.
    pub app_id: String,
    /// The name shown to people.
    pub name: String,
    /// Its name in URLs.
    pub slug: String,
    /// How many members it has.
    pub member_count: u64,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it, or one of its members, was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl AppOrganizationBody {
    /// The shown part of an organization; `None` if there is none, or none any more.
    pub fn of(organization: &Organization) -> Option<Self> {
        Some(Self {
            id: organization.id?.0,
            app_id: organization.app_id.as_ref()?.to_string(),
            name: organization.name.clone(),
            slug: organization.slug.as_ref()?.to_string(),
            member_count: organization.members.len() as u64,
            created_at: organization.created_at,
            updated_at: organization.updated_at,
        })
    }
}

/// A member of an organization.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrganizationMember)]
pub struct MemberBody {
    /// The user.
    pub user_id: Uuid,
    /// Their role in the organization.
    pub role: String,
    /// Their address.
    #[schema(required)]
    pub email: Option<String>,
    /// The name shown to people.
    #[schema(required)]
    pub name: Option<String>,
    /// The profile picture.
    #[schema(required)]
    pub avatar_url: Option<String>,
    /// Since when they are a member.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
}

impl MemberBody {
    /// A member, with what the account says about the person; without it, for who may not see that.
    pub fn of(user_id: UserId, member: &Member, user: Option<&User>) -> Self {
        Self {
            user_id: user_id.0,
            role: member.role.to_string(),
            email: user.and_then(|user| user.email.as_ref()).map(|email| email.as_str().to_owned()),
            name: user.and_then(|user| user.name.clone()),
            avatar_url: user.and_then(|user| user.avatar_url.clone()),
            joined_at: member.joined_at,
        }
    }
}
