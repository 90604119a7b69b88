//! What flows with mailed tokens share when a token is redeemed.

use std::sync::Arc;

use domain::magic_link::MagicLink;
use domain::one_time::UserToken;
use domain::user::User;
use domain::{AppId, MagicLinkId};
use event_store::Loaded;
use http_kit::answers::UserBody;
use http_kit::problem::Problem;
use serde::{Deserialize, Serialize};
use tokens::{MagicLinkToken, TokenPurpose};
use utoipa::ToSchema;

use crate::CommandService;
use crate::api::refusals::dead_token;

impl CommandService {
    /// The token and its user; 400 if it does not belong to this app. The user decides whether it is valid.
    pub(crate) async fn one_time_token(
        &self,
        app_id: &AppId,
        purpose: TokenPurpose,
        text: &str,
    ) -> Result<(UserToken, Arc<Loaded<User>>), Problem> {
        let token = self.tokens.open_one_time(purpose, text).ok_or_else(dead_token)?;
        let user = self.repository.load::<User>(&token.user_id).await?;
        if user.state.is_of(app_id) { Ok((token, user)) } else { Err(dead_token()) }
    }

    /// The link of a token; 400 if it does not belong to this app. The link decides whether it is valid.
    pub(crate) async fn magic_link_of(
        &self,
        app_id: &AppId,
        token: &str,
    ) -> Result<(MagicLinkId, Arc<Loaded<MagicLink>>), Problem> {
        let MagicLinkToken(link_id) = MagicLinkToken::decode(&self.tokens, token).ok_or_else(dead_token)?;
        let link = self.repository.load::<MagicLink>(&link_id).await?;
        let is_ours = link.state.issued.as_ref().is_some_and(|issued| issued.app_id == *app_id);
        if is_ours { Ok((link_id, link)) } else { Err(dead_token()) }
    }
}

/// A token from a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailedToken {
    /// The token in the mail's link.
    #[schema(example = "wwv_…")]
    pub token: String,
}

/// The account as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailChangeConfirmation)]
pub(crate) struct Confirmed {
    /// The account.
    pub user: UserBody,
}
