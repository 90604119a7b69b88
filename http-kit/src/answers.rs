//! Responses that both services share.

use axum::response::{IntoResponse, Response};
use domain::user::User;
use domain::{AppId, Timestamp};
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
