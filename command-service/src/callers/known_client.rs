//! Clients that have been in an account before. They have their own budgets, which strangers can neither spend nor lock
//! (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").
//!
//! A client proves this with a device token from an earlier login to the account (in a header, or a cookie in cookie
//! mode), or with a live session. Neither grants access; it only selects the budget.

use domain::app::App;
use domain::session::Session;
use domain::user::User;
use domain::{AppId, DeviceId, SessionId, Timestamp, UserId};
use event_store::Reads;
use http_kit::cookies::{Credentials, Lasting, SetCookies, TokenCookie};
use http_kit::problem::Problem;
use jiff::SignedDuration;
use tokens::{DeviceToken, RefreshToken};

use crate::CommandService;

/// A session is a device: requests with either token are counted together.
pub(crate) fn device_of(session_id: SessionId) -> DeviceId {
    DeviceId(session_id.0)
}

impl CommandService {
    /// The known device of this account that makes the request, if any.
    pub(crate) async fn known_client(
        &self,
        app_id: &AppId,
        user_id: UserId,
        credentials: &Credentials,
        at: Timestamp,
    ) -> Result<Option<DeviceId>, Problem> {
        let reads = self.repository.reads();
        loop {
            let known = self.known_client_on(&reads, app_id, user_id, credentials, at).await?;
            if reads.are_current().await? {
                return Ok(known);
            }
        }
    }

    /// As [`CommandService::known_client`], as part of a larger decision: it is valid once the reads are known to be current.
    pub(crate) async fn known_client_on(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        user_id: UserId,
        credentials: &Credentials,
        at: Timestamp,
    ) -> Result<Option<DeviceId>, Problem> {
        let app = reads.load::<App>(app_id).await?;
        let user = reads.load::<User>(&user_id).await?;
        if !user.state.is_of(app_id) {
            return Ok(None);
        }
        let shown = credentials.device(&app.state, self.access_tokens.public_url());
        if let Some(token) = shown.and_then(|text| DeviceToken::decode(&self.tokens, text))
            && token.user_id == user_id
            && token.epoch == user.state.epoch
            && at < token.expires_at
        {
            return Ok(Some(token.device_id));
        }
        let session = match self.authenticator.user_on(reads, app_id, credentials).await {
            Ok(caller) => Some(caller.session_id).filter(|_| caller.user_id == user_id),
            Err(problem) if problem.status().is_server_error() => return Err(problem),
            Err(_) => self.session_of_refresh_cookie(reads, &app.state, &user.state, credentials, at).await?,
        };
        Ok(session.map(device_of))
    }

    /// The session of the refresh cookie, if it is usable. Access cookies expire earlier.
    async fn session_of_refresh_cookie(
        &self,
        reads: &Reads<'_>,
        app: &App,
        user: &User,
        credentials: &Credentials,
        at: Timestamp,
    ) -> Result<Option<SessionId>, Problem> {
        let shown = credentials.cookie(app, self.access_tokens.public_url(), TokenCookie::Refresh);
        let Some(token) = shown.and_then(|text| RefreshToken::decode(&self.tokens, text)) else {
            return Ok(None);
        };
        let session = reads.load::<Session>(&token.session_id).await?.state.clone();
        let is_theirs = session.require_live(at).is_ok_and(|owner| Some(owner.user_id) == user.id);
        let is_good = is_theirs && session.generation == token.generation && user.keeps(&session);
        Ok(is_good.then_some(token.session_id))
    }

    /// Adds the device token that identifies this device as known to the account.
    pub(crate) fn with_device(
        &self,
        set: SetCookies,
        app: &App,
        user: &User,
        device_id: DeviceId,
        since: Timestamp,
    ) -> SetCookies {
        let Some(user_id) = user.id else { return set };
        let ttl = i64::from(self.settings.device_ttl);
        let expires_at = domain::time::after(since, SignedDuration::from_secs(ttl));
        let token = DeviceToken { user_id, device_id, epoch: user.epoch, expires_at }.encode(&self.tokens);
        let left = expires_at.duration_since(self.clock.now()).as_secs();
        set.with_device(
            app,
            self.access_tokens.public_url(),
            Lasting { token: &token, seconds: left.clamp(0, ttl) },
        )
    }
}
