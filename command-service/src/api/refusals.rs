//! How refusals of decisions become problems.

use domain::decisions::{AppClosed, MayNotAct, MayNotEnter, NotEntitled, NotGranted, NotLive, NotUsed};
use domain::session::SessionError;
use domain::user::UserError;
use http_kit::problem::Problem;
use schemas::problems;

/// For an app that takes no requests.
pub(crate) fn app_closed(closed: AppClosed) -> Problem {
    match closed {
        AppClosed::Absent => Problem::not_found(),
        AppClosed::Disabled => Problem::new(problems::APP_DISABLED),
    }
}

/// For an app that does not let a person in.
pub(crate) fn may_not_enter(why: MayNotEnter) -> Problem {
    match why {
        MayNotEnter::App(closed) => app_closed(closed),
        // A person who gets here has already presented a credential of theirs.
        MayNotEnter::NoSuchUser => Problem::internal(why),
        MayNotEnter::Banned => Problem::new(problems::USER_BANNED),
        MayNotEnter::EmailNotVerified => Problem::new(problems::EMAIL_NOT_VERIFIED),
    }
}

/// For the holder of a refresh token.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn session_problem(error: SessionError) -> Problem {
    Problem::new(match error {
        SessionError::Absent | SessionError::Exists => problems::INVALID_REFRESH_TOKEN,
        SessionError::Revoked => problems::SESSION_REVOKED,
        SessionError::Expired => problems::SESSION_EXPIRED,
    })
}

/// For credentials that have ended.
pub(crate) fn not_live(why: NotLive) -> Problem {
    match why {
        NotLive::Session(error) => session_problem(error),
        NotLive::Over => Problem::new(problems::SESSION_REVOKED),
    }
}

/// For an admin or API key that is no longer entitled.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn not_entitled(why: NotEntitled) -> Problem {
    match why {
        NotEntitled::NotLive(_) | NotEntitled::KeyOver => Problem::invalid_token(),
        NotEntitled::NoAdmin => Problem::forbidden(),
        NotEntitled::AppDisabled => Problem::new(problems::APP_DISABLED),
    }
}

/// For a user whom the caller may not act on.
pub(crate) fn may_not_act(why: MayNotAct) -> Problem {
    match why {
        MayNotAct::NoSuchUser => Problem::not_found(),
        MayNotAct::OnAdmin => Problem::forbidden().detail(why.to_string()),
    }
}

/// For an admin's command on a user.
pub(crate) fn user_problem(error: UserError) -> Problem {
    match error {
        UserError::Absent => Problem::not_found(),
        UserError::TooManyRoles => Problem::new(problems::TOO_MANY_ROLES).detail(error.to_string()),
        UserError::Banned => Problem::new(problems::USER_BANNED),
        UserError::EmailNotVerified => {
            let detail = "the admin role needs a verified address";
            Problem::new(problems::EMAIL_NOT_VERIFIED).conflict().detail(detail)
        }
        // Refusals of commands that no admin route issues.
        UserError::Exists
        | UserError::InvalidToken
        | UserError::OtherPassword
        | UserError::OtherEmail
        | UserError::AlreadyVerified => Problem::internal(error),
    }
}

/// For a role that is not granted.
pub(crate) fn not_granted(why: NotGranted) -> Problem {
    match why {
        NotGranted::NeedsFullAdmin => Problem::forbidden().detail(why.to_string()),
        NotGranted::User(error) => user_problem(error),
    }
}

/// 400: one answer for every token that is unknown, expired or used, or belongs elsewhere.
pub(crate) fn dead_token() -> Problem {
    Problem::new(problems::INVALID_OR_EXPIRED_TOKEN)
}

/// For the holder of a one-time token.
pub(crate) fn token_problem(error: UserError) -> Problem {
    match error {
        // Only the verification flow handles an already verified address specially, and it checks first.
        UserError::InvalidToken | UserError::Absent | UserError::AlreadyVerified => dead_token(),
        UserError::Banned => Problem::new(problems::USER_BANNED),
        other => Problem::internal(other),
    }
}

/// For a one-time token that is not redeemed.
pub(crate) fn not_used(why: NotUsed) -> Problem {
    match why {
        NotUsed::App(closed) => app_closed(closed),
        NotUsed::User(error) => token_problem(error),
        NotUsed::Lockout(locked) => Problem::internal(locked),
    }
}
