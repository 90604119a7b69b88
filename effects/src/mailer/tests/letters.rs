//! The appearance of mails, and their senders.

use super::*;

/// Settings from a time when the operator's list was longer, or did not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_not_listed_writes_in_nobodys_name_and_gets_the_answers() {
    let smtp = Smtp::start();
    for (branding, reply_to) in [
        (json!({"name": "=?utf-8?q?Bank?=", "sender": "service@bank.example"}), "service@bank.example"),
        (
            json!({"name": "=?utf-8?q?Bank?=", "sender": "service@bank.example", "reply_to": "help@acme.example"}),
            "help@acme.example",
        ),
    ] {
        let world = World::new(json!({ "branding": branding })).await;
        let mailer = world.mailer(&smtp.url());
        begun(&mailer).await;
        let id = world.ask_for("ada@example.com").await;
        world.until_sent(id).await;
        mailer.shutdown().await;
        let mails = by_id(&smtp);
        let mail = &mails[&format!("<{id}.magic_link@auth.example>")][0];
        assert_eq!(mail["from"], "no-reply@auth.example");
        let headers = &mail["headers"];
        assert_eq!(headers["reply-to"], reply_to);
        let from = headers["from"].as_str().expect("text");
        // As typed: a reader that decodes the header sees no other name.
        assert!(from.contains("<no-reply@auth.example>") && from.contains("=?utf-8?q?Bank?="), "{from}");
        assert_eq!(headers["subject"], "Log in to =?utf-8?q?Bank?=");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_looks_as_the_app_chose() {
    let smtp = Smtp::start();
    let world = World::new(json!({
        "locale": "de",
        "branding": {
            "name": "Müller & Söhne <script>alert(1)</script>", "colour": "#ffd400",
            "logo": "https://cdn.example/logo.png", "sender": "konto@mueller.example", "reply_to": "hilfe@mueller.example",
        },
        "links": { "email_change": "https://app.example/change?lang=de" },
    }))
    .await;
    let mailer = world.mailer(&smtp.url());
    begun(&mailer).await;
    let user_id = UserId(SystemClock.new_id());
    let at = SystemClock.now();
    let requested = EmailChangeRequested {
        user_id,
        generation: 3,
        session_id: SessionId(SystemClock.new_id()),
        delivery: SentBy::Platform,
        expires_at: at + SignedDuration::from_hours(24),
        at,
        personal: Personal {
            email: Some(email("new@example.com")),
            previous_email: Some(email("old@example.com")),
            ..Personal::default()
        },
    };
    let id = world.append(StreamId::user(user_id), UserEvent::EmailChangeRequested(requested)).await;
    world.until(id, |outcomes| outcomes.len() == 2).await;
    mailer.shutdown().await;
    let mails = by_id(&smtp);
    let change = &mails[&format!("<{id}.email_change@mueller.example>")][0];
    let notice = &mails[&format!("<{id}.email_change_notice@mueller.example>")][0];
    assert_eq!((&change["to"], &notice["to"]), (&json!(["new@example.com"]), &json!(["old@example.com"])));
    assert_eq!(
        (&change["from"], &change["hello"]),
        (&json!("konto@mueller.example"), &json!("auth.example"))
    );
    let headers = &change["headers"];
    assert_eq!(
        headers["subject"],
        "Bestätigen Sie Ihre neue E-Mail-Adresse für Müller & Söhne <script>alert(1)</script>"
    );
    assert_eq!(headers["auto-submitted"], "auto-generated");
    assert_eq!(headers["reply-to"], "hilfe@mueller.example");
    assert!(
        headers["from"].as_str().is_some_and(|from| from.contains("Müller") && from.contains("<konto@")),
        "{headers}"
    );
    let (text, html) = (change["text"].as_str().expect("text"), change["html"].as_str().expect("text"));
    let link = format!("https://app.example/change?lang=de&token={}", token_after(text, "&token="));
    assert!(text.contains(&link) && text.contains("24 Stunden"), "{text}");
    assert!(html.contains(&link.replace('&', "&#38;")) && html.contains("lang=\"de\""), "{html}");
    assert!(
        !html.contains("<script>") && html.contains("M\u{fc}ller &#38; S\u{f6}hne &#60;script&#62;"),
        "{html}"
    );
    assert!(html.contains("background-color: #ffd400") && html.contains("color: #000000"), "{html}");
    assert!(html.contains("src=\"https://cdn.example/logo.png\""), "{html}");
    assert!(text.contains("Müller & Söhne <script>"), "a text needs no escapes: {text}");
    let notice = notice.to_string();
    assert!(!notice.contains("token=") && !notice.contains("new@example.com"), "{notice}");
    for mail in mails.values() {
        assert_eq!(mail[0]["defects"], json!([]), "it is well-formed");
    }
}
