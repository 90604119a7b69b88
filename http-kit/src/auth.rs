//! Authenticates callers from the log: every check reads aggregates, never a projection.
//!
//! A check decides on cached aggregates. If other nodes may have written meanwhile, it then queries the versions of
//! everything that it read, once, and decides again if one has moved. So acceptances and refusals alike are valid as of
//! a moment after the request arrived.

mod client;

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::app::App;
use domain::session::Session;
use domain::user::User;
use domain::{ApiKeyId, AppId, Permission, SessionId, UserId};
use event_store::{Clock, Loaded, Reads, Repository};
use schemas::envelope::Actor;
use schemas::problems;

use crate::cookies::{Credentials, Shown};
use crate::known::has_credentials;
use crate::problem::Problem;
pub use client::{ClientCaller, InBody};
use tokens::{AccessClaims, AccessTokens, ApiKeyToken, DerivedTokens};

/// Checks credentials.
pub struct Authenticator {
    repository: Arc<Repository>,
    access_tokens: Arc<AccessTokens>,
    tokens: DerivedTokens,
    clock: Arc<dyn Clock>,
}

/// A user with an active session in an enabled app. A command should guard the loaded versions.
#[derive(Clone, Debug)]
pub struct UserCaller {
    /// The app.
    pub app_id: AppId,
    /// The user.
    pub user_id: UserId,
    /// The session of the credential.
    pub session_id: SessionId,
    /// What the access token says.
    pub claims: Arc<AccessClaims>,
    /// The app, as loaded.
    pub app: Arc<Loaded<App>>,
    /// The user, as loaded.
    pub user: Arc<Loaded<User>>,
    /// The session, as loaded.
    pub session: Arc<Loaded<Session>>,
}

impl UserCaller {
    /// As what events name them.
    pub fn actor(&self) -> Actor {
        Actor::user(self.user_id)
    }

    /// Whether they may use their app's admin routes.
    pub fn is_admin(&self) -> bool {
        self.app.state.is_admin(&self.user.state)
    }
}

/// The caller of an admin route, by kind of credential.
#[derive(Clone, Debug)]
pub enum Caller {
    /// An admin of the app.
    User(Box<UserCaller>),
    /// A holder of an API key of the app, or of the platform.
    ApiKey {
        /// The key.
        key_id: ApiKeyId,
        /// Its owner: the app, or the platform.
        app_id: AppId,
    },
}

/// A caller who may use an admin route.
#[derive(Clone, Debug)]
pub struct AdminCaller {
    /// As what events name them.
    pub actor: Actor,
    /// Whether they may do everything in the app: platform keys and admin users. Others may not grant or revoke the
    /// admin role, create tokens of its holders, or give API keys permissions that they lack themselves.
    pub full_admin: bool,
    /// What they may do.
    pub permissions: BTreeSet<Permission>,
    /// The credential.
    pub caller: Caller,
}

impl AdminCaller {
    /// Whether they may do this.
    pub fn may(&self, permission: Permission) -> bool {
        self.full_admin || self.permissions.contains(&permission)
    }

    /// 403 unless they may do this.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.may(permission) { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// Whether it is a platform key that may do everything.
    pub fn is_platform(&self) -> bool {
        self.full_admin && matches!(self.caller, Caller::ApiKey { .. })
    }

    /// 403 unless [`AdminCaller::full_admin`].
    pub fn require_full(&self) -> Result<(), Problem> {
        if self.full_admin { Ok(()) } else { Err(Problem::forbidden()) }
    }
}

impl Authenticator {
    /// Creates it from its dependencies.
    pub fn new(
        repository: Arc<Repository>,
        access_tokens: Arc<AccessTokens>,
        tokens: DerivedTokens,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { repository, access_tokens, tokens, clock }
    }

    /// The app, even if it is disabled: 404 if it is absent or the platform's own.
    pub async fn existing_app(&self, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = existing_app(&reads, app_id).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    /// Like [`Authenticator::existing_app`], but from the cache: for a command, whose append checks the version.
    pub async fn app_at_hand(&self, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
        existing_app(&self.repository.reads(), app_id).await
    }

    /// The app: 404 if it is absent or the platform's own, 403 `app_disabled` if it is disabled.
    pub async fn app(&self, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = enabled_app(&reads, app_id).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    /// Like [`Authenticator::app`], as part of a larger decision. A refusal is final; an app that is returned is current
    /// only once [`Reads::are_current`] says so.
    pub async fn app_on(&self, reads: &Reads<'_>, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
        loop {
            let decided = enabled_app(reads, app_id).await;
            if decided.is_ok() || reads.are_current().await? {
                return decided;
            }
        }
    }

    /// The user of the access token, sent as a bearer token or, in cookie mode, as a cookie. Checks that the token
    /// belongs to this app, and that session, user and app are active.
    pub async fn user(&self, app_id: &AppId, credentials: &Credentials) -> Result<UserCaller, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = self.user_on(&reads, app_id, credentials).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    /// Like [`Authenticator::user`], as part of a larger decision: neither a caller nor a refusal is valid before
    /// [`Reads::are_current`] says so.
    pub async fn user_on(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        credentials: &Credentials,
    ) -> Result<UserCaller, Problem> {
        let app = enabled_app(reads, app_id).await?;
        let shown = credentials.shown(&app.state, self.access_tokens.public_url())?;
        self.user_shown(reads, app_id, app, shown, credentials).await
    }

    /// 403 `forbidden` unless a changing request by cookie was made by a page of the app's own site for this session.
    pub fn require_csrf(
        &self,
        app: &App,
        session_id: SessionId,
        credentials: &Credentials,
    ) -> Result<(), Problem> {
        credentials.require_csrf(app, self.access_tokens.public_url(), &self.tokens, session_id)
    }

    async fn user_shown(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        app: Arc<Loaded<App>>,
        shown: Shown<'_>,
        credentials: &Credentials,
    ) -> Result<UserCaller, Problem> {
        match shown {
            Shown::Bearer(token) => self.user_of_token(reads, app_id, app, token).await,
            Shown::Cookie(token) => {
                let caller = self.user_of_token(reads, app_id, app, token).await?;
                self.require_csrf(&caller.app.state, caller.session_id, credentials)?;
                Ok(caller)
            }
        }
    }

    async fn user_of_token(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        app: Arc<Loaded<App>>,
        token: &str,
    ) -> Result<UserCaller, Problem> {
        let now = self.clock.now();
        let claims = self.access_tokens.verify(&app.state, token, now);
        let claims = claims.map_err(|_| Problem::invalid_token())?;
        let session = reads.load::<Session>(&claims.sid).await?;
        let owner = session.state.require_live(now).map_err(|_| Problem::invalid_token())?;
        if owner.user_id != claims.sub || owner.app_id != *app_id {
            return Err(Problem::invalid_token());
        }
        let user = reads.load::<User>(&claims.sub).await?;
        if !user.state.is_active() || !user.state.is_of(app_id) || !user.state.keeps(&session.state) {
            return Err(Problem::invalid_token());
        }
        has_credentials();
        Ok(UserCaller {
            app_id: app_id.clone(),
            user_id: claims.sub,
            session_id: claims.sid,
            claims,
            app,
            user,
            session,
        })
    }

    /// A caller who may do this in the app: a platform key (in a disabled app too), a key of the app with this
    /// permission, or an admin of the app. An active key of another app gets 404, as for an absent app.
    pub async fn admin(
        &self,
        app_id: &AppId,
        credentials: &Credentials,
        permission: Permission,
    ) -> Result<AdminCaller, Problem> {
        let admin = self.any_admin(app_id, credentials).await?;
        admin.require(permission)?;
        Ok(admin)
    }

    /// Like [`Authenticator::admin`], for routes whose permission depends on the request: the caller checks it with
    /// [`AdminCaller::require`].
    pub async fn any_admin(&self, app_id: &AppId, credentials: &Credentials) -> Result<AdminCaller, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = self.admin_shown(&reads, app_id, credentials).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    async fn admin_shown(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        credentials: &Credentials,
    ) -> Result<AdminCaller, Problem> {
        let app = existing_app(reads, app_id).await?;
        let shown = credentials.shown(&app.state, self.access_tokens.public_url())?;
        if let Shown::Bearer(token) = shown
            && self.is_api_key(token)
        {
            return self.key_for(reads, app_id, &app.state, token).await;
        }
        if app.state.disabled {
            return Err(Problem::new(problems::APP_DISABLED));
        }
        let user = self.user_shown(reads, app_id, app, shown, credentials).await?;
        if !user.is_admin() {
            return Err(Problem::forbidden());
        }
        Ok(AdminCaller {
            actor: user.actor(),
            full_admin: true,
            permissions: Permission::OF_AN_APP.into(),
            caller: Caller::User(Box::new(user)),
        })
    }

    /// The holder of any active API key of the app, or of the platform. Keys of other apps → 404, everything else →
    /// 401.
    pub async fn any_key(&self, app_id: &AppId, credentials: &Credentials) -> Result<AdminCaller, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = self.any_key_on(&reads, app_id, credentials).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    /// The app's own server, if the request has an API key: see [`Authenticator::any_key`]. Without one the caller is
    /// anonymous.
    pub async fn server(
        &self,
        app_id: &AppId,
        credentials: &Credentials,
    ) -> Result<Option<AdminCaller>, Problem> {
        match credentials.bearer() {
            Ok(token) if self.is_api_key(token) => self.any_key(app_id, credentials).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn any_key_on(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        credentials: &Credentials,
    ) -> Result<AdminCaller, Problem> {
        let app = existing_app(reads, app_id).await?;
        let token = credentials.bearer()?;
        if !self.is_api_key(token) {
            return Err(Problem::invalid_token());
        }
        self.key_for(reads, app_id, &app.state, token).await
    }

    async fn key_for(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        app: &App,
        token: &str,
    ) -> Result<AdminCaller, Problem> {
        let admin = self.api_key(reads, token).await?;
        if admin.full_admin {
            return Ok(admin);
        }
        if !matches!(&admin.caller, Caller::ApiKey { app_id: own, .. } if own == app_id) {
            return Err(Problem::not_found());
        }
        if app.disabled { Err(Problem::new(problems::APP_DISABLED)) } else { Ok(admin) }
    }

    /// The holder of a platform key. Other valid API keys → 403, everything else → 401.
    pub async fn platform(&self, credentials: &Credentials) -> Result<AdminCaller, Problem> {
        let token = credentials.bearer()?;
        if !self.is_api_key(token) {
            return Err(Problem::invalid_token());
        }
        let reads = self.repository.reads();
        loop {
            let decided = self.platform_on(&reads, token).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    async fn platform_on(&self, reads: &Reads<'_>, token: &str) -> Result<AdminCaller, Problem> {
        let admin = self.api_key(reads, token).await?;
        admin.require_full()?;
        Ok(admin)
    }

    /// The holder of a key that may read the metrics: a platform key, or one with `metrics:read`. Other valid API keys
    /// → 403, everything else → 401.
    pub async fn metrics(&self, credentials: &Credentials) -> Result<AdminCaller, Problem> {
        let token = credentials.bearer()?;
        if !self.is_api_key(token) {
            return Err(Problem::invalid_token());
        }
        let reads = self.repository.reads();
        loop {
            let decided = self.metrics_on(&reads, token).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    async fn metrics_on(&self, reads: &Reads<'_>, token: &str) -> Result<AdminCaller, Problem> {
        let admin = self.api_key(reads, token).await?;
        admin.require(Permission::MetricsRead)?;
        if let Caller::ApiKey { app_id, .. } = &admin.caller
            && reads.load::<App>(app_id).await?.state.disabled
        {
            return Err(Problem::new(problems::APP_DISABLED));
        }
        Ok(admin)
    }

    /// The holder of a key that may read the signed tree of the whole journal: a platform key, or one of the platform with
    /// `audit:read`. Other valid API keys → 403, everything else → 401.
    pub async fn auditor(&self, credentials: &Credentials) -> Result<AdminCaller, Problem> {
        let token = credentials.bearer()?;
        if !self.is_api_key(token) {
            return Err(Problem::invalid_token());
        }
        let reads = self.repository.reads();
        loop {
            let decided = self.auditor_on(&reads, token).await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }

    async fn auditor_on(&self, reads: &Reads<'_>, token: &str) -> Result<AdminCaller, Problem> {
        let admin = self.api_key(reads, token).await?;
        match &admin.caller {
            Caller::ApiKey { app_id, .. } if app_id.is_platform() => admin.require(Permission::AuditRead)?,
            _ => return Err(Problem::forbidden()),
        }
        Ok(admin)
    }

    /// Whether it is an API key rather than an access token: by its form, or because it is the configured platform key.
    fn is_api_key(&self, token: &str) -> bool {
        token.starts_with("wwk_") || self.tokens.is_brought(token).is_some()
    }

    /// The holder of any active API key.
    async fn api_key(&self, reads: &Reads<'_>, token: &str) -> Result<AdminCaller, Problem> {
        let key = ApiKeyToken::decode(&self.tokens, token).ok_or_else(Problem::invalid_token)?;
        let app = reads.load::<App>(&key.app_id).await?;
        let known = app.state.api_keys.get(&key.key_id).filter(|known| known.is_live(self.clock.now()));
        let known = known.ok_or_else(Problem::invalid_token)?;
        has_credentials();
        let of_the_platform = key.app_id.is_platform() && known.permissions.contains(&Permission::Platform);
        let mut permissions = known.permissions.clone();
        permissions.extend(known.permissions.iter().flat_map(|permission| permission.contained()));
        if of_the_platform {
            permissions.extend(Permission::OF_AN_APP);
        }
        Ok(AdminCaller {
            actor: Actor::api_key(key.key_id),
            full_admin: of_the_platform,
            permissions,
            caller: Caller::ApiKey { key_id: key.key_id, app_id: key.app_id },
        })
    }
}

async fn existing_app(reads: &Reads<'_>, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
    if app_id.is_platform() {
        return Err(Problem::not_found());
    }
    let app = reads.load::<App>(app_id).await?;
    if app.state.id.is_some() { Ok(app) } else { Err(Problem::not_found()) }
}

async fn enabled_app(reads: &Reads<'_>, app_id: &AppId) -> Result<Arc<Loaded<App>>, Problem> {
    let app = existing_app(reads, app_id).await?;
    if app.state.disabled { Err(Problem::new(problems::APP_DISABLED)) } else { Ok(app) }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
