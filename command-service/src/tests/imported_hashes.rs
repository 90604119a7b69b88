//! Users imported with a password hash of another system.

use super::*;

const VIOLET: &str = "violet-Kettle-93";
const NFC: &str = "p\u{e4}ssw\u{f6}rter-93";
const NFD: &str = "pa\u{308}sswo\u{308}rter-93";
const USERS: &str = "/v1/apps/default/admin/users";

async fn create(world: &World, email: &str, hash: &str) -> Answer {
    world.by_platform("POST", USERS, Some(json!({"email": email, "password_hash": hash}))).await
}

async fn hash_of(world: &World, made: &Answer) -> String {
    let user = UserId(made.text("id").parse().expect("an id"));
    let user = world.service.repository.load::<User>(&user).await.expect("loads");
    user.state.password_hash.clone().expect("a hash").0
}

#[tokio::test]
async fn the_first_login_verifies_an_imported_hash_and_replaces_it() {
    let world = World::start().await;
    for (n, (hash, password)) in [
        ("AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==", VIOLET),
        ("APUv3KN2C1SPWfUFRP65/InaNHIZqSNt6tCJeseNiKoH3nKR5PEZuYN9ZvfOC9kfZg==", VIOLET),
        ("AQAAAAEAACcQAAAAEAABAgMEBQYHCAkKCwwNDg8mVR3M2Nxb56pbH9WmomOCsrKqOOHaxFfh/EniLwQoTg==", VIOLET),
        ("$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.", VIOLET),
        ("$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS", VIOLET),
        ("$2y$06$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy", VIOLET),
        ("{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD", VIOLET),
        ("{SSHA}oejEBAErvA53yxmnngBw/XR9yEa6V+od", NFC),
        (
            "$argon2id$v=19$m=256,t=2,p=1$YEtP6sX2EIWcOiJTQut2Uw$pen5kWauBOggcO2Y0K/sj353uNt+C7jxqRppc0maC0M",
            NFC,
        ),
        ("$argon2i$v=19$m=256,t=2,p=2$mtk6TskCVzPOjvNGDPmvpw$0TR8LvRitQSl6871W7D0QA", VIOLET),
        ("$scrypt$ln=10,r=8,p=2$4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA", VIOLET),
        ("$pbkdf2-sha256$1000$BGCMMcY4RyjlvNf6v/deKw$kEUzT5Eo2JA3QONvqkm5rZ.T3KyJJ9zx3rxImPTfedY", VIOLET),
        ("$5$rounds=1000$sNY4ZiUzu3pDqvlr$tJ7L5th0A9O/so38vn3BEGP2F3ijUxH.D3XhsYswCa4", NFC),
        ("bcrypt_sha256$$2b$04$xFGI4U5FrS2ojMyqaaocautF1eyiPCrHeccFtxUMD7nMzYFxd9u02", VIOLET),
        // Hashed in NFD by the other system.
        ("AQAAAAIAAAPoAAAAEBevifUDBBNwY8LfSPl4Q97weiIROPPdHatL2zTLynerzr4LyuqxynPEHo9ZZUlzxw==", NFD),
        (
            "$argon2id$v=19$m=256,t=2,p=1$282bUVymYhHPkZuInC0NAA$GgJDM1UPq6DX0cyVb2jisE+OvYQ1mibKV+K13kOrDPo",
            NFD,
        ),
        ("$P$65V8Xk9rEO6Vd/SRduirb4A0pXoZx00", NFD),
        ("$wp$2y$06$Aovo.vxJzvpjCl04auQpI.5ISrPYo5hCsNhIebpwg2EdMCj8bZC2q", NFD),
        ("{SSHA}FIy9s7DFBwijZH9Wk/giLC72ColWam1t", NFD),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("ada{n}@example.com");
        let made = create(&world, &email, hash).await;
        assert_eq!(made.status, 201, "{hash}: {}", made.body);
        assert!(!made.page.contains(hash) && !made.page.contains("hash"), "{}", made.page);
        // One that looks like ours is marked as not made by us.
        let stored = if hash.starts_with("$argon2") { format!("argon2{hash}") } else { hash.to_owned() };
        assert_eq!(hash_of(&world, &made).await, stored);

        for wrong in ["violet-Kettle-94", "passworter-93", ""] {
            assert_eq!(world.login(&email, wrong).await.code(), "invalid_credentials", "{hash}");
        }
        assert_eq!(hash_of(&world, &made).await, stored, "a wrong guess changes nothing");
        assert_eq!(world.login(&email, password).await.status, 200, "{hash}");
        assert_eq!(world.events("PasswordRehashed").await, n + 1, "{hash}");
        let ours = hash_of(&world, &made).await;
        assert!(ours.starts_with("$argon2id$"), "{ours}");

        // From now on NFC and NFD are the same password.
        let typed = if password == VIOLET { vec![VIOLET] } else { vec![NFC, NFD] };
        for form in typed {
            assert_eq!(world.login(&email, form).await.status, 200, "{hash} {form:?}");
        }
        assert_eq!(world.events("PasswordRehashed").await, n + 1, "{hash}");
    }
}

#[tokio::test]
async fn guesses_at_an_imported_hash_are_counted() {
    let world = World::start().await;
    create(&world, "ada@example.com", "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD").await;
    for n in 0..10 {
        assert_eq!(world.login("ada@example.com", &format!("guess {n}")).await.status, 401);
    }
    assert_eq!(world.login("ada@example.com", VIOLET).await.code(), "rate_limited");
    assert_eq!(world.events("PasswordRehashed").await, 0);
}

#[tokio::test]
async fn a_hash_that_cannot_be_verified_is_refused() {
    let world = World::start().await;
    let events = world.all_events().await;
    let costly = "AQAAAAIAIAABAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==";
    for (hash, code, told) in [
        ("", "invalid", "ASP.NET Core Identity"),
        ("{MD5}rL0Y20zC+Fzt72VPzMSk2A==", "invalid", "{SSHA512}"),
        ("$argon2id$v=19$m=4194304,t=1000,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", "invalid", "argon2"),
        (
            "$argon2id$v=19$m=4194304,t=1000,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "out_of_range",
            "import.max_hash_cost",
        ),
        ("$2y$06$short", "invalid", "bcrypt"),
        (
            "$2y$31$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy",
            "out_of_range",
            "import.max_hash_cost",
        ),
        (costly, "out_of_range", "2097153"),
    ] {
        let refused = create(&world, "ada@example.com", hash).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "validation_failed"), "{hash}");
        let error = &refused.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!("/password_hash"), &json!(code)), "{hash}");
        assert!(error["detail"].as_str().expect("text").contains(told), "{error}");
    }
    let both = json!({"email": "ada@example.com", "password": PASSWORD,
        "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD"});
    let refused = world.by_platform("POST", USERS, Some(both)).await;
    assert_eq!(refused.body["errors"][0]["pointer"], "/password_hash", "{}", refused.body);
    assert_eq!(world.all_events().await, events);
}

/// The password behind a hash cannot be judged, so permission to create users is not enough.
#[tokio::test]
async fn inv_v_only_a_full_admin_brings_a_hash() {
    let world = World::start().await;
    let body =
        |email: &str| json!({"email": email, "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD"});
    let key = world.api_key(&["users:read", "users:write"]).await;
    let refused = world.call("POST", USERS, Some(&key), Some(body("ada@example.com"))).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (403, "forbidden"), "{}", refused.body);
    let plain = json!({"email": "ada@example.com", "password": PASSWORD, "password_hash": null});
    let made = world.call("POST", USERS, Some(&key), Some(plain)).await;
    assert_eq!(made.status, 201, "{}", made.body);

    let admin = user_id(&world.register("admin@example.com").await).0.to_string();
    let token = world.make_admin("default", &admin, "admin@example.com").await;
    let made = world.call("POST", USERS, Some(&token), Some(body("grace@example.com"))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(world.login("grace@example.com", VIOLET).await.status, 200);
}

#[tokio::test]
async fn inv_n_an_imported_hash_lies_open_nowhere() {
    let world = World::start().await;
    let hash = "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD";
    create(&world, "ada@example.com", hash).await;
    world.login("ada@example.com", VIOLET).await;
    for event in world.journal.read_all(0, 1000).await.expect("reads") {
        let text = event.to_canonical_json(&LogOrigin::parse("http://localhost").expect("valid"));
        assert!(!text.contains("phUNY9SCQBZmysPjF") && !text.contains("SSHA"), "{text}");
    }
}
