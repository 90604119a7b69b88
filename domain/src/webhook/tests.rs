//! Given, when, then.

use cqrs_es::test::TestFramework;
use uuid::Uuid;

use super::*;
use crate::claims::{ClaimChange, Claiming};

type Webhooks = TestFramework<Webhook>;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn id() -> WebhookId {
    WebhookId(Uuid::from_u128(1))
}

fn app() -> AppId {
    AppId::parse("acme").expect("valid")
}

fn settings() -> WebhookSettings {
    WebhookSettings {
        url: WebhookUrl::parse("https://hooks.example/in").expect("valid"),
        events: [EventFilter::parse("user.*").expect("valid")].into(),
        include_personal: false,
        description: None,
        enabled: true,
    }
}

fn created() -> WebhookEvent {
    let WebhookSettings { url, events, include_personal, description, enabled } = settings();
    WebhookEvent::WebhookCreated(WebhookCreated {
        webhook_id: id(),
        app_id: app(),
        url,
        events,
        include_personal,
        description,
        enabled,
        at: at(0),
    })
}

fn disabled() -> WebhookEvent {
    WebhookEvent::WebhookDisabled(WebhookDisabled { webhook_id: id(), failing_since: at(1), at: at(9) })
}

fn deleted() -> WebhookEvent {
    WebhookEvent::WebhookDeleted(WebhookDeleted { webhook_id: id(), at: at(9) })
}

fn create() -> WebhookCommand {
    WebhookCommand::Create { webhook_id: id(), app_id: app(), settings: settings(), at: at(0) }
}

fn folded(events: impl IntoIterator<Item = WebhookEvent>) -> Webhook {
    let mut webhook = Webhook::default();
    events.into_iter().for_each(|event| webhook.apply(event));
    webhook
}

#[tokio::test]
async fn it_is_created_once_and_deleted_for_good() {
    Webhooks::with(())
        .given_no_previous_events()
        .when_async(create())
        .await
        .then_expect_events(vec![created()]);
    let again = Webhooks::with(()).given(vec![created()]).when_async(create()).await;
    again.then_expect_error(WebhookError::Exists);
    let delete = WebhookCommand::Delete { at: at(9) };
    let gone = Webhooks::with(()).given(vec![created()]).when_async(delete.clone()).await;
    gone.then_expect_events(vec![deleted()]);
    for command in [delete, WebhookCommand::Change { settings: settings(), at: at(10) }] {
        let given = Webhooks::with(()).given(vec![created(), deleted()]);
        given.when_async(command).await.then_expect_error(WebhookError::Absent);
    }
}

#[tokio::test]
async fn one_that_fails_for_days_is_disabled_until_somebody_enables_it() {
    let disable = WebhookCommand::Disable { failing_since: at(1), at: at(9) };
    let given = Webhooks::with(()).given(vec![created()]);
    given.when_async(disable.clone()).await.then_expect_events(vec![disabled()]);
    let given = Webhooks::with(()).given(vec![created(), disabled()]);
    given.when_async(disable).await.then_expect_events(vec![]);
    let replay = WebhookCommand::Replay { from_position: 7, at: at(10) };
    let given = Webhooks::with(()).given(vec![created(), disabled()]);
    given.when_async(replay).await.then_expect_error(WebhookError::Disabled);
    let now = folded([created(), disabled()]);
    assert_eq!(now.failing_since, Some(at(1)));
    assert!(!now.settings.expect("there").enabled);
    let WebhookSettings { url, events, include_personal, description, enabled } = settings();
    let enabled = WebhookEvent::WebhookChanged(WebhookChanged {
        webhook_id: id(),
        url,
        events,
        include_personal,
        description,
        enabled,
        at: at(10),
    });
    let now = folded([created(), disabled(), enabled]);
    assert_eq!((now.failing_since, now.settings), (None, Some(settings())));
}

#[tokio::test]
async fn a_change_to_the_same_is_none() {
    let change = WebhookCommand::Change { settings: settings(), at: at(5) };
    let given = Webhooks::with(()).given(vec![created()]);
    given.when_async(change).await.then_expect_events(vec![]);
}

#[test]
fn it_is_listed_until_it_is_deleted() {
    let claimed = Claimed::Webhook { app_id: app(), webhook_id: id() };
    assert_eq!(created().claims(&Holding::default()), [ClaimChange::Take(claimed.clone())]);
    let held = folded([created()]).held();
    assert_eq!(deleted().claims(&held), [ClaimChange::Release(claimed)]);
    assert!(folded([created(), deleted()]).held().is_empty());
}

#[test]
fn filters_match_all_an_aggregate_or_a_name() {
    let filter = |text: &str| EventFilter::parse(text).expect("valid");
    assert!(filter("*").matches("user", "UserBanned") && filter("user.*").matches("user", "UserBanned"));
    assert!(filter("UserBanned").matches("user", "UserBanned"));
    assert!(!filter("user.*").matches("session", "SessionStarted"));
    assert!(
        !filter("UserBanned").matches("user", "UserUnbanned")
            && !filter("user").matches("user", "UserBanned")
    );
    assert!(filter("user.*").is_known() && filter("SessionStarted").is_known() && filter("*").is_known());
    assert!(!filter("users.*").is_known() && !filter("userbanned").is_known());
    for text in
        ["", "**", "user.", "*.*", ".*", "user.*.*", "User Banned", "user.UserBanned", " *", "\u{e9}.*"]
    {
        assert!(EventFilter::parse(text).is_err(), "{text:?}");
    }
    let all = WebhookSettings { events: [filter("*"), filter("delivery.*")].into(), ..settings() };
    assert!(all.want("delivery", "MailSent"));
    assert!(!all.want("delivery", "WebhookDelivered") && !all.want("delivery", "WebhookFailed"));
}

#[test]
fn urls_are_what_they_look_like() {
    for url in [
        "https://hooks.example/in",
        "https://hooks.example:8443/in?a=b",
        "http://10.0.0.7/in",
        "https://[2001:db8::1]/",
        "https://xn--bcher-kva.example/",
    ] {
        assert_eq!(WebhookUrl::parse(url).expect(url).as_str(), url);
    }
    for url in [
        "",
        "hooks.example/in",
        "//hooks.example/in",
        "ftp://hooks.example/in",
        "file:///etc/passwd",
        "https://hooks.example",
        "https://hooks.example:443/in",
        "https://user@hooks.example/in",
        "https://user:secret@hooks.example/in",
        "https://hooks.example/in#part",
        "https://hooks.example/a/../in",
        "https://hooks.example./in",
        "https://HOOKS.example/in",
        "https://hooks.example\\@10.0.0.7/in",
        "https://hooks.example/\nin",
        "https://b\u{fc}cher.example/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
    ] {
        assert!(WebhookUrl::parse(url).is_err(), "{url:?}");
    }
}
