//! Exchanging a one-time code for the tokens of a session (RFC 6749 section 4.1, RFC 7636).

use crate::api::refusals::may_not_enter;
use domain::decisions::{ExchangeCode, NotExchanged, StartSession};
use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dispatcher::{Committed, Context, Reads, Work};
use domain::app::App;
use domain::magic_link::MagicLink;
use domain::memberships::Memberships;
use domain::pkce::{CodeChallenge, CodeVerifier};
use domain::session::{LoginMethod, Session};
use domain::user::{Client, User};
use domain::{AppId, MagicLinkId, OrganizationId, SessionId};
use http_kit::extract::{AppScope, Body};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokens::MagicLinkToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::sessions::tokens::{ChainLink, TokensBody};

/// How often to retry because the code was exchanged meanwhile.
const MAX_LOOKS: usize = 4;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(exchange))
}

/// The code that the browser brought to the `redirect_uri`.
#[derive(Deserialize, ToSchema)]
#[schema(as = ExchangeRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// The `code` from its query.
    #[schema(example = "wwx_…")]
    code: String,
    /// The secret whose hash was the `code_challenge`, if one was sent.
    #[schema(value_type = Option<String>, min_length = 43, max_length = 128)]
    code_verifier: Option<SecretString>,
}

/// Exchange a code for tokens.
///
/// A code works once. If it is used again, the session it started ends: one of its two holders must have stolen it.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/exchange", tag = "magic links", operation_id = "exchange_code",
    params(("app_id" = String, Path, description = "The app")), request_body = Exchange,
    responses((status = 200, description = "Tokens of a new session", body = TokensBody),
        (status = 400, description = "`invalid_or_expired_code`"),
        (status = 401, description = "`session_revoked`, `session_expired`: a repeated request whose session has ended"),
        (status = 403, description = "`user_banned`, `app_disabled`"),
        (status = 422, description = "`idempotency_key_reused`")))]
pub(crate) async fn exchange(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    Body { value: body, idempotency }: Body<Exchange>,
) -> Result<Response, Problem> {
    service.authenticator.app(&app_id).await?;
    let MagicLinkToken(link_id) =
        MagicLinkToken::decode_code(&service.tokens, &body.code).ok_or_else(invalid_code)?;
    let presented = body.code_verifier.as_ref().map(|verifier| challenge_of(verifier.expose_secret()));
    let presented = presented.transpose()?;
    let context = service.context(&request, &app_id, Actor::anonymous(), idempotency);
    for _ in 0..MAX_LOOKS {
        let code = Code { link_id, presented: presented.clone(), client: request.client.clone() };
        let done = service.exchange_code(&app_id, code, context.clone()).await?;
        if let Some(done) = done {
            let link = ChainLink::made_by(&done.events).ok_or_else(invalid_code)?;
            if !done.replayed {
                service.end_oldest_sessions(link.user_id, link.session_id, context).await;
            }
            let listed = done.value.as_ref().and_then(Option::as_ref);
            let (cookies, tokens) = service.tokens_of(&app_id, link, listed).await?;
            return Ok((cookies, Done::ok(done.position, tokens)).into_response());
        }
    }
    Err(Problem::overloaded("a code kept being exchanged"))
}

/// A received code and what came with it.
struct Code {
    link_id: MagicLinkId,
    presented: Option<CodeChallenge>,
    client: Client,
}

impl CommandService {
    /// Starts a session, or ends the one that the code already started. `None` if that session was not there yet when
    /// read. The value is the list of the user's organizations.
    async fn exchange_code(
        &self,
        app_id: &AppId,
        code: Code,
        context: Context,
    ) -> Result<Option<Committed<Option<BTreeSet<OrganizationId>>>>, Problem> {
        let Code { link_id, presented, client } = code;
        let link = self.repository.load::<MagicLink>(&link_id).await?;
        if link.state.issued.as_ref().is_none_or(|issued| issued.app_id != *app_id) {
            return Err(invalid_code());
        }
        let (user_id, begun) = link.state.holder().ok_or_else(invalid_code)?;
        let session_id = SessionId(self.clock.new_id());
        let (method, at) = (LoginMethod::MagicLink, context.at);
        let start = StartSession { session_id, method, client, at, latest: self.repository.latest(at) };
        let exchange = ExchangeCode { holder: (user_id, begun), presented, start };
        let (mut reads, app) = Reads::one::<App>(app_id);
        let (user, link) = (reads.of::<User>(&user_id), reads.of::<MagicLink>(&link_id));
        let begun = begun.map(|id| reads.of::<Session>(&id));
        let session = reads.new_one::<Session>(&session_id);
        let memberships = reads.of::<Memberships>(&user_id);
        let decide = move |work: &mut Work| {
            let decided = if let Some(begun) = begun {
                let (app, user, link, begun, session) = work.drafts((app, user, link, begun, session));
                exchange.decide(app, user, link, Some(begun), session)
            } else {
                let (app, user, link, session) = work.drafts((app, user, link, session));
                exchange.decide(app, user, link, None, session)
            };
            match decided {
                Ok(()) => Ok(Some(work.get(memberships).organizations.clone())),
                Err(NotExchanged::HolderChanged) => Ok(None),
                Err(NotExchanged::InvalidCode(_)) => Err(invalid_code()),
                Err(NotExchanged::MayNotEnter(why)) => Err(may_not_enter(why)),
                Err(NotExchanged::Session(error)) => Err(Problem::internal(error)),
            }
        };
        let done = self.dispatcher.run(context, reads, decide).await?;
        Ok(Some(done).filter(|done| !matches!(done.value, Some(None))))
    }
}

/// The challenge of a verifier (RFC 7636 section 4.6). A malformed verifier matches no challenge.
fn challenge_of(verifier: &str) -> Result<CodeChallenge, Problem> {
    let verifier = CodeVerifier::parse(verifier).map_err(|_| invalid_code())?;
    let hash = digest(&SHA256, verifier.bytes());
    CodeChallenge::parse(URL_SAFE_NO_PAD.encode(hash)).map_err(Problem::internal)
}

fn invalid_code() -> Problem {
    Problem::new(problems::INVALID_OR_EXPIRED_CODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_the_rfc_does() {
        // RFC 7636 appendix B.
        let challenge = challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").expect("valid");
        assert_eq!(challenge.as_str(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(challenge_of("short").is_err());
    }
}
