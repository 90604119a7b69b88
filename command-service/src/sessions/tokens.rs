//! The tokens of a session: derived from what is in the log, and the same at every replay. Roles and organizations are those
//! of now: a repeated answer says nothing that no longer holds.

use std::collections::BTreeSet;

use domain::app::App;
use domain::session::{Session, SessionEvent};
use domain::user::User;
use domain::{AppId, Event, OrganizationId, SessionId, Timestamp, UserId};
use http_kit::answers::UserBody;
use http_kit::cookies::{Lasting, SetCookies, csrf_token};
use http_kit::problem::Problem;
use serde::Serialize;
use tokens::{Grant, Issued, RefreshToken};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::CommandService;
use crate::callers::known_client::device_of;
use crate::callers::live::require_live;
use crate::organizations::claims::{Sought, room_in_tokens};

/// An access token with its refresh token and their user.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct TokensBody {
    /// A JWT (RFC 9068). In cookie mode it is only in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub access_token: Option<String>,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    pub token_type: &'static str,
    /// The remaining lifetime of the access token in seconds.
    pub expires_in: u32,
    /// Use it once, for the next pair. In cookie mode it is only in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub refresh_token: Option<String>,
    /// The session they belong to.
    pub session_id: Uuid,
    /// The user they belong to.
    pub user: UserBody,
}

/// One link of a session's chain of refresh tokens: what its tokens are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainLink {
    pub session_id: SessionId,
    pub user_id: UserId,
    /// The generation of the next usable refresh token.
    pub generation: u32,
    /// When the link was made.
    pub at: Timestamp,
}

impl ChainLink {
    /// The link that the committed events made, if any.
    pub fn made_by(events: &[Event]) -> Option<Self> {
        events.iter().rev().find_map(|event| match event {
            Event::Session(SessionEvent::SessionStarted(event)) => Some(Self {
                session_id: event.session_id,
                user_id: event.user_id,
                generation: 0,
                at: event.at,
            }),
            Event::Session(SessionEvent::SessionRefreshed(event)) => Some(Self {
                session_id: event.session_id,
                user_id: event.user_id,
                generation: event.generation,
                at: event.at,
            }),
            _ => None,
        })
    }

    /// The current link of a session.
    pub fn of(session: &Session) -> Option<Self> {
        let owner = session.owner.as_ref()?;
        Some(Self {
            session_id: owner.session_id,
            user_id: owner.user_id,
            generation: session.generation,
            at: session.refreshed_at,
        })
    }
}

impl CommandService {
    /// The tokens of a link, if app, user and session are live. All are derived from the link, so asking again gives the same
    /// tokens. In cookie mode they are set as cookies and left out of the body, where a script could read them. The device
    /// token goes with them.
    ///
    /// A decision just made has already checked all three, and has read the list of the user's organizations: `listed`. For a
    /// repeated request there is none, and all is read and checked again. So are organizations: a person without any costs
    /// no question.
    pub(crate) async fn tokens_of(
        &self,
        app_id: &AppId,
        link: ChainLink,
        listed: Option<&BTreeSet<OrganizationId>>,
    ) -> Result<(SetCookies, TokensBody), Problem> {
        let reads = self.repository.reads();
        let (app, user, session, orgs) = loop {
            let app = reads.load::<App>(app_id).await?;
            let user = reads.load::<User>(&link.user_id).await?;
            let session = reads.load::<Session>(&link.session_id).await?;
            let (user_id, active) = (link.user_id, session.state.organization);
            let sought = Sought { user_id, listed, active, bytes: room_in_tokens(&app.state) };
            let orgs = self.org_claims(&reads, &app.state, &sought).await?;
            if listed.is_some_and(BTreeSet::is_empty) || reads.are_current().await? {
                break (app, user, session, orgs);
            }
        };
        let now = self.clock.now();
        require_live(&app.state, &user.state, &session.state, app_id, now)?;
        let ttl = i64::from(app.state.settings.access_token_ttl);
        // The remaining time: a repeated request gets the original token, which has aged meanwhile.
        let expires_in = u32::try_from(ttl - now.duration_since(link.at).as_secs()).unwrap_or_default();
        let grant = Grant {
            app: &app.state,
            user: &user.state,
            session_id: link.session_id,
            issued: Issued::WithRefresh(link.generation),
            orgs,
            most: self.longest_token(&app.state),
            at: link.at,
            ttl,
        };
        let access_token = self.signing.access_token(&grant).await?;
        let refresh = RefreshToken { session_id: link.session_id, generation: link.generation };
        let refresh_token = refresh.encode(&self.tokens);
        let ends = session.state.expires_at.min(session.state.idle_expires_at);
        let access = Lasting { token: &access_token, seconds: expires_in.into() };
        let refresh = Lasting { token: &refresh_token, seconds: ends.duration_since(now).as_secs() };
        let csrf = csrf_token(&self.tokens, link.session_id);
        let cookies = SetCookies::of(&app.state, self.access_tokens.public_url(), &csrf, access, refresh);
        let hidden = cookies.hold_the_tokens();
        let in_body = |token: String| (!hidden).then_some(token);
        let device = device_of(link.session_id);
        let cookies = self.with_device(cookies, &app.state, &user.state, device, link.at);
        let body = TokensBody {
            access_token: in_body(access_token),
            token_type: "Bearer",
            expires_in,
            refresh_token: in_body(refresh_token),
            session_id: link.session_id.0,
            user: UserBody::of(&user.state),
        };
        Ok((cookies, body))
    }
}
