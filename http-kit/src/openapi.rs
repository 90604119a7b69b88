//! What every operation has in common in the `OpenAPI` document, so that the flows need not repeat it.

use std::collections::BTreeMap;

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, Content, OpenApi, PathItem, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use crate::problem::{FieldProblem, PROBLEM_JSON, ProblemBody};

/// The name of the security scheme of users: `security(("user" = []))`.
pub const USER: &str = "user";

/// The name of the security scheme of API keys: `security(("api_key" = []))`.
pub const API_KEY: &str = "api_key";

const USER_TOKEN: &str = "An access token of a user of the app. Apps with the setting `cookies` also take it from \
    the cookie `__Host-ww-<app>-access`; then requests that change something need the header `X-CSRF-Token` with the \
    value of the cookie `__Host-ww-<app>-csrf`.";

const ALWAYS: &[u16] = &[400, 403, 404, 429, 500, 503];
const WITH_CREDENTIALS: &[u16] = &[401];
const WITH_BODY: &[u16] = &[413, 415, 422];

fn description(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read",
        401 => "No credentials, or bad ones",
        403 => "Not allowed, or the app is disabled",
        404 => "Absent, or somebody else's",
        409 => "In conflict with what is there",
        413 => "The body is too large",
        415 => "The body has another content type",
        422 => "A member makes no sense, or the Idempotency-Key was used for another request",
        429 => "Too many requests",
        503 => "Overloaded: try again",
        _ => "A fault on the service's side",
    }
}

/// Adds the problem schema, the security schemes, the problems every operation can answer with (where the operation
/// does not describe that status itself), and the `Idempotency-Key` of POSTs.
pub fn complete(api: &mut OpenApi) {
    let components = api.components.get_or_insert_with(Components::default);
    add_components(components);
    for (path, item) in &mut api.paths.paths {
        // Pages and probes at the root answer in their own ways.
        if path.starts_with("/v1/") || path.starts_with("/auth/") || path.starts_with("/.well-known/") {
            complete_item(item);
        }
    }
}

fn add_components(components: &mut Components) {
    components.schemas.insert(ProblemBody::name().into_owned(), ProblemBody::schema());
    components.schemas.insert(FieldProblem::name().into_owned(), FieldProblem::schema());
    let bearer = |format: &str, description: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        SecurityScheme::Http(scheme.description(Some(description)).build())
    };
    let schemes = [
        (USER, bearer("JWT", USER_TOKEN)),
        (API_KEY, bearer("wwk_…", "An API key of the platform or of the app.")),
    ];
    for (name, scheme) in schemes {
        components.security_schemes.insert(name.to_owned(), scheme.into());
    }
    for status in [ALWAYS, WITH_CREDENTIALS, WITH_BODY].concat() {
        components.responses.insert(component(status), RefOr::T(problem_response(status)));
    }
}

fn component(status: u16) -> String {
    format!("Problem{status}")
}

/// A problem answer, for operations that describe one themselves.
pub fn problem_response(status: u16) -> Response {
    ResponseBuilder::new()
        .description(description(status))
        .content(PROBLEM_JSON, Content::new(Some(Ref::from_schema_name(ProblemBody::name()))))
        .build()
}

fn complete_item(item: &mut PathItem) {
    let PathItem { get, put, post, delete, patch, .. } = item;
    if let Some(post) = post {
        let parameters = post.parameters.get_or_insert_default();
        parameters.push(RefOr::T(idempotency_key()));
    }
    for operation in [get, put, post, delete, patch].into_iter().flatten() {
        complete_operation(operation);
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
    // Refusals that an operation names by status and words only are problems like all others.
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            let content = Content::new(Some(Ref::from_schema_name(ProblemBody::name())));
            response.content.insert(PROBLEM_JSON.to_owned(), content.into());
        }
    }
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
        .description(Some("Repeat the request with the same key and body, and it has happened once."))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::complete;

    #[utoipa::path(post, path = "/v1/things", request_body = String, security(("user" = [])),
        responses((status = 204, description = "Done"), (status = 409, description = "Taken")))]
    #[expect(dead_code, reason = "only its description is used")]
    fn make() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(make))]
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
    }
}
