//! Organizations in tokens, as a program sees it that verifies them with the app's published keys alone, and one that asks.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, assert_gapless, email, jwt_header_of, of_type};

use crate::python;

/// The claims of a token, verified by its app's published keys.
async fn verified(server: &Server, app: &App<'_>, token: &str) -> Value {
    let keys: JwkSet =
        serde_json::from_str(&app.get(".well-known/jwks.json").await.expect(200).text).expect("a key set");
    let kid = jwt_header_of(token)["kid"].as_str().expect("a kid").to_owned();
    let key = DecodingKey::from_jwk(keys.find(&kid).expect("a published key")).expect("a usable key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[&app.id]);
    validation.set_issuer(&[format!("{}/v1/apps/{}", server.base(), app.id)]);
    jsonwebtoken::decode::<Value>(token, &key, &validation).expect("it verifies").claims
}

#[tokio::test]
async fn a_token_names_organizations_and_the_one_it_acts_for() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let ada = app.register(&address).await;
    assert_eq!(verified(&server, &app, &ada.access).await["orgs"], json!({}));
    let (first, second) = (
        app.create_organization(&ada.access, "Engines").await,
        app.create_organization(&ada.access, "Looms").await,
    );
    let id = |org: &Value| org["id"].as_str().expect("an id").to_owned();
    let member = |slug: &str| json!({"slug": slug, "role": "owner", "permissions": []});
    let both = json!({ id(&first): member("engines"), id(&second): member("looms") });

    let login = app.login(&address, PASSWORD).await.tokens();
    let claims = verified(&server, &app, &login.access).await;
    assert_eq!((&claims["orgs"], claims.get("org_id")), (&both, None));

    let choose = |token: &str, body: Value| app.post("auth/active-org").bearer(token).json(&body);
    let chosen = choose(&login.access, json!({"org_id": id(&second)})).await.expect(200);
    chosen.consistency();
    let chosen = chosen.json();
    let members: Vec<_> = chosen.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(members, ["access_token", "expires_in", "session_id", "token_type"], "no refresh token");
    let token = chosen["access_token"].as_str().expect("a token").to_owned();
    let acting = verified(&server, &app, &token).await;
    assert_eq!(
        (&acting["org_id"], &acting["org_role"], &acting["org_permissions"], &acting["orgs"]),
        (&second["id"], &json!("owner"), &json!([]), &both)
    );
    assert_eq!(acting["exp"], claims["exp"]);
    app.me(&token).await.expect(200);
    // PyJWT reads the same.
    let keys = app.get(".well-known/jwks.json").await.expect(200).text;
    let issuer = format!("{}/v1/apps/{}", server.base(), app.id);
    if let Some(read) = python::run("verify_with.py", &[&keys, &token, &issuer, &app.id]) {
        assert_eq!(read, acting);
    }

    // A refresh keeps it.
    let refreshed = app.refresh(&login.refresh).await.tokens();
    assert_eq!(verified(&server, &app, &refreshed.access).await["org_id"], second["id"]);
    // Another session has not chosen.
    let other = app.login(&address, PASSWORD).await.tokens();
    assert_eq!(verified(&server, &app, &other.access).await.get("org_id"), None);

    let (_, key) = app.api_key(&["users:read"]).await;
    let ask = async |token: &str| {
        app.post("auth/introspect").bearer(&key).form(&[("token", token)]).await.expect(200).json()
    };
    let now = ask(&token).await;
    assert_eq!((&now["org_id"], &now["org_role"], &now["orgs"]), (&second["id"], &json!("owner"), &both));
    assert_eq!(ask(&refreshed.refresh).await["org_id"], second["id"]);
    assert_eq!(ask(&other.access).await.get("org_id"), None);

    // Renamed and deleted: introspection knows at once, tokens from the next one on.
    app.patch(&format!("orgs/{}", id(&first)))
        .bearer(&token)
        .json(&json!({"slug": "mills"}))
        .await
        .expect(200);
    app.delete(&format!("orgs/{}", id(&second))).bearer(&token).await.expect(204);
    let left = json!({ id(&first): member("mills") });
    let now = ask(&token).await;
    assert_eq!((&now["active"], &now["orgs"], now.get("org_id")), (&json!(true), &left, None));
    let refreshed = app.refresh(&refreshed.refresh).await.tokens();
    let claims = verified(&server, &app, &refreshed.access).await;
    assert_eq!((&claims["orgs"], claims.get("org_id")), (&left, None));
    choose(&refreshed.access, json!({"org_id": id(&second)})).await.problem(404, "not_found");

    let events = server.events().await;
    assert_gapless(&events);
    let chosen = of_type(&events, "ActiveOrganizationChosen");
    assert_eq!((chosen.len(), &chosen[0]["data"]["organization_id"]), (1, &second["id"]));
    let doctor = server.command(&["doctor", "--json"]).output().expect("the binary runs");
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn nobody_acts_for_what_is_not_theirs() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let (ada, eve) = (app.register(&email("ada")).await, app.register(&email("eve")).await);
    let bea = other.register(&email("bea")).await;
    let org = app.create_organization(&ada.access, "Engines").await;
    let theirs = other.create_organization(&bea.access, "Looms").await;
    let head = server.events().await.len();
    let choose = |app: &App<'_>, token: &str, org: &Value| {
        app.post("auth/active-org").bearer(token).json(&json!({"org_id": org}))
    };
    choose(&app, &eve.access, &org["id"]).await.problem(404, "not_found");
    choose(&app, &ada.access, &theirs["id"]).await.problem(404, "not_found");
    choose(&other, &ada.access, &org["id"]).await.problem(401, "unauthenticated");
    choose(&app, &ada.refresh, &org["id"]).await.problem(401, "unauthenticated");
    choose(&app, &server.platform_key(), &org["id"]).await.problem(401, "unauthenticated");
    app.post("auth/logout").bearer(&ada.access).json(&json!({})).await.expect_success();
    choose(&app, &ada.access, &org["id"]).await.problem(401, "unauthenticated");
    assert_eq!(of_type(&server.events().await[head..], "ActiveOrganizationChosen").len(), 0);
}
