//! What people are told of the refusals of decisions.

use domain::decisions::{AppClosed, MayNotAct, MayNotEnter, NotEntitled, NotGranted, NotLive, NotUsed};
use domain::session::SessionError;
use domain::user::UserError;
use http_kit::problem::Problem;
use schemas::problems;

/// Of an app that takes no requests.
pub(crate) fn app_closed(closed: AppClosed) -> Problem {
    match closed {
        AppClosed::Absent => Problem::not_found(),
        AppClosed::Disabled => Problem::new(problems::APP_DISABLED),
    }
}

/// Of an app that does not let a person in.
pub(crate) fn may_not_enter(why: MayNotEnter) -> Problem {
    match why {
        MayNotEnter::App(closed) => app_closed(closed),
        // Whoever comes in has shown something of theirs before.
        MayNotEnter::NoSuchUser => Problem::internal(why),
        MayNotEnter::Banned => Problem::new(problems::USER_BANNED),
        MayNotEnter::EmailNotVerified => Problem::new(problems::EMAIL_NOT_VERIFIED),
    }
}

/// What the holder of a refresh token is told.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn session_problem(error: SessionError) -> Problem {
    Problem::new(match error {
        SessionError::Absent | SessionError::Exists => problems::INVALID_REFRESH_TOKEN,
        SessionError::Revoked => problems::SESSION_REVOKED,
        SessionError::Expired => problems::SESSION_EXPIRED,
    })
}

/// Of credentials that are over.
pub(crate) fn not_live(why: NotLive) -> Problem {
    match why {
        NotLive::Session(error) => session_problem(error),
        NotLive::Over => Problem::new(problems::SESSION_REVOKED),
    }
}

/// Of an admin or a key that is none any more.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn not_entitled(why: NotEntitled) -> Problem {
    match why {
        NotEntitled::NotLive(_) | NotEntitled::KeyOver => Problem::unauthenticated(),
        NotEntitled::NoAdmin => Problem::forbidden(),
        NotEntitled::AppDisabled => Problem::new(problems::APP_DISABLED),
    }
}

/// Of a user whom somebody may not act on.
pub(crate) fn may_not_act(why: MayNotAct) -> Problem {
    match why {
        MayNotAct::NoSuchUser => Problem::not_found(),
        MayNotAct::OnAdmin => Problem::forbidden().detail(why.to_string()),
    }
}

/// What an admin is told.
pub(crate) fn user_problem(error: UserError) -> Problem {
    match error {
        UserError::Absent => Problem::not_found(),
        UserError::TooManyRoles => Problem::new(problems::TOO_MANY_ROLES).detail(error.to_string()),
        UserError::Banned => Problem::new(problems::USER_BANNED),
        UserError::EmailNotVerified => {
            let detail = "the role admin is for users who have verified their address";
            Problem::new(problems::EMAIL_NOT_VERIFIED).conflict().detail(detail)
        }
        // Refusals of commands that no route for admins gives.
        UserError::Exists
        | UserError::InvalidToken
        | UserError::OtherPassword
        | UserError::OtherEmail
        | UserError::AlreadyVerified => Problem::internal(error),
    }
}

/// Of a role that is not given.
pub(crate) fn not_granted(why: NotGranted) -> Problem {
    match why {
        NotGranted::NeedsFullAdmin => Problem::forbidden().detail(why.to_string()),
        NotGranted::User(error) => user_problem(error),
    }
}

/// 400: one answer for a token that was never made, is too old or used, or belongs elsewhere.
pub(crate) fn dead_token() -> Problem {
    Problem::new(problems::INVALID_OR_EXPIRED_TOKEN)
}

/// What the holder of a one-time token is told.
pub(crate) fn token_problem(error: UserError) -> Problem {
    match error {
        // Only who asks to verify it cares that it is verified already, and looks for it.
        UserError::InvalidToken | UserError::Absent | UserError::AlreadyVerified => dead_token(),
        UserError::Banned => Problem::new(problems::USER_BANNED),
        other => Problem::internal(other),
    }
}

/// Of a one-time token that is not used.
pub(crate) fn not_used(why: NotUsed) -> Problem {
    match why {
        NotUsed::App(closed) => app_closed(closed),
        NotUsed::User(error) => token_problem(error),
        NotUsed::Lockout(locked) => Problem::internal(locked),
    }
}
