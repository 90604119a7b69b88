use serde_json::json;
use tests::{PASSWORD, Server, email, of_type};

#[tokio::test]
async fn nobody_logs_in_before_the_address_is_verified() {
    let server = Server::start().await;
    let app = server.create_app(json!({"require_verified_email": true, "delivery": "app"})).await;
    let (_, key) = app.api_key(&["users:write"]).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let first = app.post("auth/register").json(&body).await.expect(202);
    let again = app.post("auth/register").json(&body).await.expect(202);
    assert_eq!(first.json(), json!({"status": "verification_sent"}));
    assert_eq!(first.text, again.text);
    app.login(&address, PASSWORD).await.problem(403, "email_not_verified");
    app.login(&address, "Wrong-kettle-0").await.problem(401, "invalid_credentials");
    let token = app.mailed_token(&key, "email-verification/request", &json!({ "email": address })).await;
    let confirm = || app.post("auth/email-verification/confirm").json(&json!({ "token": token }));
    assert_eq!(confirm().await.expect(200).json()["user"]["email_verified"], true);
    assert_eq!(confirm().await.expect(200).json(), json!({"user": null, "already_verified": true}));
    app.login(&address, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn the_owner_of_an_address_learns_of_a_second_registration_only_by_mail() {
    let server = Server::start().await;
    let app = server.create_app(json!({"require_verified_email": true})).await;
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let first = app.post("auth/register").json(&body).await.expect(202);
    let again = app.post("auth/register").json(&body).await.expect(202);
    assert_eq!(first.text, again.text);
    let names = |answer: &tests::Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&first), names(&again));
    let events = server.events().await;
    assert_eq!(of_type(&events, "EmailVerificationRequested").len(), 1);
    let told = of_type(&events, "PasswordResetRequested");
    assert_eq!((told.len(), &told[0]["data"]["reason"]), (1, &json!("address_taken")));
}
