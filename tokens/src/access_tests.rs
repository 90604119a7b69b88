use aws_lc_rs::hmac;
use domain::app::App;
use domain::signing_key::{KeyStatus, SigningKey};
use serde_json::{Map, json};

use super::*;
use crate::testing::{BASE, Signer};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

const NOW: i64 = 1_800_000_000;

fn app(id: &str, signers: &[&Signer]) -> App {
    let key = |signer: &&Signer| SigningKey {
        public: signer.public.clone(),
        status: KeyStatus::Current,
        published_at: None,
        signs_from: None,
        superseded_at: None,
    };
    let keys = signers.iter().map(key);
    App { id: AppId::parse(id).ok(), signing_keys: keys.collect(), ..App::default() }
}

fn claims() -> Value {
    json!({
        "iss": format!("{BASE}/v1/apps/acme"), "aud": "acme", "client_id": "acme",
        "sub": "0198a2b4-0000-7000-8000-000000000001", "sid": "0198a2b4-0000-7000-8000-000000000002",
        "exp": NOW + 60, "iat": NOW, "jti": "x", "roles": ["editor"], "email_verified": true,
    })
}

/// The object with some members changed; null removes one.
fn with(object: &Value, changes: Value) -> Value {
    let mut object = object.as_object().cloned().unwrap_or_default();
    let changes = if let Value::Object(changes) = changes { changes } else { Map::new() };
    for (name, value) in changes {
        if value.is_null() {
            object.remove(&name);
        } else {
            object.insert(name, value);
        }
    }
    Value::Object(object)
}

#[test]
fn takes_what_the_app_signed() {
    for alg in [TokenAlgorithm::Es256, TokenAlgorithm::EdDsa] {
        let signer = Signer::new(alg, "one");
        let (tokens, app) = (
            AccessTokens::new(PublicUrl::parse("https://auth.example/").expect("valid")),
            app("acme", &[&signer]),
        );
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            let token = signer.sign_as(&with(&signer.header(), json!({ "typ": typ })), &claims());
            let first = tokens.verify(&app, &token, at(NOW)).expect(typ);
            assert_eq!(serde_json::to_value(&*first).expect("JSON"), claims());
            assert_eq!(tokens.verify(&app, &token, at(NOW + 59)), Ok(first), "the second time is remembered");
            assert_eq!(
                tokens.verify(&app, &token, at(NOW + 60)),
                Err(InvalidToken::Time),
                "and checked again"
            );
        }
    }
}

#[test]
fn a_token_of_the_future_is_refused_beyond_the_leeway() {
    let signer = Signer::new(TokenAlgorithm::EdDsa, "one");
    let app = app("acme", &[&signer]);
    let made_at = |iat: i64| signer.sign(&with(&claims(), json!({"iat": iat, "exp": iat + 1_800})));
    let ahead = 400 * 86_400;
    for (leeway, iat, is_good) in [
        (60, NOW + 60, true),
        (60, NOW + 61, false),
        (60, NOW + ahead, false),
        (0, NOW, true),
        (0, NOW + 1, false),
        (60, i64::MAX - 2_000, false),
    ] {
        let tokens = AccessTokens::new(PublicUrl::parse(BASE).expect("valid")).with_leeway(leeway);
        let token = made_at(iat);
        let verified = tokens.verify(&app, &token, at(NOW));
        assert_eq!(
            verified.map(drop),
            if is_good { Ok(()) } else { Err(InvalidToken::Time) },
            "{leeway} {iat}"
        );
        // Even a cached one, if the clock was set back since.
        if iat < NOW + 2 * ahead {
            tokens.verify(&app, &token, at(iat)).expect("in its time");
            assert_eq!(tokens.verify(&app, &token, at(NOW)).is_ok(), is_good, "{leeway} {iat}");
        }
    }
}

#[test]
fn every_truncation_and_bit_flip_is_refused() {
    for alg in [TokenAlgorithm::Es256, TokenAlgorithm::EdDsa] {
        let signer = Signer::new(alg, "one");
        let (tokens, app) =
            (AccessTokens::new(PublicUrl::parse(BASE).expect("valid")), app("acme", &[&signer]));
        let token = signer.sign(&claims());
        // The genuine token is cached, so that too generous a look-up would show.
        tokens.verify(&app, &token, at(NOW)).expect("genuine");
        for end in 0..token.len() {
            assert!(tokens.verify(&app, &token[..end], at(NOW)).is_err(), "cut at {end}");
        }
        for bit in 0..token.len() * 8 {
            let mut bytes = token.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(tokens.verify(&app, &text, at(NOW)).is_err(), "bit {bit}");
            }
        }
        for more in ["A", "=", ".", " ", ".A"] {
            assert!(tokens.verify(&app, &format!("{token}{more}"), at(NOW)).is_err(), "{more:?}");
        }
    }
}

#[test]
fn forged_headers_are_refused() {
    let signer = Signer::new(TokenAlgorithm::Es256, "one");
    let thief = Signer::new(TokenAlgorithm::Es256, "one");
    let (tokens, app) = (AccessTokens::new(PublicUrl::parse(BASE).expect("valid")), app("acme", &[&signer]));
    let header = signer.header();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "ES384", "RS256", "PS256", "EdDSA"] {
        let header = with(&header, json!({ "alg": alg }));
        let message = format!("{}.{}", part(&header), part(&claims()));
        // Unsigned, and signed with every byte string of the public key that could be mistaken for a secret.
        let jwk = serde_json::to_string(&signer.public).expect("JSON");
        let x = signer.public.x.clone().unwrap_or_default();
        let raw = URL_SAFE_NO_PAD.decode(&x).expect("base64url");
        let point =
            [raw.clone(), URL_SAFE_NO_PAD.decode(signer.public.y.clone().unwrap_or_default()).expect("y")]
                .concat();
        assert!(tokens.verify(&app, &format!("{message}."), at(NOW)).is_err(), "{alg} unsigned");
        for secret in [jwk.as_bytes(), x.as_bytes(), &raw, &point, &[&[4], &point[..]].concat(), b""] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
            assert!(tokens.verify(&app, &format!("{message}.{signature}"), at(NOW)).is_err(), "{alg}");
        }
        assert!(
            tokens.verify(&app, &signer.sign_as(&header, &claims()), at(NOW)).is_err(),
            "{alg}, well signed"
        );
    }
    let refused =
        |token: &str, why: InvalidToken| assert_eq!(tokens.verify(&app, token, at(NOW)), Err(why), "{token}");
    for typ in ["JWT", "jwt", "id+jwt", "at", "at+jwt ", "application/application/at+jwt", "logout+jwt", ""] {
        refused(&signer.sign_as(&with(&header, json!({ "typ": typ })), &claims()), InvalidToken::Kind);
    }
    refused(&signer.sign_as(&with(&header, json!({ "typ": null })), &claims()), InvalidToken::Malformed);
    refused(&signer.sign_as(&with(&header, json!({ "kid": null })), &claims()), InvalidToken::Malformed);
    refused(
        &signer.sign_as(&with(&header, json!({ "crit": ["b64"], "b64": false })), &claims()),
        InvalidToken::Kind,
    );
    refused(&signer.sign_as(&with(&header, json!({ "crit": [] })), &claims()), InvalidToken::Kind);
    for kid in ["", "two", "../one", "' OR 1=1", "one\u{0}"] {
        refused(&signer.sign_as(&with(&header, json!({ "kid": kid })), &claims()), InvalidToken::Key);
    }
    // A key in the token itself is ignored, and does not harm a genuine token.
    let brought =
        json!({ "jwk": thief.public, "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x" });
    assert!(tokens.verify(&app, &thief.sign_as(&with(&header, brought), &claims()), at(NOW)).is_err());
    assert!(tokens.verify(&app, &thief.sign(&claims()), at(NOW)).is_err());
    let harmless = json!({ "jku": "https://evil.example/jwks" });
    assert!(tokens.verify(&app, &signer.sign_as(&with(&header, harmless), &claims()), at(NOW)).is_ok());
}

#[test]
fn wrong_claims_are_refused() {
    let signer = Signer::new(TokenAlgorithm::EdDsa, "one");
    let (tokens, app) = (AccessTokens::new(PublicUrl::parse(BASE).expect("valid")), app("acme", &[&signer]));
    for changes in [
        json!({ "iss": format!("{BASE}/v1/apps/other") }),
        json!({ "iss": format!("{BASE}/v1/apps/acme/") }),
        json!({ "iss": "https://evil.example/v1/apps/acme" }),
        json!({ "iss": [format!("{BASE}/v1/apps/acme")] }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": ["acme"] }),
        json!({ "aud": ["acme", "other"] }),
        json!({ "aud": null }),
        json!({ "client_id": "other" }),
        json!({ "client_id": null }),
        json!({ "exp": NOW }),
        json!({ "exp": NOW - 1 }),
        json!({ "exp": -1 }),
        json!({ "exp": (NOW + 60).to_string() }),
        json!({ "exp": 1e300 }),
        json!({ "exp": true }),
        json!({ "exp": [] }),
        json!({ "exp": null }),
        json!({ "nbf": NOW + 1 }),
        json!({ "nbf": "0" }),
        json!({ "nbf": {} }),
        json!({ "iat": "0" }),
        json!({ "iat": null }),
        json!({ "sub": "me" }),
        json!({ "sub": 1 }),
        json!({ "sub": null }),
        json!({ "sid": null }),
        json!({ "sid": "0198a2b4" }),
        json!({ "roles": "admin" }),
        json!({ "roles": ["no role"] }),
        json!({ "email_verified": "true" }),
    ] {
        let token = signer.sign(&with(&claims(), changes.clone()));
        assert!(tokens.verify(&app, &token, at(NOW)).is_err(), "{changes}");
    }
    let token = signer.sign(&with(&claims(), json!({ "nbf": NOW })));
    assert!(tokens.verify(&app, &token, at(NOW)).is_ok());
    assert_eq!(tokens.verify(&app, &token, at(NOW - 1)), Err(InvalidToken::Time));
}

#[test]
fn keys_of_other_apps_and_retired_keys_are_refused() {
    let (mine, theirs) =
        (Signer::new(TokenAlgorithm::Es256, "one"), Signer::new(TokenAlgorithm::Es256, "two"));
    let tokens = AccessTokens::new(PublicUrl::parse(BASE).expect("valid"));
    let mut acme = app("acme", &[&mine]);
    let other = app("other", &[&theirs]);
    assert_eq!(tokens.verify(&acme, &theirs.sign(&claims()), at(NOW)), Err(InvalidToken::Key));
    let genuine = mine.sign(&claims());
    tokens.verify(&acme, &genuine, at(NOW)).expect("genuine");
    assert_eq!(
        tokens.verify(&other, &genuine, at(NOW)),
        Err(InvalidToken::Key),
        "remembered for its app only"
    );
    acme.signing_keys[0].status = KeyStatus::Previous;
    tokens.verify(&acme, &genuine, at(NOW)).expect("still published");
    acme.signing_keys.clear();
    assert_eq!(tokens.verify(&acme, &genuine, at(NOW)), Err(InvalidToken::Key), "even when remembered");
    assert_eq!(tokens.verify(&App::default(), &genuine, at(NOW)), Err(InvalidToken::Key));
}

#[test]
fn a_huge_token_is_not_looked_at() {
    let signer = Signer::new(TokenAlgorithm::EdDsa, "one");
    let token = signer.sign(&with(&claims(), json!({ "jti": "x".repeat(10_000) })));
    let verified = AccessTokens::new(PublicUrl::parse(BASE).expect("valid")).verify(
        &app("acme", &[&signer]),
        &token,
        at(NOW),
    );
    assert_eq!(verified, Err(InvalidToken::Malformed));
}
