//! Refusals as `application/problem+json` (RFC 9457).

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use event_store::{AppendError, Cause, StoreError, Why};
use http::{HeaderValue, StatusCode, header};
use schemas::field_codes::{self, FieldCode};
use schemas::problems::{self, ProblemType};
use serde::Serialize;
use serde_json::{Map, Value};
use tokens::SigningError;
use utoipa::ToSchema;

use crate::limits::Standing;

mod answered;
mod joined;

pub(crate) use answered::{ANSWERED, Answered};
pub use answered::{has_written, is_writing};
pub use joined::{both, each};

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// RFC 7617.
const BASIC: &str = r#"Basic realm="watchword", charset="UTF-8""#;
/// Also an `error_description`, so without quotation marks and backslashes.
const INVALID_TOKEN: &str = "the token is malformed, expired, revoked, or not for this app";

/// A refusal. It contains only what its reader may know: causes go to the log.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: &'static ProblemType,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldProblem>,
    retry_after: Option<u64>,
    /// Boxed, because few problems have one, and every `Result` is as large as a problem.
    standing: Option<Box<Standing>>,
    members: Map<String, Value>,
    is_conflict: bool,
    asks_for_basic: bool,
    token_refused: bool,
}

/// An answer lists so many invalid members: as many as a person may correct, whatever was sent.
pub const MAX_ERRORS: usize = 50;

/// What is wrong with one member of a body (`pointer`), or with one parameter of a query or one header (`parameter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The member of the body, as a JSON Pointer (RFC 6901); `""` if it is the body as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "/email")]
    pub pointer: Option<String>,
    /// The parameter of the query, or the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub parameter: Option<String>,
    /// What is wrong, as a code.
    #[schema(example = "invalid_email")]
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// The body of a refusal.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `/problems/<code>`: a page that explains it.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary of the problem.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened in this case.
    #[schema(min_length = 1)]
    pub detail: String,
    /// The machine-readable code.
    #[schema(schema_with = crate::openapi::problem_code)]
    pub code: String,
    /// The `X-Request-Id` of the request, which the log contains.
    #[schema(min_length = 1)]
    pub request_id: String,
    /// All invalid members, parameters and headers, at most 50 (statuses 400 and 422).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<FieldProblem>,
    /// Extension members of some problems (RFC 9457 section 3.2).
    #[serde(flatten)]
    #[schema(ignore)]
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem of the registry ([`schemas::problems`]).
    pub fn new(kind: &'static ProblemType) -> Self {
        Self {
            kind,
            detail: None,
            errors: Vec::new(),
            retry_after: None,
            standing: None,
            members: Map::new(),
            is_conflict: false,
            asks_for_basic: false,
            token_refused: false,
        }
    }

    /// The same answer for an absent resource and for somebody else's.
    pub fn not_found() -> Self {
        Self::new(problems::NOT_FOUND)
    }

    /// The request has no credentials.
    pub fn unauthenticated() -> Self {
        Self::new(problems::UNAUTHENTICATED).detail(
            "no credentials were sent: send `Authorization: Bearer` with an access token or an API key",
        )
    }

    /// The request has a token that is not valid here. It does not say why: that would help only whoever tries tokens.
    pub fn invalid_token() -> Self {
        let problem = Self::new(problems::UNAUTHENTICATED).detail(INVALID_TOKEN);
        Self { token_refused: true, ..problem }
    }

    /// Valid credentials that do not allow this.
    pub fn forbidden() -> Self {
        Self::new(problems::FORBIDDEN)
    }

    /// A body that cannot be read, so that no member of it can be named: its pointer is that of the whole (RFC 6901
    /// section 5).
    pub fn malformed(code: impl Into<FieldCode>, detail: impl Into<String>) -> Self {
        Self::malformed_member("", code, detail)
    }

    /// A member that is missing or of another type: 400 `malformed_request`.
    pub fn malformed_member(
        pointer: impl Into<String>,
        code: impl Into<FieldCode>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(problems::MALFORMED_REQUEST).field(pointer, code, detail)
    }

    /// A header of the request that cannot be read: 400 `malformed_request`.
    pub fn malformed_header(name: &str, detail: impl Into<String>) -> Self {
        Self::new(problems::MALFORMED_REQUEST).parameter(name, field_codes::INVALID, detail)
    }

    /// An invalid member: 422 `validation_failed`.
    pub fn invalid(
        pointer: impl Into<String>,
        code: impl Into<FieldCode>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(problems::VALIDATION_FAILED).field(pointer, code, detail)
    }

    /// A bug or an internal failure. The cause is logged; the caller sees only the request id. The cause must not
    /// contain personal data.
    pub fn internal(cause: impl Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(problems::INTERNAL)
    }

    /// Stored data failed its integrity check, so the request is refused. The cause is logged.
    pub fn damaged(cause: impl Display) -> Self {
        tracing::error!(%cause, "request refused: the data it depends on is damaged");
        Self::new(problems::JOURNAL_DAMAGED)
    }

    /// The request cannot be handled right now; the caller can retry in a second. The cause is logged.
    pub fn overloaded(cause: impl Display) -> Self {
        tracing::warn!(%cause, "request refused for now");
        Self::new(problems::OVERLOADED).retry_after(1)
    }

    /// A dependency does not respond; the caller can retry in a second. The cause is logged.
    pub fn unavailable(cause: impl Display) -> Self {
        tracing::warn!(%cause, "request refused for now");
        Self::new(problems::UNAVAILABLE).retry_after(1)
    }

    /// The request is not answered within its bound.
    pub(crate) fn overdue() -> Self {
        metrics::counter!("watchword_requests_overdue_total").increment(1);
        let _ = ANSWERED.try_with(|request| {
            if request.is_writing.get() {
                request.has_written.set(true);
            }
        });
        Self::unavailable("a request was not answered in time (http.request_time)")
    }

    /// A store cannot be used for now. What a client may be told of the reason is in the code. The cause is logged.
    fn of_store(why: &Why) -> Self {
        let kind = match why.cause {
            Cause::Full => problems::STORAGE_FULL,
            Cause::ReadOnly => problems::STORAGE_READ_ONLY,
            Cause::Missing => problems::STORAGE_MISSING,
            Cause::Locked | Cause::Refused | Cause::Other => {
                return Self::unavailable(format_args!("the store is unavailable: {why}"));
            }
        };
        tracing::warn!(cause = %why, "request refused for now");
        // Somebody has to make room or to look at a disk, which takes a while.
        Self::new(kind).retry_after(5)
    }

    /// A rate limit was exceeded: which one, and when to retry.
    pub fn rate_limited(standing: Standing) -> Self {
        let problem = Self::new(problems::RATE_LIMITED).retry_after(standing.reset());
        Self { standing: Some(Box::new(standing)), ..problem }
    }

    /// Sets the status 409: the conflict is with the current state, not with the caller's rights.
    #[must_use]
    pub fn conflict(self) -> Self {
        Self { is_conflict: true, ..self }
    }

    /// Makes a 401 ask for a client id and secret by HTTP Basic.
    #[must_use]
    pub(crate) fn asking_for_basic(self) -> Self {
        Self { asks_for_basic: true, ..self }
    }

    /// An invalid parameter of a query: 422 `validation_failed`.
    pub fn invalid_parameter(
        name: impl Into<String>,
        code: impl Into<FieldCode>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(problems::VALIDATION_FAILED).parameter(name, code, detail)
    }

    /// Adds an extension member, whose name must be new.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The value of an extension member ([`Problem::member`]).
    pub fn told(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// Sets the detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(Cow::Owned(detail.into()));
        self
    }

    /// Adds an invalid member.
    #[must_use]
    pub fn field(
        mut self,
        pointer: impl Into<String>,
        code: impl Into<FieldCode>,
        detail: impl Into<String>,
    ) -> Self {
        let code = code.into().as_str().to_owned();
        let pointer = Some(pointer.into());
        self.errors.push(FieldProblem { pointer, parameter: None, code, detail: detail.into() });
        self
    }

    /// Adds an invalid parameter of the query, or an invalid header.
    #[must_use]
    pub fn parameter(
        mut self,
        name: impl Into<String>,
        code: impl Into<FieldCode>,
        detail: impl Into<String>,
    ) -> Self {
        let code = code.into().as_str().to_owned();
        let parameter = Some(name.into());
        self.errors.push(FieldProblem { pointer: None, parameter, code, detail: detail.into() });
        self
    }

    /// Sets the seconds until a retry may succeed.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The detail; by default the registry's summary.
    pub fn text(&self) -> String {
        match &self.detail {
            Some(detail) if !detail.trim().is_empty() => detail.to_string(),
            _ if self.errors.is_empty() => self.kind.summary().to_owned(),
            _ => {
                let of = |error: &FieldProblem| match error.pointer.as_ref().or(error.parameter.as_ref()) {
                    Some(name) if !name.is_empty() => format!("{name}: {}", error.detail),
                    _ => error.detail.clone(),
                };
                self.errors.iter().map(of).collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// The invalid members.
    pub fn errors(&self) -> &[FieldProblem] {
        &self.errors
    }

    /// The kind of problem.
    pub fn kind(&self) -> &'static ProblemType {
        self.kind
    }

    /// The machine-readable code.
    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        if self.is_conflict {
            return StatusCode::CONFLICT;
        }
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The problem for a response that was created elsewhere with this status.
    pub(crate) fn for_status(status: StatusCode) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND => problems::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED => problems::METHOD_NOT_ALLOWED,
            StatusCode::NOT_ACCEPTABLE => problems::NOT_ACCEPTABLE,
            StatusCode::PAYLOAD_TOO_LARGE => problems::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => problems::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNAUTHORIZED => problems::UNAUTHENTICATED,
            StatusCode::FORBIDDEN => problems::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS => problems::RATE_LIMITED,
            StatusCode::SERVICE_UNAVAILABLE => problems::OVERLOADED,
            status if status.is_client_error() => {
                return Self::malformed(field_codes::INVALID, problems::MALFORMED_REQUEST.summary());
            }
            _ => problems::INTERNAL,
        };
        Self::new(kind)
    }
}

/// A response extension: the code of the problem.
#[derive(Clone, Copy)]
pub(crate) struct Refusal(pub &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if matches!(
            self.kind,
            problems::OVERLOADED
                | problems::UNAVAILABLE
                | problems::STORAGE_FULL
                | problems::STORAGE_READ_ONLY
                | problems::STORAGE_MISSING
        ) && ANSWERED.try_with(|it| it.has_written.take()).unwrap_or(false)
        {
            return Self::new(problems::OUTCOME_UNKNOWN).retry_after(1).into_response();
        }
        let status = self.status();
        let (request_id, prefix) = ANSWERED
            .try_with(|it| (it.request_id.to_string(), Arc::clone(&it.prefix)))
            .unwrap_or_else(|_| ("none".to_owned(), Arc::default()));
        let body = ProblemBody {
            kind: format!("{prefix}{}", self.kind.type_uri()),
            title: self.kind.title.to_owned(),
            status: status.as_u16(),
            detail: self.text(),
            code: self.kind.code.to_owned(),
            request_id,
            errors: self.errors,
            members: self.members,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers are JSON");
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(Refusal(self.kind.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, challenge(self.token_refused));
        }
        if self.kind == problems::UNSUPPORTED_CONTENT_ENCODING {
            // It tells this 415 from that of a content type (RFC 9110 section 12.5.3).
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.asks_for_basic && status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(standing) = self.standing {
            standing.describe(headers);
        }
        response
    }
}

/// RFC 6750 section 3.1: a request without credentials is told only the scheme.
fn challenge(token_refused: bool) -> HeaderValue {
    if !token_refused {
        return HeaderValue::from_static("Bearer");
    }
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{INVALID_TOKEN}\"");
    HeaderValue::try_from(challenge).expect("the text is visible ASCII")
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::of_store(&why),
            StoreError::Damaged(_) => Self::damaged(error),
            StoreError::Erased(_) => Self::not_found(),
        }
    }
}

impl From<SigningError> for Problem {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Store(error) => error.into(),
            SigningError::Key(what) => Self::internal(what),
        }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::IdempotencyKeyReused => Self::new(problems::IDEMPOTENCY_KEY_REUSED),
            AppendError::Damaged(_) => Self::damaged(error),
            // Flows answer conflicts over claims they know about; any other is unexpected.
            AppendError::Empty | AppendError::ClaimTaken { .. } => Self::internal(error),
            AppendError::Unknown(_) => {
                tracing::error!(%error, "the outcome of an append is unknown");
                Self::new(problems::OUTCOME_UNKNOWN).retry_after(1)
            }
            AppendError::Unavailable(why) => Self::of_store(&why),
            AppendError::Conflict { .. } => Self::overloaded(error),
        }
    }
}
