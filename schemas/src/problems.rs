//! The registry of problems (RFC 9457): every `code` an error of the HTTP interface can have, the page that explains it,
//! and a constant for the code that returns it. A code is a promise to clients: it is never renamed and its status never
//! changes.
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
    /// A short summary, the same for every occurrence.
    pub title: &'static str,
    /// What happened and what to do about it, for a person who looks the code up.
    pub explanation: &'static str,
}

impl ProblemType {
    /// The first sentence of the explanation: the default `detail` where the refusal has nothing more specific to say.
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
    // Sorted by code; a test holds that.
    REGISTRY.binary_search_by(|problem| problem.code.cmp(code)).ok().map(|index| REGISTRY[index])
}

/// `CODE "code" status "title": "explanation";` declares a problem as a constant of this module and adds it to the
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
    ALREADY_MEMBER "already_member" 409 "The person is a member already":
        "An invitation makes somebody a member, and this person is one. Their role is changed with PUT \
         …/orgs/{org_id}/members/{user_id}.";
    APP_DISABLED "app_disabled" 403 "The app is disabled":
        "The platform's operator has disabled this app. Logins are refused and its tokens are not accepted until it is \
         enabled again with POST /v1/apps/{app_id}/enable.";
    APP_EXISTS "app_exists" 409 "The app id is taken":
        "App ids are unique, and some are reserved. Choose another `app_id`, or change the existing app with PATCH \
         /v1/apps/{app_id}.";
    CHECKPOINT_REFUSED "checkpoint_refused" 503 "No checkpoint is signed":
        "The history that would be signed now contradicts the checkpoint that was signed last, or the tree over it was \
         changed by somebody else: `detail` says which, and nothing is signed until it is resolved. Checkpoints that were \
         signed before stay valid. If the journal was restored from an older backup, restore the newest one; if that is the \
         newest, the operator puts the loss on record with `watchword record-loss`.";
    CHECKPOINT_REPLACED "checkpoint_replaced" 409 "There is a newer checkpoint":
        "A newer checkpoint was signed meanwhile, and the signatures are of the one before it. Get the newest one, have it \
         signed, and bring that signature.";
    EMAIL_NOT_VERIFIED "email_not_verified" 403 "The email address is not verified":
        "The password was right, but this app requires a verified email address. Follow the link in the verification \
         mail, or ask for a new one with POST …/auth/email-verification/request. With status 409: only a user with a \
         verified address can become an admin, because anybody could have made the account.";
    EMAIL_TAKEN "email_taken" 409 "The email address belongs to another account":
        "Within an app, an email address identifies one account, and case is ignored. Log in instead, reset the \
         password of the existing account, or use another address.";
    ENTRY_TOO_LONG "entry_too_long" 404 "No tile can hold these events":
        "An event of this tile is longer than the 65 535 bytes that an entry may have: it came by an import, or from a version \
         before there was a limit. `detail` names it. The tiles of hashes are complete, and every event has its proofs and its \
         receipt; read the events of this tile from an export or GET /v1/events.";
    EVENT_TOO_LONG "event_too_long" 413 "What would be recorded is too long":
        "The log keeps events of at most 60 KiB, so that each can be proved. Nothing was changed. Send less at a time: fewer or \
         shorter values.";
    FORBIDDEN "forbidden" 403 "Not allowed":
        "Your credentials are valid, but they do not permit this. An API key needs the permission that the route names; \
         a user needs the role that the app names as `admin_role` for its admin routes; some things can only be done by a full admin. \
         Repeating the request does not help.";
    IDEMPOTENCY_KEY_REUSED "idempotency_key_reused" 422 "The Idempotency-Key was used for another request":
        "An `Idempotency-Key` stands for one request: repeat it only with the same method, path and body. This key \
         already came with a different request. Make a new key for each new request.";
    INTERNAL "internal" 500 "Internal error":
        "An unexpected error occurred in the service. The answer gives no details; the service's log has them under \
         the `request_id` of the answer. Give that id to the service's operator. It is safe to try again with the same \
         `Idempotency-Key`.";
    INVALID_CREDENTIALS "invalid_credentials" 401 "The email address or the password is wrong":
        "The login was refused. The answer is the same for an unknown address, a wrong password and an account that \
         cannot log in with a password, so that it does not reveal which addresses have accounts. Check both, or reset \
         the password.";
    INVALID_EMAIL "invalid_email" 422 "Not a valid email address":
        "Mail could not be sent to this address safely. It needs the plain form `name@domain.tld`, with at most 64 bytes \
         before the `@` and 254 in all, without quotes, comments, lists or look-alike characters.";
    INVALID_OR_EXPIRED_CODE "invalid_or_expired_code" 400 "The code is invalid or expired":
        "The exchange code is unknown, expired or already used, or came with a wrong `code_verifier`. A code works \
         once and only for a short time. Start the login again.";
    INVALID_OR_EXPIRED_TOKEN "invalid_or_expired_token" 400 "The link or token is invalid or expired":
        "The token is unknown, expired, already used, or replaced by a newer one. Ask for a new mail and follow the \
         newest link.";
    INVALID_REFRESH_TOKEN "invalid_refresh_token" 401 "The refresh token is invalid":
        "The refresh token is malformed, belongs to another app, or was already used. Each refresh token works once: \
         keep the one from the newest answer. Reuse of an old one revokes the session, because the token may have been \
         stolen. Log in again.";
    JOURNAL_DAMAGED "journal_damaged" 503 "Stored data failed its integrity check":
        "Data that this request depends on was changed in the store, or was not written by this instance: its \
         authentication code is missing or wrong, so the service refuses to act on it. Requests that do not depend on \
         it still work. Retrying does not help until the operator has repaired the store; the log, `/readyz` and \
         `watchword doctor` say what is damaged.";
    LAST_LOGIN_METHOD "last_login_method" 409 "This is the last way to log in":
        "Without this linked account the user could no longer log in. Set a password or link another account first.";
    LAST_OWNER "last_owner" 409 "An organization needs an owner":
        "The last owner of an organization can be neither removed nor given a lower role. Make another member an owner \
         first, or delete the organization.";
    MAIL_EXPIRED "mail_expired" 409 "The link in the mail has expired":
        "The link in this mail is no longer valid, so the mail is not sent again. The recipient has to ask for a new \
         one: a magic link, a verification, a change of address or a password reset.";
    MAIL_SENT "mail_sent" 409 "The mail was already sent":
        "The mail server accepted this mail, so there is nothing to retry. If it did not arrive, look at the mail \
         server's log, or ask for a new link.";
    MALFORMED_REQUEST "malformed_request" 400 "The request cannot be read":
        "The body is not valid JSON; a member is missing, unknown, duplicated or of the wrong type; or a query \
         parameter cannot be parsed. `errors` lists every such member and parameter; if the body is no JSON object at \
         all, its pointer is `\"\"`. The OpenAPI document describes every request.";
    METHOD_NOT_ALLOWED "method_not_allowed" 405 "The method is not allowed here":
        "The resource at this path does not support this HTTP method. The `Allow` header lists those it supports.";
    NOT_A_COSIGNATURE "not_a_cosignature" 422 "It is no signature of a witness for this checkpoint":
        "Only signatures by the witnesses of the configuration are taken (`witnesses`), and only those of the newest signed \
         checkpoint: `detail` says which one is not.";
    NOT_ACCEPTABLE "not_acceptable" 406 "No acceptable representation":
        "None of the media types of this route matches the `Accept` header; `detail` lists them. A media range with \
         `q=0` excludes what it matches. Leave the header out, or add one of those media types.";
    NOT_FOUND "not_found" 404 "Not found":
        "There is nothing at this path, or nothing that you may see: the answer is the same for what does not exist \
         and for what belongs to another app or person.";
    NOT_READY "not_ready" 503 "The service is not ready":
        "A component that the service depends on does not work: `checks` says which, and the log says why. Stored data \
         is safe. Load balancers should send no requests here until `/readyz` answers 200 again.";
    OUTCOME_UNKNOWN "outcome_unknown" 503 "It is not known whether the request was carried out":
        "The connection to the journal broke while the request was being written, so it may or may not have taken \
         effect. Repeat it with the same `Idempotency-Key`: if it was carried out, you get its result and nothing \
         happens twice.";
    OVERLOADED "overloaded" 503 "The service is overloaded":
        "The service has more work than it can handle at the moment. Nothing was changed. Try again after the seconds \
         in `Retry-After`.";
    PAYLOAD_TOO_LARGE "payload_too_large" 413 "The body is too large":
        "Request bodies can have at most 64 KiB unless the route says otherwise.";
    PROJECTION_BEHIND "projection_behind" 503 "The read model is not up to date yet":
        "The request carried a `Consistency-Token`, and the read model did not reach that point within 2 seconds. What \
         you wrote is safe, but cannot be read yet. Try again shortly, or leave the token out to read the current \
         state.";
    RATE_LIMITED "rate_limited" 429 "Too many requests":
        "There were too many requests from this address, or too many failed logins to this account. Wait for the \
         seconds in `Retry-After`. The headers `RateLimit` and `RateLimit-Policy` state the limit.";
    REAUTHENTICATION_REQUIRED "reauthentication_required" 403 "Reauthentication is required":
        "This action cannot be undone, so it needs the password, or a session whose login was within the last ten \
         minutes. Send the password, or log in again and repeat the request.";
    REBUILD_RUNNING "rebuild_running" 409 "The read model is being rebuilt":
        "A rebuild of this read model is under way, on this node or by another process. `GET /v1/projections` has its \
         progress; ask again when it is done.";
    REDIRECT_URI_NOT_ALLOWED "redirect_uri_not_allowed" 422 "The redirect URI is not allowed":
        "The `redirect_uri` is not in the app's settings. URIs are compared as exact strings: a different port, path, \
         query or a trailing slash makes another URI. Add it to `redirect_uris`, or use one from that list.";
    REGISTRATION_CLOSED "registration_closed" 403 "Registration is closed":
        "This app does not allow self-registration: depending on its settings, an account needs an invitation or is \
         created by an admin.";
    ROLE_IN_USE "role_in_use" 409 "Members have this role":
        "A role that members of the organization have, or that an open invitation gives, is not deleted. Give them another role, \
         or revoke the invitations, first.";
    SESSION_EXPIRED "session_expired" 401 "The session has expired":
        "The session reached its maximum lifetime, or was not refreshed for too long. Log in again.";
    SESSION_REVOKED "session_revoked" 401 "The session was revoked":
        "The session was ended by a logout, from another session, by an admin, by a ban, or because one of its refresh \
         tokens was used twice. Log in again.";
    SLUG_TAKEN "slug_taken" 409 "The slug belongs to another organization":
        "Within an app, a slug names one organization. Choose another `slug`, or leave it out when creating an organization: \
         then one is made of its name.";
    STORAGE_FULL "storage_full" 503 "The service's storage is full":
        "The disk or database that the service writes to has no space left. Nothing was changed. Try again after the \
         seconds in `Retry-After`: the operator has to make room first.";
    STORAGE_MISSING "storage_missing" 503 "The service's storage was moved or deleted":
        "A file that the service stores its data in is no longer in its place, so that nothing new can be kept. Nothing \
         was changed. The operator finds in the service's log which file it is and what to do.";
    STORAGE_READ_ONLY "storage_read_only" 503 "The service's storage is read-only":
        "The disk or database that the service writes to accepts no changes at the moment, for example because it \
         failed or another server took over. Nothing was changed. Try again after the seconds in `Retry-After`.";
    TOO_MANY_API_KEYS "too_many_api_keys" 409 "There are too many API keys":
        "An app can have at most 1000 API keys that are neither revoked nor expired, and an organization 100. Revoke those that are \
         not used.";
    TOO_MANY_CUSTOM_ROLES "too_many_custom_roles" 409 "There are too many roles":
        "An organization can have at most 50 roles of its own, and an app 50 for all of its organizations. Delete those that \
         nobody has.";
    TOO_MANY_INVITATIONS "too_many_invitations" 409 "The organization has too many open invitations":
        "An organization can have at most 500 invitations that are neither accepted nor expired. Revoke those that are not \
         needed.";
    TOO_MANY_MEMBERS "too_many_members" 409 "The organization has too many members":
        "An organization can have at most 10000 members. Remove those who have left.";
    TOO_MANY_ORGANIZATIONS "too_many_organizations" 409 "The person is in too many organizations":
        "A person can be in at most 100 organizations of an app: each login looks at all of them. Leave one first, or delete \
         one.";
    TOO_MANY_ROLES "too_many_roles" 409 "The user has too many roles":
        "A user can have at most 50 roles in an app, of 2000 characters in all. Take a role away first.";
    TOO_MANY_WEBHOOKS "too_many_webhooks" 409 "The app has too many webhooks":
        "The operator's `webhooks.per_app` limits how many webhooks an app can have. Delete those that are not used, or let one receive the events of several.";
    UNAUTHENTICATED "unauthenticated" 401 "Credentials are missing or invalid":
        "The route needs `Authorization: Bearer …` with an access token of this app, or an API key. The credential is \
         missing, malformed, expired, revoked, or belongs to another app. Refresh the token or log in again.";
    UNAVAILABLE "unavailable" 503 "A dependency is unavailable":
        "A store cannot be reached or does not answer in time; the service's log says which and why. Nothing was \
         changed. Try again after the seconds in `Retry-After`.";
    UNSUPPORTED_CONTENT_ENCODING "unsupported_content_encoding" 415 "The body is compressed":
        "Bodies have at most 64 KiB and are accepted uncompressed only: send the body without `Content-Encoding`. Responses \
         are compressed if `Accept-Encoding` asks for it.";
    UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" 415 "The content type is not supported":
        "Bodies are JSON: send `Content-Type: application/json`, or the media type that the route documents. A \
         PATCH may be `application/merge-patch+json`, in which `null` removes.";
    USER_BANNED "user_banned" 403 "The user is banned":
        "The password was right, but an admin of the app has banned this account. Only an admin can lift the ban.";
    VALIDATION_FAILED "validation_failed" 422 "A value is not acceptable":
        "The request has the right shape, but a value in it breaks a rule. `errors` lists every such value: the JSON \
         Pointer (RFC 6901) to a member of the body or the name of a query's parameter, a code, and what would be \
         accepted.";
    WEAK_PASSWORD "weak_password" 422 "The password is too weak":
        "A new password needs as many characters as the app's `password_min_length` (8 by default), at most 1024 bytes, \
         and must not be a common one that attackers try first. Any characters are allowed, spaces included.";
    WEBHOOK_DELIVERED "webhook_delivered" 409 "The webhook accepted the event":
        "There is nothing to send again: the webhook has accepted this event. POST …/admin/webhooks/{webhook_id}/replay sends \
         it the events from a position on once more.";
    WEBHOOK_DISABLED "webhook_disabled" 409 "The webhook is disabled":
        "Nothing is sent to a disabled webhook. Enable it first, with PATCH …/admin/webhooks/{webhook_id} and \
         `{\"enabled\": true}`: it is sent the events from then on.";
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
        assert!(of("too_many_roles").contains(&domain::user::MAX_ROLES_TEXT.to_string()));
        assert!(of("weak_password").contains(&domain::password::MAX_PASSWORD_BYTES.to_string()));
    }
}
