//! Examples in the API document: for each request body, answer and required parameter. They are derived from the schemas, so
//! that a new operation has them too, and from the values below for names that tell a reader more than their type.

use domain::AppSettings;
use serde_json::{Map, Value, json};

/// A placeholder for unknown text. A test finds it.
const UNKNOWN: &str = "text";

/// Whole examples of schemas, by name.
fn of_schema(name: &str) -> Option<Value> {
    Some(match name {
        "AppSettings" => serde_json::to_value(AppSettings::default()).unwrap_or_default(),
        "AppSettingsPatch" => {
            json!({ "redirect_uris": ["https://app.example.com/callback"], "access_token_ttl": 900 })
        }
        "CloudEvent" => cloud_event(),
        "InclusionProof" => json!({
            "position": 2,
            "leaf_index": 1,
            "size": 3,
            "leaf_hash": HASH,
            "hashes": [HASH, HASH],
            "root": HASH,
        }),
        "ConsistencyProof" => {
            json!({ "from": 2, "to": 3, "from_root": HASH, "to_root": HASH, "hashes": [HASH] })
        }
        "Receipt" => json!({
            "position": cloud_event()["position"],
            "event": cloud_event(),
            "size": 21,
            "hashes": [HASH, HASH],
            "checkpoint": format!(
                "login.example.com\n21\n{HASH}\n\n\u{2014} login.example.com On8cLgEC…\n"
            ),
        }),
        "AuditPersonal" | "ExportedPersonal" => json!({ "ip": "192.0.2.7", "reason": "spam" }),
        "Jwk" => json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            "use": "sig",
            "alg": "ES256",
            "kid": KID,
        }),
        "MagicLinkAgainRequest" => json!({ "token": "wwm_…" }),
        "MailRequested" => json!({ "status": "accepted" }),
        "EmailVerification" => json!({ "user": of_schema("User")? }),
        "User" => json!({
            "id": USER_ID,
            "app_id": "acme",
            "email": "ada@example.com",
            "email_verified": true,
            "name": "Ada Lovelace",
            "avatar_url": null,
            "phone": null,
            "banned": false,
            "roles": ["support"],
            "created_at": TIME,
            "updated_at": TIME,
        }),
        "UserImport" => json!({
            "state": "done",
            "dry_run": false,
            "lines": 3,
            "imported": 2,
            "skipped": 0,
            "failed": 1,
            "admins": 0,
            "errors": [{ "line": 3, "pointer": "/email", "code": "invalid_email", "detail": "not a valid email address" }],
        }),
        "Projection" => {
            json!({ "name": "users", "version": 3, "position": 21, "lag": 0, "state": "running" })
        }
        "ProjectionRebuild" => {
            json!({ "state": "rebuilding", "position": 12_000, "events_per_second": 40_000, "seconds_left": 3 })
        }
        "StatsBucket" => json!({
            "start": "2026-03-01T00:00:00Z",
            "end": "2026-03-02T00:00:00Z",
            "registrations": { "password": 12, "magic_link": 3 },
            "logins": { "password": 80, "registration": 15 },
            "failures": { "password": 4 },
            "lockouts": 0,
            "refreshes": 310,
            "revocations": { "user": 21 },
            "active_users": 64,
        }),
        "StatsCohort" => json!({ "start": "2026-02-23T00:00:00Z", "size": 40, "active": [40, 31, 28] }),
        "StatsFunnel" => json!({
            "from": "2026-02-01T00:00:00Z",
            "to": "2026-03-01T00:00:00Z",
            "registered": 210,
            "verified": 188,
            "logged_in": 160,
        }),
        _ => return None,
    })
}

const TIME: &str = "2026-03-01T12:00:00Z";
const USER_ID: &str = "01900000-0000-7000-8000-000000000001";
const SESSION_ID: &str = "01900000-0000-7000-8000-000000000002";
const KEY_ID: &str = "01900000-0000-7000-8000-000000000003";
const ORGANIZATION_ID: &str = "01900000-0000-7000-8000-000000000006";
const WEBHOOK_ID: &str = "01900000-0000-7000-8000-000000000007";
const INVITATION_ID: &str = "01900000-0000-7000-8000-000000000008";
const HASH: &str = "LZxXyFxVGzMpL1jAT0LXSYPGlRtVGbpnBQFNbPqe5xk=";
const KID: &str = "3vPPCuNp2Mpr8a9MtuZlbPB-bGkEIyBnWPSSPKSGSSA";

fn cloud_event() -> Value {
    json!({
        "specversion": "1.0",
        "id": "01900000-0000-7000-8000-000000000004",
        "source": "/v1/apps/acme",
        "type": "UserBanned",
        "time": TIME,
        "subject": format!("user-{USER_ID}"),
        "dataschema": "https://login.example.com/schemas/events/user/UserBanned.v1.json",
        "datacontenttype": "application/json",
        "position": 21,
        "prevposition": 20,
        "streamversion": 2,
        "appid": "acme",
        "actorkind": "api_key",
        "actorid": KEY_ID,
        "correlationid": "01900000-0000-7000-8000-000000000005",
        "data": { "user_id": USER_ID, "at": TIME },
    })
}

/// Members, parameters and list items, by name; `Schema.member` if the name alone is ambiguous.
fn of_name(schema: &str, name: &str) -> Option<Value> {
    if let Some(example) = of_organization(schema, name) {
        return Some(example);
    }
    Some(match (schema, name) {
        ("App" | "CreateAppRequest" | "AppPatch", "name") => "Acme".into(),
        (
            "ApiKey"
            | "IssueApiKeyRequest"
            | "AuditActor"
            | "OrganizationApiKey"
            | "IssuedOrganizationApiKey"
            | "IssueOrganizationApiKeyRequest",
            "name",
        ) => "backend".into(),
        (_, "import_id") => "01900000-0000-7000-8000-000000000006".into(),
        (_, "key_id") | ("AuditActor" | "OrganizationApiKey" | "IssuedOrganizationApiKey", "id") => {
            KEY_ID.into()
        }
        ("AuditEvent", "type") => "UserBanned".into(),
        ("AuditEvent", "data") => json!({ "user_id": USER_ID, "at": TIME }),
        ("MailedToken", "token") => "wwv_…".into(),
        ("PasswordResetRequest" | "PasswordResetToken", "token") => "wwp_…".into(),
        ("Ready", "checks") => json!({ "journal": { "ok": true }, "key_store": { "ok": true } }),
        (_, "app_id" | "aud" | "client_id") => "acme".into(),
        ("User" | "Me", "id") | (_, "user_id" | "sub" | "invited_by" | "owner_id" | "created_by") => {
            USER_ID.into()
        }
        ("Session", "id") | (_, "session_id" | "sid" | "exclude") => SESSION_ID.into(),
        (_, "webhook_id") | ("Webhook" | "CreatedWebhook", "id") => WEBHOOK_ID.into(),
        ("WebhookDelivery", "event_type") => "UserRegistered".into(),
        (_, "delivery_id") => "1042".into(),
        (_, "url") => "https://hooks.acme.example/watchword".into(),
        ("Webhook" | "CreatedWebhook" | "CreateWebhookRequest" | "WebhookPatch", "events") => "user.*".into(),
        (_, "description") => "Welcome mails".into(),
        (_, "status_code") => 503.into(),
        (_, "mail_id") => "1042-password_reset".into(),
        (_, "subject") => format!("user-{USER_ID}").into(),
        (_, "email") => "ada@example.com".into(),
        (_, "new_email") => "ada@example.org".into(),
        (_, "password" | "old_password") => "violet-Kettle-93".into(),
        (_, "new_password") => "amber-Teapot-48".into(),
        (_, "name") => "Ada Lovelace".into(),
        (_, "phone") => "+44 20 7946 0000".into(),
        (_, "avatar_url") => "https://app.example.com/ada.png".into(),
        (_, "role" | "roles") => "support".into(),
        (_, "permissions") => "users:read".into(),
        (_, "reason") => "spam".into(),
        (_, "kind") => "api_key".into(),
        (_, "method") => "password".into(),
        (_, "ip") => "192.0.2.7".into(),
        (_, "user_agent") => "Mozilla/5.0".into(),
        (_, "access_token") => "eyJ…".into(),
        (_, "refresh_token") => "wwr_…".into(),
        (_, "token") => "wwm_…".into(),
        (_, "token_type") => "Bearer".into(),
        (_, "token_type_hint") => "refresh_token".into(),
        (_, "client_secret") => "wwk_…".into(),
        (_, "expires_in") => 1800.into(),
        (_, "duration_minutes") => 60.into(),
        (_, "exclude_current" | "orgs_truncated" | "active" | "current" | "deleted") => true.into(),
        (_, "revoked") => 2.into(),
        (_, "attempts") => 7.into(),
        (_, "smtp_code") => 550.into(),
        (_, "iat") => 1_772_366_400.into(),
        (_, "exp") => 1_772_368_200.into(),
        (_, "jti" | "request_id") => "01900000-0000-7000-8000-000000000005".into(),
        (_, "iss" | "issuer") => "https://login.example.com/v1/apps/acme".into(),
        (_, "jwks_uri") => "https://login.example.com/v1/apps/acme/.well-known/jwks.json".into(),
        (_, "introspection_endpoint") => "https://login.example.com/v1/apps/acme/oauth2/introspect".into(),
        (_, "revocation_endpoint") => "https://login.example.com/v1/apps/acme/oauth2/revoke".into(),
        (_, "service_documentation") => "https://login.example.com/docs/".into(),
        (_, "kid") => KID.into(),
        (_, "code") => "wwx_…".into(),
        // The pair of RFC 7636, appendix B.
        (_, "code_verifier") => "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
        (_, "code_challenge") => "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".into(),
        (_, "state") => "af0ifjsldkj".into(),
        (_, "expires_at" | "to") => "2026-03-02T12:00:00Z".into(),
        (_, "position" | "from_position") => 21.into(),
        (_, "total") => 1.into(),
        (_, "next_cursor") => Value::Null,
        _ => return None,
    })
}

/// The same, of what belongs to organizations.
fn of_organization(schema: &str, name: &str) -> Option<Value> {
    Some(match (schema, name) {
        (
            "Organization"
            | "AppOrganization"
            | "UserOrganization"
            | "CreateOrganizationRequest"
            | "CreateAppOrganizationRequest"
            | "OrganizationPatch",
            "name",
        ) => "Analytical Engines".into(),
        (_, "slug") => "analytical-engines".into(),
        ("Invitation" | "IssuedInvitation", "id") | (_, "invitation_id") => INVITATION_ID.into(),
        ("AcceptInvitationRequest" | "IssuedInvitation", "token") => "wwi_…".into(),
        (_, "member_count") => 3.into(),
        ("Invitation" | "IssuedInvitation" | "CreateInvitationRequest", "role") => "member".into(),
        (
            "Organization"
            | "UserOrganization"
            | "OrganizationMember"
            | "MemberRole"
            | "IntrospectedOrganization",
            "role",
        )
        | (_, "org_role") => "owner".into(),
        ("Introspection", "orgs") => {
            let member =
                json!({ "slug": "analytical-engines", "role": "owner", "permissions": ["billing:read"] });
            json!({ ORGANIZATION_ID: member })
        }
        ("OrganizationRole" | "RoleTemplate", "role") => "support".into(),
        ("OrganizationRole", "source") => "app".into(),
        (
            "IntrospectedOrganization"
            | "OrganizationRole"
            | "RoleTemplate"
            | "RolePermissionsRequest"
            | "OrganizationApiKey"
            | "IssuedOrganizationApiKey"
            | "IssueOrganizationApiKeyRequest",
            "permissions",
        )
        | (_, "org_permissions" | "scope") => "billing:read".into(),
        ("Organization" | "AppOrganization" | "UserOrganization", "id")
        | (_, "org_id" | "organization_id") => ORGANIZATION_ID.into(),
        _ => return None,
    })
}

/// Answers that are not JSON, by media type.
fn of_media_type(media_type: &str) -> Option<Value> {
    let text = match media_type {
        "application/x-ndjson" => format!("{}\n", cloud_event()),
        "text/event-stream" => format!("id: 21\ndata: {}\n\n", cloud_event()),
        "text/csv" => format!(
            "position,time,type,app_id,subject,user_id,actor_kind,actor_id,email,ip,data,actor_name\r\n\
             21,{TIME},UserBanned,acme,user-{USER_ID},{USER_ID},api_key,{KEY_ID},,192.0.2.7,{{}},backend\r\n"
        ),
        "text/html" => "<!doctype html>\n<html lang=\"en\">…</html>\n".to_owned(),
        "application/octet-stream" => "…".to_owned(),
        "text/css" => ":root{--accent:#0a66c2;--on-accent:#fff}\n".to_owned(),
        "text/plain" => "# TYPE watchword_event_streams gauge\nwatchword_event_streams 0\n".to_owned(),
        _ => return None,
    };
    Some(text.into())
}

/// Adds them to a document that has all its schemas.
pub fn add(document: &mut Value) {
    let known = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let examples = Examples { known: &known };
    let items = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in items.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            if parameter["required"] == true && parameter["example"].is_null() {
                let name = parameter["name"].as_str().unwrap_or_default();
                parameter["example"] = examples.value(&parameter["schema"], "", name);
            }
        }
        if let Some(content) = operation.pointer_mut("/requestBody/content") {
            examples.add_to(content);
        }
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        for response in responses.into_iter().flat_map(Map::values_mut) {
            if let Some(content) = response.get_mut("content") {
                examples.add_to(content);
            }
        }
    }
}

struct Examples<'a> {
    known: &'a Map<String, Value>,
}

impl Examples<'_> {
    fn add_to(&self, content: &mut Value) {
        for (media_type, content) in content.as_object_mut().into_iter().flatten() {
            let Some(content) = content.as_object_mut() else { continue };
            if content.contains_key("example") || content.contains_key("examples") {
                continue;
            }
            let made = content.get("schema").map(|schema| self.value(schema, "", ""));
            if let Some(example) = of_media_type(media_type).or(made) {
                content.insert("example".to_owned(), example);
            }
        }
    }

    /// An example of a schema, which is a member of another one.
    fn value(&self, schema: &Value, inside: &str, name: &str) -> Value {
        if let Some(example) = own(schema) {
            return example;
        }
        if let Some(component) =
            schema["$ref"].as_str().and_then(|target| target.strip_prefix("#/components/schemas/"))
        {
            return of_schema(component)
                .unwrap_or_else(|| self.value(&self.known[component], component, component));
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let members = parts.iter().filter_map(|part| match self.value(part, inside, name) {
                Value::Object(members) => Some(members),
                _ => None,
            });
            return members.flatten().collect::<Map<_, _>>().into();
        }
        let choices = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        if let Some(choice) = choices.and_then(|choices| choices.iter().find(|it| it["type"] != "null")) {
            return self.value(choice, inside, name);
        }
        if let Some(members) = schema["properties"].as_object() {
            let example =
                members.iter().map(|(name, schema)| (name.clone(), self.value(schema, inside, name)));
            return example.collect::<Map<_, _>>().into();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap_or(&Value::Null),
            kind => kind,
        };
        match (kind.as_str(), of_name(inside, name)) {
            (Some("array"), item) => {
                json!([item.unwrap_or_else(|| self.value(&schema["items"], inside, name))])
            }
            (_, Some(known)) => known,
            (Some("integer"), None) => schema.get("minimum").cloned().unwrap_or_else(|| 1.into()),
            (Some("boolean"), None) => false.into(),
            (Some("object"), None) => json!({}),
            _ => of_format(schema["format"].as_str()).into(),
        }
    }
}

/// The schema's own example or constant.
fn own(schema: &Value) -> Option<Value> {
    let of_list = |name: &str| schema[name].as_array().and_then(|values| values.first());
    schema
        .get("example")
        .or_else(|| schema.get("const"))
        .or_else(|| of_list("examples"))
        .or_else(|| of_list("enum"))
        .cloned()
}

fn of_format(format: Option<&str>) -> &'static str {
    match format {
        Some("date-time") => TIME,
        Some("uuid") => KEY_ID,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        serde_json::from_str(include_str!("../../schemas/openapi.json"))
            .expect("the committed document is JSON")
    }

    fn has_unknown(example: &Value) -> bool {
        match example {
            Value::String(text) => text == UNKNOWN,
            Value::Array(items) => items.iter().any(has_unknown),
            Value::Object(members) => members.values().any(has_unknown),
            _ => false,
        }
    }

    #[test]
    fn every_operation_has_an_example_of_what_is_sent_and_answered() {
        let document = document();
        let mut found = 0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item") {
                let sent = operation["parameters"].as_array().into_iter().flatten();
                for parameter in sent.filter(|parameter| parameter["required"] == true) {
                    let name = &parameter["name"];
                    assert!(!parameter["example"].is_null(), "{method} {path}: {name}");
                    assert!(!has_unknown(&parameter["example"]), "{method} {path}: what is {name}?");
                }
                let answers = operation["responses"].as_object().expect("responses").values();
                let contents = answers.chain([&operation["requestBody"]]);
                let contents = contents.filter_map(|it| it["content"].as_object()).flatten();
                for (media_type, content) in contents {
                    let examples =
                        content["examples"].as_object().is_some_and(|examples| !examples.is_empty());
                    assert!(examples || !content["example"].is_null(), "{method} {path}: {media_type}");
                    let example = &content["example"];
                    assert!(
                        !has_unknown(example),
                        "{method} {path}: add the missing values of {example} to this file"
                    );
                    found += 1;
                }
            }
        }
        assert!(found > 150, "{found}");
    }

    #[test]
    fn an_example_is_made_of_what_the_schema_says_and_of_names() {
        let known = json!({
            "Thing": { "properties": {
                "email": { "type": ["string", "null"] },
                "kind": { "type": "string", "enum": ["first", "second"] },
                "made_at": { "type": "string", "format": "date-time" },
                "count": { "type": "integer", "minimum": 3 },
                "part": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Part" }] },
            } },
            "Part": { "allOf": [
                { "properties": { "on": { "type": "boolean" } } },
                { "properties": { "roles": { "type": "array", "items": { "type": "string" } } } },
            ] },
        });
        let examples = Examples { known: known.as_object().expect("an object") };
        let thing = json!({ "$ref": "#/components/schemas/Thing" });
        assert_eq!(
            examples.value(&thing, "", ""),
            json!({
                "email": "ada@example.com", "kind": "first", "made_at": TIME, "count": 3,
                "part": { "on": false, "roles": ["support"] },
            })
        );
    }
}
