//! Organizations in tokens: every token has those of the moment it was issued, introspection those of now, and a session acts
//! for one of them as long as its user is a member.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::organizations::{ORGS, Somebody, said};
use super::*;

/// What a token says, whoever signed it.
pub(super) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

pub(super) fn granted(answer: &Answer) -> Value {
    assert!(answer.status.is_success(), "{}", answer.body);
    claims(&answer.text("access_token"))
}

fn owner_of_engines() -> Value {
    json!({"slug": "engines", "role": "owner", "permissions": []})
}

impl World {
    pub(super) async fn introspect(&self, token: &str) -> Value {
        let key = self.key.expose_secret();
        let body = Some(json!({ "token": token }));
        let answer = self.call("POST", "/v1/apps/default/auth/introspect", Some(key), body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    pub(super) async fn act_for(&self, token: &str, org: &str) -> Answer {
        let body = Some(json!({ "org_id": org }));
        self.call("POST", "/v1/apps/default/auth/active-org", Some(token), body).await
    }

    pub(super) async fn refresh(&self, token: &str) -> Answer {
        self.auth("refresh", json!({ "refresh_token": token })).await
    }
}

#[tokio::test]
async fn every_way_in_gives_a_token_with_the_persons_organizations() {
    let world = magic_link::world().await;
    let registered = world.register("ada@example.com").await;
    assert_eq!(granted(&registered)["orgs"], json!({}), "there are none, and nothing was left out");
    let ada = Somebody { id: user_id(&registered), token: registered.text("access_token") };
    let org = world.organization(&ada).await;
    let orgs = json!({ org.as_str(): owner_of_engines() });

    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!(granted(&login)["orgs"], orgs);
    assert_eq!(granted(&world.refresh(&login.text("refresh_token")).await)["orgs"], orgs);
    // Within the grace the previous token is answered without an event.
    assert_eq!(granted(&world.refresh(&login.text("refresh_token")).await)["orgs"], orgs);
    let code = world.code("ada@example.com").await;
    let exchanged = world.exchange(&code).await;
    assert_eq!(granted(&exchanged)["orgs"], orgs);
    let path = format!("/v1/apps/default/admin/users/{}/access-tokens", ada.id);
    let test = world.by_platform("POST", &path, Some(json!({"duration_minutes": 5}))).await;
    assert_eq!(granted(&test)["orgs"], orgs);
    for token in [exchanged.text("access_token"), test.text("access_token")] {
        let answer = world.introspect(&token).await;
        assert_eq!((&answer["orgs"], answer.get("org_id")), (&orgs, None));
    }
}

/// A repetition says what holds now: what was taken away since is not in it.
#[tokio::test]
async fn inv_i_a_repeated_answer_claims_no_more_than_holds_now() {
    let world = World::start().await;
    let (ada, bea) = (world.somebody("ada").await, world.somebody("bea").await);
    let org = world.organization(&ada).await;
    world.enrol(&org, &bea, "admin").await;
    let path = "/v1/apps/default/auth/login";
    let body = || Some(json!({"email": "bea@example.com", "password": PASSWORD}));
    let first = world.call_with("POST", path, None, body(), Some("k")).await;
    assert_eq!(granted(&first)["orgs"][&org]["role"], "admin");
    let chosen = world.act_for(&first.text("access_token"), &org).await;
    assert_eq!(granted(&chosen)["org_role"], "admin");

    assert_eq!(world.set_role(&org, &ada, &bea, "member").await.status, 200);
    let again = world.call_with("POST", path, None, body(), Some("k")).await;
    assert_eq!(first.body["refresh_token"], again.body["refresh_token"], "it is the same session");
    assert_eq!(granted(&again)["jti"], granted(&first)["jti"]);
    assert_eq!(granted(&again)["orgs"][&org]["role"], "member");
    assert_eq!(granted(&again)["org_role"], "member");
    assert_eq!(world.remove(&org, &ada, &bea).await.status, 204);
    let last = world.call_with("POST", path, None, body(), Some("k")).await;
    assert_eq!((&granted(&last)["orgs"], granted(&last).get("org_id")), (&json!({}), None));
}

#[tokio::test]
async fn inv_d_what_was_taken_away_is_in_no_later_token_and_in_no_introspection() {
    let world = World::start().await;
    let (ada, bea) = (world.somebody("ada").await, world.somebody("bea").await);
    let org = world.organization(&ada).await;
    let (node, _) = round_trips::node_of_many(&world);
    world.enrol(&org, &bea, "admin").await;
    let login = node.login("bea@example.com", PASSWORD).await;
    let chosen = node.act_for(&login.text("access_token"), &org).await;
    let token = chosen.text("access_token");
    let now = node.introspect(&token).await;
    assert_eq!((&now["org_id"], &now["org_role"]), (&json!(org), &json!("admin")));

    // Demoted here: the token of the other node says what it said, its introspection there does not.
    assert_eq!(world.set_role(&org, &ada, &bea, "member").await.status, 200);
    assert_eq!(claims(&token)["org_role"], "admin");
    let now = node.introspect(&token).await;
    assert_eq!((&now["org_role"], &now["orgs"][&org]["role"]), (&json!("member"), &json!("member")));
    let refreshed = node.refresh(&login.text("refresh_token")).await;
    assert_eq!(granted(&refreshed)["org_role"], "member");

    // Removed here.
    assert_eq!(world.remove(&org, &ada, &bea).await.status, 204);
    let now = node.introspect(&token).await;
    assert_eq!((now.get("org_id"), now.get("org_role"), &now["orgs"]), (None, None, &json!({})));
    assert_eq!(now["active"], true, "the session goes on");
    let refreshed = node.refresh(&refreshed.text("refresh_token")).await;
    assert_eq!((granted(&refreshed).get("org_id"), &granted(&refreshed)["orgs"]), (None, &json!({})));
    assert_eq!(said(&node.act_for(&token, &org).await), (404, "not_found"));

    // Made a member again, the session acts for it again, with the role of now.
    world.enrol(&org, &bea, "member").await;
    let refreshed = node.refresh(&refreshed.text("refresh_token")).await;
    assert_eq!(granted(&refreshed)["org_role"], "member");
    // Deleted.
    assert_eq!(world.call("DELETE", &format!("{ORGS}/{org}"), Some(&ada.token), None).await.status, 204);
    let refreshed = node.refresh(&refreshed.text("refresh_token")).await;
    assert_eq!((granted(&refreshed).get("org_id"), &granted(&refreshed)["orgs"]), (None, &json!({})));
    assert_eq!(node.introspect(&token).await.get("org_id"), None);
}

#[tokio::test]
async fn nobody_acts_for_an_organization_of_others() {
    let world = World::start().await;
    let (ada, eve) = (world.somebody("ada").await, world.somebody("eve").await);
    let org = world.organization(&ada).await;
    let before = world.all_events().await;
    let absent = world.clock.new_id().to_string();
    for org in [&org, &absent] {
        assert_eq!(said(&world.act_for(&eve.token, org).await), (404, "not_found"));
    }
    for wrong in ["engines", "*", "default"] {
        assert_eq!(said(&world.act_for(&ada.token, wrong).await), (422, "validation_failed"));
    }
    assert_eq!(world.all_events().await, before, "a refusal writes nothing");
    world.ban(ada.id).await;
    assert_eq!(world.act_for(&ada.token, &org).await.status, 401);
}

/// A token is worth what it was: whoever stole it gets no other one for longer, and none that refreshes.
#[tokio::test]
async fn a_choice_prolongs_nothing() {
    let world = World::start().await;
    let ada = world.somebody("ada").await;
    let org = world.organization(&ada).await;
    world.clock.advance(SignedDuration::from_secs(1000));
    let chosen = world.act_for(&ada.token, &org).await;
    assert_eq!(chosen.body["expires_in"], 800);
    assert_eq!(chosen.body.get("refresh_token"), None);
    let (first, second) = (claims(&ada.token), granted(&chosen));
    assert_eq!((&second["exp"], &second["sid"]), (&first["exp"], &first["sid"]));
    assert_ne!(second["jti"], first["jti"]);
    // Again and again, with what was got.
    let mut token = chosen.text("access_token");
    for org in [org.as_str(), "", &org] {
        world.clock.advance(SignedDuration::from_secs(100));
        let next = world.act_for(&token, org).await;
        assert_eq!(granted(&next)["exp"], first["exp"]);
        token = next.text("access_token");
    }
    assert_eq!(world.events("ActiveOrganizationChosen").await, 3, "what is chosen already is no event");
    world.clock.advance(SignedDuration::from_secs(500));
    assert_eq!(world.act_for(&token, &org).await.status, 401);

    // A test token's is no longer than its session.
    let path = format!("/v1/apps/default/admin/users/{}/access-tokens", ada.id);
    let test = world.by_platform("POST", &path, Some(json!({"duration_minutes": 1}))).await;
    let chosen = world.act_for(&test.text("access_token"), &org).await;
    assert_eq!(granted(&chosen)["exp"], granted(&test)["exp"]);
}

#[tokio::test]
async fn a_repeated_choice_is_one() {
    let world = World::start().await;
    let ada = world.somebody("ada").await;
    let org = world.organization(&ada).await;
    let path = "/v1/apps/default/auth/active-org";
    let body = || Some(json!({ "org_id": org }));
    let first = world.call_with("POST", path, Some(&ada.token), body(), Some("k")).await;
    world.clock.advance(SignedDuration::from_secs(60));
    // Another choice in between.
    assert_eq!(granted(&world.act_for(&ada.token, "").await).get("org_id"), None);
    let again = world.call_with("POST", path, Some(&ada.token), body(), Some("k")).await;
    assert_eq!(granted(&first), granted(&again));
    assert_eq!(world.events("ActiveOrganizationChosen").await, 2);
    // What was left out clears it too, as does null.
    for body in [json!({}), json!({"org_id": null})] {
        world.act_for(&ada.token, &org).await;
        let cleared = world.call("POST", path, Some(&ada.token), Some(body)).await;
        assert_eq!(granted(&cleared).get("org_id"), None);
    }
}

#[tokio::test]
async fn more_than_fit_are_left_out_together() {
    let world = World::start().await;
    let ada = world.somebody("ada").await;
    let mut orgs = Vec::new();
    let (mut fit, mut left_out) = (0, 0);
    for _ in 0..50 {
        orgs.push(world.organization(&ada).await);
        let claims = granted(&world.login("ada@example.com", PASSWORD).await);
        if claims.get("orgs_truncated").is_none() {
            let all = claims["orgs"].as_object().expect("they are there");
            assert_eq!((all.len(), left_out), (orgs.len(), 0), "all or none");
            assert!(claims["orgs"].to_string().len() <= 4096);
            fit += 1;
        } else {
            assert_eq!((&claims["orgs_truncated"], claims.get("orgs")), (&json!(true), None));
            left_out += 1;
        }
    }
    assert!(fit >= 30 && left_out >= 3, "{fit} {left_out}");
    // One can still be chosen, and the token is accepted.
    let login = world.login("ada@example.com", PASSWORD).await;
    let chosen = world.act_for(&login.text("access_token"), &orgs[7]).await;
    let claims = granted(&chosen);
    assert_eq!((&claims["org_id"], &claims["org_role"]), (&json!(orgs[7]), &json!("owner")));
    assert_eq!((&claims["org_permissions"], &claims["orgs_truncated"]), (&json!([]), &json!(true)));
    assert_eq!(world.me(&chosen.text("access_token")).await.status, 200);
    let now = world.introspect(&chosen.text("access_token")).await;
    assert_eq!((&now["org_id"], &now["orgs_truncated"]), (&json!(orgs[7]), &json!(true)));
}
