//! The registry of problems: every `code` that an error of the HTTP interface can have (RFC 9457), with the page that
//! explains it, and as a constant for whoever refuses. A code is a promise to clients: it is never renamed and never given
//! another status.
//!
//! ```compile_fail
//! let misspelt = schemas::problems::EMAIL_TAKN;
//! ```

/// One kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// What clients compare: the member `code`, and the last segment of `type`.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// A short summary, the same every time.
    pub title: &'static str,
    /// What happened and what to do about it, for a person who looks the code up.
    pub explanation: &'static str,
}

impl ProblemType {
    /// The first sentence of the explanation: what happened, where nobody can say it better.
    pub fn summary(&self) -> &'static str {
        let end = self.explanation.find(". ").map_or(self.explanation.len(), |end| end + 1);
        &self.explanation[..end]
    }

    /// The member `type`: the path of the page that explains the problem.
    pub fn type_uri(&self) -> String {
        format!("/problems/{}", self.code)
    }
}

/// The problem of this code.
pub fn problem_type(code: &str) -> Option<&'static ProblemType> {
    // It is sorted by code, as a test makes sure.
    REGISTRY.binary_search_by(|problem| problem.code.cmp(code)).ok().map(|index| REGISTRY[index])
}

/// `CODE "code" status "title": "explanation";` declares a problem as a constant of this module, and puts it into the
/// registry.
macro_rules! problems {
    ($($NAME:ident $code:literal $status:literal $title:literal: $explanation:literal;)*) => {
        $(
            #[doc = $title]
            pub const $NAME: &ProblemType =
                &ProblemType { code: $code, status: $status, title: $title, explanation: $explanation };
        )*

        /// Every problem, sorted by code.
        pub static REGISTRY: &[&ProblemType] = &[$($NAME),*];

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($NAME)),*];
    };
}

problems! {
    APP_DISABLED "app_disabled" 403 "The app is disabled":
        "The platform's operator has disabled this app. Nobody can log in to it, and its tokens are not accepted, until \
         it is enabled again with POST /v1/apps/{app_id}/enable.";
    APP_EXISTS "app_exists" 409 "There is an app of this id":
        "App ids are unique, and some are reserved. Choose another `app_id`, or change the app that is there with \
         PATCH /v1/apps/{app_id}.";
    EMAIL_NOT_VERIFIED "email_not_verified" 403 "The email address is not verified":
        "The password was right, but this app lets people in only after they have verified their email address. Follow \
         the link in the verification mail, or ask for a new one with POST …/auth/email-verification/request. With status \
         409: nobody becomes an admin before they have verified their address, as anybody could have made the account.";
    EMAIL_TAKEN "email_taken" 409 "The email address belongs to another account":
        "Within an app, one email address is one account. Addresses that differ only in upper and lower case are the \
         same. Log in instead, reset the password of the account that is there, or use another address.";
    FORBIDDEN "forbidden" 403 "Not allowed":
        "Your credentials are valid, but they do not permit this. An API key needs the permission that the route names; \
         a user needs the role `admin` for the admin routes of their app; some things can only be done by a full admin. \
         Repeating the request does not help.";
    IDEMPOTENCY_KEY_REUSED "idempotency_key_reused" 422 "The Idempotency-Key was used for another request":
        "An `Idempotency-Key` stands for one request: it may be repeated only with the very same method, path and body. \
         This key already came with a different one. Make a new key for each new request.";
    INTERNAL "internal" 500 "Something went wrong on our side":
        "The service ran into a fault of its own. Nothing about it is told here; its log has the details under the \
         `request_id` of the answer. Tell that id to whoever runs the service. It is safe to try again with the same \
         `Idempotency-Key`.";
    INVALID_CREDENTIALS "invalid_credentials" 401 "The email address or the password is wrong":
        "The login was refused. The answer is the same for an unknown address, a wrong password and an account that \
         cannot log in with a password, so that nobody can find out which addresses have accounts. Check both, or reset \
         the password.";
    INVALID_EMAIL "invalid_email" 422 "Not a valid email address":
        "Mail could not be sent to this address safely. It needs the plain form `name@domain.tld`, with at most 64 bytes \
         before the `@` and 254 in all, without quotes, comments, lists or look-alike characters.";
    INVALID_OR_EXPIRED_CODE "invalid_or_expired_code" 400 "The code is not valid":
        "The exchange code is unknown, too old, was used before, or came with a wrong `code_verifier`. A code works once \
         and only for a short time. Start the login again.";
    INVALID_OR_EXPIRED_TOKEN "invalid_or_expired_token" 400 "The link or token is not valid":
        "The token is unknown, too old, was used before, or was replaced by a newer one. Ask for a new mail and follow \
         the newest link.";
    INVALID_REFRESH_TOKEN "invalid_refresh_token" 401 "The refresh token is not valid":
        "The refresh token is malformed, of another app, or was used before. Each refresh token works once: keep the \
         one from the newest answer. If an old one is used again, the session is revoked, as the token may have been \
         stolen. Log in again.";
    JOURNAL_DAMAGED "journal_damaged" 503 "What is stored is not as it was written":
        "Something that the request rests on was changed in the store, or was never written by this instance: it carries no \
         valid proof of it, and nothing is decided on it. Everything that does not rest on it works. Repeating the request \
         does not help until whoever runs the service has mended the store: its log, `/readyz` and `watchword doctor` say \
         what it is.";
    LAST_LOGIN_METHOD "last_login_method" 409 "This is the last way to log in":
        "Without this linked account the user could not log in any more. Set a password or link another account first.";
    LAST_OWNER "last_owner" 409 "An organization needs an owner":
        "The last owner of an organization can be neither removed nor given a lower role. Make another member an owner \
         first, or delete the organization.";
    MAIL_EXPIRED "mail_expired" 409 "What is in the mail has expired":
        "The link in this mail is good for nothing any more, so the mail is not sent again. Whoever needs it has to ask for \
         a new one: a magic link, a verification, a change of address or a new password.";
    MAIL_SENT "mail_sent" 409 "The mail was sent":
        "The mail server has taken this mail, so there is nothing to try again. If it did not arrive, look at the mail \
         server's log; the link in it can be asked for anew.";
    MALFORMED_REQUEST "malformed_request" 400 "The request cannot be read":
        "The body is not valid JSON, a member is missing, unknown, given twice or of the wrong type, or a parameter of \
         the query cannot be parsed. `detail` says where. The OpenAPI document describes every request.";
    METHOD_NOT_ALLOWED "method_not_allowed" 405 "The method is not allowed here":
        "There is a resource at this path, but not for this HTTP method. The `Allow` header lists the methods it has.";
    NOT_ACCEPTABLE "not_acceptable" 406 "No acceptable representation":
        "The header `Accept` leaves nothing of what the route can answer with: `detail` lists it. A media range with `q=0` \
         excludes what is in it. Leave the header out, or add one of those media types.";
    NOT_FOUND "not_found" 404 "Not found":
        "There is nothing at this path, or nothing that you may know of: the answer is the same for what does not exist \
         and for what belongs to another app or person.";
    NOT_READY "not_ready" 503 "The service cannot do its work":
        "Something that the service rests on does not work: `checks` says what, and the log says why. What is stored is \
         safe. Whoever balances load sends no requests here until `/readyz` answers 200 again.";
    OUTCOME_UNKNOWN "outcome_unknown" 503 "It is not known whether the request was carried out":
        "The connection to the journal broke while the request was being written: it may have been carried out, or not. \
         Repeat it with the same `Idempotency-Key`; if it was carried out, you get its result and nothing happens twice.";
    OVERLOADED "overloaded" 503 "The service is overloaded":
        "There is more work than the service can do at the moment. Nothing was changed. Try again after the seconds in \
         `Retry-After`.";
    PAYLOAD_TOO_LARGE "payload_too_large" 413 "The body is too large":
        "Request bodies can have at most 64 KiB unless the route says otherwise.";
    PROJECTION_BEHIND "projection_behind" 503 "The read model is not up to date yet":
        "The request carried a `Consistency-Token`, and the read model did not reach that point within 2 seconds. What \
         you wrote is safe; it just cannot be read yet. Try again shortly, or leave the token out to read what is there.";
    RATE_LIMITED "rate_limited" 429 "Too many requests":
        "There were too many requests from this address, or too many failed logins to this account. Wait for the seconds \
         in `Retry-After`. The headers `RateLimit` and `RateLimit-Policy` tell the limit.";
    REAUTHENTICATION_REQUIRED "reauthentication_required" 403 "Log in again first":
        "This cannot be undone, so it needs the password, or a session that was started within the last 5 minutes. Send \
         the password, or log in again and repeat the request.";
    REDIRECT_URI_NOT_ALLOWED "redirect_uri_not_allowed" 422 "The redirect URI is not allowed":
        "The `redirect_uri` is not in the app's settings. URIs are compared as exact strings: a different port, path, \
         query or a trailing slash makes another URI. Add it to `redirect_uris`, or use one that is there.";
    REGISTRATION_CLOSED "registration_closed" 403 "Registration is closed":
        "This app does not let people make accounts by themselves: by its settings they need an invitation, or an admin \
         creates their account.";
    SESSION_EXPIRED "session_expired" 401 "The session has expired":
        "The session reached its longest life, or was not refreshed for too long. Log in again.";
    SESSION_REVOKED "session_revoked" 401 "The session was revoked":
        "The session was ended: by logging out, from another session, by an admin, with a ban, or because one of its \
         refresh tokens was used twice. Log in again.";
    TOO_MANY_API_KEYS "too_many_api_keys" 409 "The app has too many API keys":
        "An app can have at most 1000 API keys that are neither revoked nor expired. Revoke those that are not used.";
    TOO_MANY_ROLES "too_many_roles" 409 "The user has too many roles":
        "A user can have at most 50 roles in an app. Take a role away first.";
    UNAUTHENTICATED "unauthenticated" 401 "Credentials are missing or not valid":
        "The route needs `Authorization: Bearer …` with an access token of this very app, or an API key. The token is \
         missing, malformed, expired, revoked or of another app. Refresh the token or log in again.";
    UNAVAILABLE "unavailable" 503 "Something that the service rests on does not answer":
        "A store cannot be reached, or does not answer in time; the service's log says which and why. Nothing was changed. \
         Try again after the seconds in `Retry-After`.";
    UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" 415 "The content type is not supported":
        "Bodies are JSON: send `Content-Type: application/json`, or what the route says.";
    USER_BANNED "user_banned" 403 "The user is banned":
        "The password was right, but an admin of the app has banned this account. Only an admin can lift the ban.";
    VALIDATION_FAILED "validation_failed" 422 "A value is not acceptable":
        "The request has the right shape, but a value in it breaks a rule. `errors` lists every such value with a JSON \
         Pointer (RFC 6901) to it, a code and what would be right.";
    WEAK_PASSWORD "weak_password" 422 "The password is too weak":
        "A new password needs as many characters as the app's `password_min_length` (8 by default), at most 1024 bytes, \
         and must not be among the common passwords that attackers try first. Any characters are fine, blanks too.";
}

#[cfg(test)]
mod tests {
    use super::{NAMES, REGISTRY, problem_type};

    #[test]
    fn is_sorted_and_has_no_code_twice() {
        assert!(REGISTRY.is_sorted_by(|a, b| a.code < b.code));
    }

    #[test]
    fn each_is_called_as_its_code() {
        let codes: Vec<_> = REGISTRY.iter().map(|problem| problem.code.to_uppercase()).collect();
        assert_eq!(codes, NAMES);
    }

    #[test]
    fn every_problem_is_found_and_explained() {
        for problem in REGISTRY {
            assert_eq!(problem_type(problem.code), Some(*problem));
            assert!((400..600).contains(&problem.status), "{}", problem.code);
            assert!(problem.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", problem.code);
            assert!(!problem.title.ends_with('.') && problem.title.len() <= 60, "{}", problem.code);
            let explanation = problem.explanation;
            assert!(explanation.len() > 60 && explanation.ends_with('.'), "{}", problem.code);
            assert!(!explanation.contains("  "), "{}", problem.code);
        }
        assert_eq!(problem_type("no_such_problem"), None);
    }

    #[test]
    fn tells_the_limits_of_the_domain() {
        let of = |code| problem_type(code).expect(code).explanation;
        assert!(of("too_many_api_keys").contains(&domain::app::MAX_API_KEYS.to_string()));
        assert!(of("too_many_roles").contains(&domain::user::MAX_ROLES.to_string()));
        assert!(of("weak_password").contains(&domain::password::MAX_PASSWORD_BYTES.to_string()));
    }
}
