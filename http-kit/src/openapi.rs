//! What all operations share in the `OpenAPI` document, so that the flows need not repeat it.

use std::collections::BTreeMap;

use schemas::problems::{self, ProblemType, problem_type};
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Content, OpenApi, PathItem, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use crate::aliases::{APP, SECOND_NAMES};
use crate::consistency::TOKEN_PATTERN;
use crate::problem::{FieldProblem, PROBLEM_JSON, ProblemBody};

/// The name of the security scheme of users: `security(("user" = []))`.
pub const USER: &str = "user";

/// The name of the security scheme of API keys: `security(("api_key" = []))`.
pub const API_KEY: &str = "api_key";

/// The name of the security scheme of OAuth clients: `security(("client" = []))`.
pub const CLIENT: &str = "client";

const CLIENT_SECRET: &str =
    "The id of the app as client id, and an API key as client secret (RFC 6749 section 2.3.1).";

const USER_TOKEN: &str = "An access token of a user of the app. Apps with the setting `cookies` also take it from \
    the cookie `__Host-ww-<app>-access`; then requests that change something need the header `X-CSRF-Token` with the \
    value of the cookie `__Host-ww-<app>-csrf`, and answers have the tokens in cookies alone. A deployment on `http` and loopback \
    leaves out `__Host-`.";

const ALWAYS: &[u16] = &[400, 403, 404, 429, 500, 503];
const WITH_CREDENTIALS: &[u16] = &[401];
const WITH_BODY: &[u16] = &[413, 415];
/// Routes with several representations.
const WITH_CHOICE: &[u16] = &[406];
/// Routes with parameters or members that can be invalid, or with an idempotency key.
const WITH_VALUES: &[u16] = &[422];

/// All tags, in the order in which readers need them.
const TAGS: &[(&str, &str)] = &[
    (
        "auth",
        "Registration, login, tokens; email verification and password resets, with the pages that mails link to.",
    ),
    ("magic links", "Login by a mailed link."),
    ("me", "Your own account: its profile, password and address."),
    ("sessions", "Your own sessions."),
    ("organizations", "Organizations of users: your own, and their members."),
    ("admin", "An app's users, statistics and mails, for its admins and servers."),
    ("audit", "The audit log, and the event feed."),
    ("webhooks", "Events sent to an app's own programs, signed."),
    ("keys", "API keys, and the keys that sign access tokens."),
    ("platform", "Apps, projections, health and metrics, for the operator of a deployment."),
];

fn description(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read",
        401 => "Missing or invalid credentials",
        403 => "Not allowed, or the app is disabled",
        404 => "Absent, or belongs to another app or person",
        406 => "No available media type matches `Accept`",
        409 => "Conflicts with the current state",
        413 => "The body is too large",
        415 => "The body has another content type, or a content coding",
        422 => "A member is invalid, or the Idempotency-Key was used for another request",
        429 => "Too many requests",
        503 => "Overloaded, or a store is unavailable: try again",
        _ => "Internal error",
    }
}

/// The default problems of a status.
fn problems_of(status: u16) -> &'static [&'static ProblemType] {
    match status {
        400 => &[problems::MALFORMED_REQUEST],
        401 => &[problems::UNAUTHENTICATED],
        403 => &[problems::FORBIDDEN, problems::APP_DISABLED],
        404 => &[problems::NOT_FOUND],
        406 => &[problems::NOT_ACCEPTABLE],
        413 => &[problems::PAYLOAD_TOO_LARGE],
        415 => &[problems::UNSUPPORTED_MEDIA_TYPE, problems::UNSUPPORTED_CONTENT_ENCODING],
        422 => &[problems::VALIDATION_FAILED, problems::IDEMPOTENCY_KEY_REUSED],
        429 => &[problems::RATE_LIMITED],
        500 => &[problems::INTERNAL],
        503 => &[problems::OVERLOADED],
        _ => &[],
    }
}

/// Adds the aliases of routes, the tags, the problem schema, the security schemes, the problems that every operation can
/// return (unless the operation describes that status itself) with examples, the `Idempotency-Key` of POSTs, and the
/// response headers.
pub fn complete(api: &mut OpenApi) {
    add_second_names(api);
    let tag = |(name, text): &(&str, &str)| TagBuilder::new().name(*name).description(Some(*text)).build();
    api.tags = Some(TAGS.iter().map(tag).collect());
    let components = api.components.get_or_insert_with(Components::default);
    add_components(components);
    for (path, item) in &mut api.paths.paths {
        for operation in operations(item) {
            operation.operation_id = operation.operation_id.take().map(|id| camel_case(&id));
            // An explicit `security` for every operation: here, none is needed.
            operation.security.get_or_insert_default();
        }
        // Pages and probes at the root have their own formats, but refuse like all others.
        if path.starts_with("/v1/") {
            complete_item(item);
        } else {
            operations(item).for_each(show_refusals);
        }
    }
}

/// `create_user` as generators want it.
fn camel_case(id: &str) -> String {
    let mut words = id.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// A reference to a component that is added elsewhere.
fn component_named(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn list_of(name: &str) -> RefOr<Schema> {
    RefOr::T(Schema::Array(ArrayBuilder::new().items(component_named(name)).build()))
}

/// `AppSettings`: all of them.
pub fn app_settings() -> RefOr<Schema> {
    component_named("AppSettings")
}

/// `AppSettingsPatch`: some of them.
pub fn app_settings_patch() -> RefOr<Schema> {
    component_named("AppSettingsPatch")
}

/// A list of `Permission`.
pub fn permissions() -> RefOr<Schema> {
    list_of("Permission")
}

/// A list of `Jwk`.
pub fn jwks() -> RefOr<Schema> {
    list_of("Jwk")
}

/// `TokenAlgorithm`.
pub fn token_algorithm() -> RefOr<Schema> {
    component_named("TokenAlgorithm")
}

/// `KeyStatus`.
pub fn key_status() -> RefOr<Schema> {
    component_named("KeyStatus")
}

/// A list of `CloudEvent`.
pub fn cloud_events() -> RefOr<Schema> {
    list_of("CloudEvent")
}

/// `CloudEvent`.
pub fn cloud_event() -> RefOr<Schema> {
    component_named("CloudEvent")
}

/// `ProblemCode`: one of the registry.
pub fn problem_code() -> RefOr<Schema> {
    component_named("ProblemCode")
}

/// Describes the second paths of operations that have one.
fn add_second_names(api: &mut OpenApi) {
    let paths = &mut api.paths.paths;
    for (path, name, operation_id) in SECOND_NAMES {
        if let Some(mut item) = paths.get(&format!("{APP}{path}")).cloned() {
            for operation in operations(&mut item) {
                operation.operation_id = Some((*operation_id).to_owned());
                say_same(operation, &format!("{APP}{path}"));
            }
            paths.insert(format!("{APP}{name}"), item);
        }
    }
}

fn say_same(operation: &mut Operation, path: &str) {
    let text = operation.description.take().map(|text| text + "\n\n").unwrap_or_default();
    operation.description = Some(format!("{text}The same as `{path}`."));
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn add_components(components: &mut Components) {
    components.schemas.insert(ProblemBody::name().into_owned(), ProblemBody::schema());
    components.schemas.insert(FieldProblem::name().into_owned(), FieldProblem::schema());
    let bearer = |format: &str, description: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        SecurityScheme::Http(scheme.description(Some(description)).build())
    };
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic);
    let schemes = [
        (USER, bearer("JWT", USER_TOKEN)),
        (API_KEY, bearer("wwk_…", "An API key of the platform or of the app.")),
        (CLIENT, SecurityScheme::Http(basic.description(Some(CLIENT_SECRET)).build())),
    ];
    for (name, scheme) in schemes {
        components.security_schemes.insert(name.to_owned(), scheme.into());
    }
    for status in [ALWAYS, WITH_CREDENTIALS, WITH_BODY, WITH_VALUES, WITH_CHOICE].concat() {
        let mut response = problem_response(status);
        add_examples(status, &mut response);
        describe_headers(&status.to_string(), &mut response);
        components.responses.insert(component(status), RefOr::T(response));
    }
}

fn component(status: u16) -> String {
    format!("Problem{status}")
}

/// A problem response, for operations that describe one themselves.
pub fn problem_response(status: u16) -> Response {
    ResponseBuilder::new()
        .description(description(status))
        .content(PROBLEM_JSON, Content::new(Some(Ref::from_schema_name(ProblemBody::name()))))
        .build()
}

fn complete_item(item: &mut PathItem) {
    if let Some(post) = &mut item.post {
        let parameters = post.parameters.get_or_insert_default();
        parameters.push(RefOr::T(idempotency_key()));
        add(&mut post.responses.responses, WITH_BODY);
    }
    let PathItem { put, post, delete, patch, .. } = item;
    for command in [put, post, delete, patch].into_iter().flatten() {
        for response in command.responses.responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
            if let (_, RefOr::T(response)) = response {
                response.headers.insert("Consistency-Token".to_owned(), consistency_token().into());
            }
        }
    }
    for operation in operations(item) {
        complete_operation(operation);
    }
}

fn consistency_token() -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(TOKEN_PATTERN)).build();
    let text = "The position of the command's events: sent with a query, the answer includes them.";
    HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build()
}

/// The headers that a refusal of this status always or sometimes has.
fn headers_of(status: &str) -> &'static [(&'static str, &'static str, Type)] {
    const RETRY_AFTER: (&str, &str, Type) =
        ("Retry-After", "Seconds until a retry may succeed", Type::Integer);
    match status {
        "401" => &[(
            "WWW-Authenticate",
            "`Bearer`; with `error` and `error_description` if a token was sent (RFC 6750)",
            Type::String,
        )],
        "429" => &[
            RETRY_AFTER,
            ("RateLimit", "The remaining quota, and its reset time", Type::String),
            ("RateLimit-Policy", "The limit", Type::String),
        ],
        "503" => &[RETRY_AFTER],
        _ => &[],
    }
}

fn describe_headers(status: &str, response: &mut Response) {
    for (name, text, kind) in headers_of(status) {
        let schema = ObjectBuilder::new().schema_type(kind.clone()).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(*text)).build();
        response.headers.entry((*name).to_owned()).or_insert_with(|| header.into());
    }
}

fn complete_operation(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    add(responses, ALWAYS);
    if operation.security.as_ref().is_some_and(|security| !security.is_empty()) {
        add(responses, WITH_CREDENTIALS);
    }
    if operation.request_body.is_some() {
        add(responses, WITH_BODY);
    }
    let choice =
        |response: &RefOr<Response>| matches!(response, RefOr::T(response) if response.content.len() > 1);
    if responses.get("200").is_some_and(choice) {
        add(responses, WITH_CHOICE);
    }
    let sent = |parameter: &RefOr<Parameter>| !matches!(parameter, RefOr::T(it) if it.parameter_in == ParameterIn::Path);
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    if operation.request_body.is_some() || parameters.iter().any(sent) {
        add(responses, WITH_VALUES);
    }
    // Refusals described only by status and text are problems like all others.
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            let content = Content::new(Some(Ref::from_schema_name(ProblemBody::name())));
            response.content.insert(PROBLEM_JSON.to_owned(), content.into());
            describe_headers(status, response);
        }
    }
    show_refusals(operation);
}

fn show_refusals(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let (RefOr::T(response), Ok(status)) = (response, status.parse()) {
            add_examples(status, response);
        }
    }
}

/// An example for each code in the description, or for the default codes of this status.
fn add_examples(status: u16, response: &mut Response) {
    let named = response.description.split('`').skip(1).step_by(2);
    let mut kinds: Vec<_> = named.filter_map(problem_type).filter(|kind| kind.status == status).collect();
    if kinds.is_empty() {
        kinds = problems_of(status).to_vec();
    }
    let Some(RefOr::T(content)) = response.content.get_mut(PROBLEM_JSON) else { return };
    for kind in kinds {
        let example = ExampleBuilder::new().summary(kind.title).value(Some(example_of(kind))).build();
        content.examples.insert(kind.code.to_owned(), example.into());
    }
}

fn example_of(kind: &ProblemType) -> Value {
    let mut example = json!({
        "type": kind.type_uri(),
        "title": kind.title,
        "status": kind.status,
        "detail": kind.summary(),
        "code": kind.code,
        "request_id": "018f4e5c-2d3a-7c1b-9f0e-6b7a8c9d0e1f",
    });
    let pointer = match kind {
        problems::MALFORMED_REQUEST => {
            let detail = "must be a string, not a number";
            example["errors"] = json!([{ "pointer": "/email", "code": "invalid_type", "detail": detail }]);
            return example;
        }
        problems::VALIDATION_FAILED | problems::INVALID_EMAIL => "/email",
        problems::WEAK_PASSWORD => "/password",
        problems::REDIRECT_URI_NOT_ALLOWED => "/redirect_uri",
        _ => return example,
    };
    example["errors"] = json!([{ "pointer": pointer, "code": kind.code, "detail": kind.title }]);
    example
}

fn add(responses: &mut BTreeMap<String, RefOr<Response>>, statuses: &[u16]) {
    for &status in statuses {
        responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::Ref(Ref::from_response_name(component(status))));
    }
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"))
        .build();
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Repeated with the same key and body within 24 hours, the request takes effect once.",
        ))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::complete;

    #[utoipa::path(post, path = "/v1/things", request_body = String, security(("user" = [])),
        responses((status = 204, description = "Done"), (status = 409, description = "`email_taken`")))]
    #[expect(dead_code, reason = "only its description is used")]
    fn make() {}

    /// Sign up.
    #[utoipa::path(post, path = "/v1/apps/{app_id}/auth/register", operation_id = "register",
        params(("app_id" = String, Path, description = "The app")),
        responses((status = 201, description = "Done")))]
    #[expect(dead_code, reason = "only its description is used")]
    fn register() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(make, register))]
    struct Api;

    #[test]
    fn an_operation_gets_what_all_have() {
        let mut api = Api::openapi();
        complete(&mut api);
        let json = serde_json::to_value(&api).expect("a document is JSON");
        let operation = &json["paths"]["/v1/things"]["post"];
        let statuses = operation["responses"].as_object().expect("responses").keys().collect::<Vec<_>>();
        assert_eq!(
            statuses,
            ["204", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"]
        );
        assert_eq!(
            operation["responses"]["409"]["content"]["application/problem+json"]["schema"]["$ref"],
            "#/components/schemas/Problem"
        );
        assert_eq!(operation["parameters"][0]["name"], "Idempotency-Key");
        assert_eq!(json["components"]["securitySchemes"]["user"]["scheme"], "bearer");
        assert!(json["components"]["schemas"]["FieldProblem"].is_object());
        assert!(operation["responses"]["204"]["headers"]["Consistency-Token"].is_object());
        assert!(json["components"]["responses"]["Problem429"]["headers"]["RateLimit-Policy"].is_object());
    }

    #[test]
    fn second_names_are_described_and_the_default_app_is_not() {
        let mut api = Api::openapi();
        complete(&mut api);
        let json = serde_json::to_value(&api).expect("a document is JSON");
        for (path, id) in [("register", "register"), ("signup", "signUp")] {
            let operation = &json["paths"][format!("/v1/apps/{{app_id}}/auth/{path}")]["post"];
            assert_eq!(operation["operationId"], id, "{path}");
            assert_eq!(operation["security"], serde_json::json!([]), "anybody may");
        }
        assert_eq!(json["paths"]["/v1/things"]["post"]["security"][0]["user"], serde_json::json!([]));
        assert_eq!(json["paths"].as_object().map(serde_json::Map::len), Some(3));
    }

    #[test]
    fn each_refusal_has_an_example_of_its_own() {
        let mut api = Api::openapi();
        complete(&mut api);
        let json = serde_json::to_value(&api).expect("a document is JSON");
        for (status, response) in json["components"]["responses"].as_object().expect("responses") {
            let examples = response["content"]["application/problem+json"]["examples"].as_object();
            for example in examples.expect(status).values() {
                assert!(status.ends_with(&example["value"]["status"].to_string()), "{status}: {example}");
            }
        }
        let named = &json["paths"]["/v1/things"]["post"]["responses"]["409"]["content"];
        let named = named["application/problem+json"]["examples"].as_object().expect("examples");
        assert_eq!(named.keys().collect::<Vec<_>>(), ["email_taken"]);
    }

    #[test]
    fn ids_are_camel_case() {
        for (id, camel) in
            [("login", "login"), ("create_user", "createUser"), ("revoke_own_sessions", "revokeOwnSessions")]
        {
            assert_eq!(super::camel_case(id), camel);
        }
    }
}
