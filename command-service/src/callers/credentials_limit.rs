//! The rate limit of routes on which passwords can be guessed: per address, except for an app's own server, which logs
//! in all its users from one address. Its requests are counted per API key, and its logins per user.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::{AppId, Email, Permission};
use http::request::Parts;
use http_kit::auth::Caller;
use http_kit::cookies::Credentials;
use http_kit::extract::AppScope;
use http_kit::limits::{Asker, RateClass};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;

use crate::CommandService;

/// Whose requests are counted. A request extension.
#[derive(Clone, Copy)]
pub(crate) struct Counted(pub Asker);

impl<S: Sync> FromRequestParts<S> for Counted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let counted = parts.extensions.get::<Self>().copied();
        counted.ok_or_else(|| Problem::internal("the route is not behind its limit"))
    }
}

/// The layer.
pub(crate) async fn limit(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    context: RequestContext,
    credentials: Credentials,
    mut request: Request,
    next: Next,
) -> Response {
    let asker = match service.asker(&app_id, &context, &credentials).await {
        Ok(asker) => asker,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(Counted(asker));
    // A server's requests were already counted by its key.
    let Asker::Address(address) = asker else { return next.run(request).await };
    match service.limits.check(RateClass::Credentials, address) {
        Ok(standing) => {
            let mut response = next.run(request).await;
            if let Some(standing) = standing {
                standing.describe(response.headers_mut());
            }
            response
        }
        Err(standing) => Problem::rate_limited(standing).into_response(),
    }
}

impl CommandService {
    /// The app's own server, if its key has `users:write`; otherwise the client address.
    async fn asker(
        &self,
        app_id: &AppId,
        context: &RequestContext,
        credentials: &Credentials,
    ) -> Result<Asker, Problem> {
        let anybody = Asker::Address(context.address);
        match self.authenticator.server(app_id, credentials).await {
            Ok(Some(server)) if server.may(Permission::UsersWrite) => Ok(match server.caller {
                Caller::ApiKey { key_id, .. } => Asker::Server(key_id),
                Caller::User(_) => anybody,
            }),
            Err(problem) if problem.status().is_server_error() => Err(problem),
            _ => Ok(anybody),
        }
    }

    /// Counts a login through an app's own server per user.
    pub(crate) fn count_login(
        &self,
        Counted(asker): Counted,
        app_id: &AppId,
        name: &str,
    ) -> Result<(), Problem> {
        match asker {
            Asker::Server(_) => {
                self.limits.check_person(asker, app_id, name).map_err(Problem::rate_limited).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// A successful login is not a guess: it is credited back to its address and counted per user instead.
    pub(crate) fn count_good_login(&self, Counted(asker): Counted, app_id: &AppId, email: &Email) {
        if let Asker::Address(address) = asker
            && self.limits.check_person(asker, app_id, email.as_str()).is_ok()
        {
            self.limits.give_back(RateClass::Credentials, address);
        }
    }
}
