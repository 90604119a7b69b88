use super::*;

fn limits(requests: u32) -> RateLimits {
    let rate = Rate {
        requests: NonZeroU32::new(requests).expect("not zero"),
        seconds: NonZeroU32::new(60).expect("not zero"),
    };
    RateLimits::new(&RateSettings { credentials: rate, ..RateSettings::default() })
}

fn from(limits: &RateLimits, address: &str) -> bool {
    limits.check(RateClass::Credentials, Some(address.parse().expect("an address"))).is_ok()
}

#[test]
fn a_client_is_an_address_or_a_64() {
    let limits = limits(2);
    assert!(from(&limits, "192.0.2.1"));
    assert!(from(&limits, "::ffff:192.0.2.1"));
    assert!(!from(&limits, "192.0.2.1"));
    assert!(from(&limits, "192.0.2.2"));
    assert!(from(&limits, "2001:db8::1"));
    assert!(from(&limits, "2001:db8::2:0:0:2"));
    assert!(!from(&limits, "2001:db8::3"));
    assert!(from(&limits, "2001:db8:0:1::3"));
}

#[test]
fn says_how_long_to_wait() {
    let limits = limits(1);
    let first = limits.check(RateClass::Credentials, None).expect("the first goes").expect("limited");
    assert_eq!((first.remaining, first.reset), (0, 60));
    let second = limits.check(RateClass::Credentials, None).expect_err("the second does not");
    assert!((59..=60).contains(&second.reset()), "{second:?}");
    let mut headers = HeaderMap::new();
    first.describe(&mut headers);
    assert_eq!(headers[RATELIMIT_POLICY], "\"credentials\";q=1;w=60");
    assert_eq!(headers[RATELIMIT], "\"credentials\";r=0;t=60");
}

fn mailbox_of(app: &str, email: &str) -> (AppId, Email) {
    (AppId::parse(app).expect("valid"), Email::parse(email).expect("valid"))
}

#[test]
fn requests_for_mails_are_limited_by_who_asks_for_which_mailbox_and_what_for() {
    let limits = RateLimits::new(&RateSettings::default());
    let ask = |app: &str, email: &str, purpose, asker| {
        let (app, email) = mailbox_of(app, email);
        limits.check_mailbox(&app, &email, purpose, asker).is_ok()
    };
    let reset = MailPurpose::PasswordReset;
    let client = |text: &str| Asker::Address(Some(text.parse().expect("an address")));
    let stranger = client("192.0.2.1");
    assert!((0..5).all(|_| ask("acme", "ada@example.com", reset, stranger)));
    assert!(!ask("acme", "ADA@example.com", reset, stranger), "it is the same mailbox");
    assert!(!ask("acme", "ada+shop@example.com", reset, stranger), "and so is this");
    assert!(
        ask("acme", "bob@example.com", reset, stranger) && ask("other", "ada@example.com", reset, stranger)
    );
    assert!(ask("acme", "ada@example.com", MailPurpose::MagicLink, stranger), "another purpose");
    let id = uuid::Uuid::from_u128(7);
    let others = [client("192.0.2.2"), Asker::Device(DeviceId(id)), Asker::Server(ApiKeyId(id))];
    for other in others {
        assert!((0..5).all(|_| ask("acme", "ada@example.com", reset, other)), "{other:?}");
        assert!(!ask("acme", "ada@example.com", reset, other), "{other:?}");
    }
}

#[test]
fn inv_w_a_mailbox_is_spent_by_mails_and_has_a_reserve_for_its_owner() {
    let limits = RateLimits::new(&RateSettings::default());
    let (app, email) = mailbox_of("acme", "ada@example.com");
    let send = |purpose, is_known| limits.spend_mail(&app, &email, purpose, is_known);
    let verify = MailPurpose::EmailVerification;
    for _ in 0..100 {
        let spent = send(verify, false).expect("nothing was sent so far");
        limits.not_sent(spent);
    }
    assert!((0..8).all(|_| send(verify, false).is_ok()));
    assert!(send(verify, false).is_err());
    assert!((0..3).all(|_| send(verify, true).is_ok()), "the reserve");
    assert!(send(verify, true).is_err());
    assert!(send(MailPurpose::PasswordReset, false).is_ok(), "another purpose");
}

#[test]
fn a_person_is_limited_by_the_server_that_logs_them_in() {
    let limits = RateLimits::new(&RateSettings::default());
    let (app, _) = mailbox_of("acme", "ada@example.com");
    let server = Asker::Server(ApiKeyId(uuid::Uuid::from_u128(1)));
    let login = |name: &str| limits.check_person(server, &app, name).is_ok();
    assert!((0..30).all(|_| login("ada@example.com")));
    assert!(!login("ada@example.com") && login("bob@example.com"));
}

#[test]
fn can_be_switched_off() {
    let limits = RateLimits::new(&RateSettings { enabled: false, ..RateSettings::default() });
    assert!((0..10_000).all(|_| limits.check(RateClass::Credentials, None) == Ok(None)));
}
