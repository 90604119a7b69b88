//! What ends access also ends what would bring it back, and new rights never extend to what an account had earlier.

use super::tests::{at, banned, granted, hash, registered, user_id};
use super::*;
use crate::session::RevocationReason;
use crate::settings::SentBy;

fn later(seconds: i64) -> Timestamp {
    at() + jiff::SignedDuration::from_secs(seconds)
}

fn ada() -> Email {
    Email::parse("ada@example.com").expect("valid")
}

fn of(events: impl IntoIterator<Item = UserEvent>) -> User {
    let mut user = User::default();
    events.into_iter().for_each(|event| user.apply(event));
    user
}

fn run(user: &mut User, command: impl Into<UserCommand>) -> Result<Vec<UserEvent>, UserError> {
    let events = user.decide(command.into())?;
    events.iter().cloned().for_each(|event| user.apply(event));
    Ok(events)
}

fn verification(delivery: SentBy, full_admin: bool) -> MailboxCommand {
    MailboxCommand::RequestEmailVerification { delivery, full_admin, ttl: 100, at: at() }
}

fn reset(reason: ResetReason, delivery: SentBy, full_admin: bool) -> MailboxCommand {
    let client = Client::default();
    MailboxCommand::RequestPasswordReset { reason, delivery, full_admin, ttl: 100, client, at: at() }
}

fn set_password(generation: u32) -> MailboxCommand {
    let (password_hash, client) = (hash("$argon2id$new"), Client::default());
    MailboxCommand::ResetPassword { generation, password_hash, client, at: later(1) }
}

fn grant(role: &str) -> UserCommand {
    UserCommand::GrantRole {
        role: Role::parse(role).expect("valid"),
        promotes: (role == "admin").then_some(0),
        at: later(2),
    }
}

fn verify() -> MailboxCommand {
    MailboxCommand::VerifyEmail { generation: 1, at: later(1) }
}

/// Self-registered, and verified by mail.
fn verified() -> User {
    let mut user = of([registered()]);
    run(&mut user, verification(SentBy::Platform, false)).expect("asks");
    run(&mut user, verify()).expect("verifies");
    user
}

/// All commands that end access, and whether the password stays.
fn ends() -> Vec<(&'static str, UserCommand)> {
    let ban = UserCommand::Ban { reason: None, at: later(2) };
    let end = UserCommand::EndAccess { kept_session: None, reason: RevocationReason::User, at: later(2) };
    let session_id = SessionId(uuid::Uuid::from_u128(1));
    let (checked, new) = (hash("$argon2id$1"), hash("$argon2id$2"));
    let change = MailboxCommand::ChangePassword { checked, new, session_id, at: later(2) };
    vec![
        ("a ban", ban),
        ("the end of all sessions", end),
        ("a change of the password", change.into()),
        (
            "a reset",
            MailboxCommand::ResetPassword {
                generation: 1,
                password_hash: hash("$argon2id$2"),
                client: Client::default(),
                at: later(2),
            }
            .into(),
        ),
        ("the role admin", grant("admin")),
    ]
}

#[test]
fn what_ends_access_ends_what_would_bring_it_back() {
    for (what, end) in ends() {
        let mut user = verified();
        run(&mut user, reset(ResetReason::Forgotten, SentBy::Platform, false)).expect("asks");
        let change = MailboxCommand::RequestEmailChange {
            new_email: Email::parse("eve@example.com").expect("valid"),
            checked: hash("$argon2id$1"),
            session_id: SessionId(uuid::Uuid::from_u128(9)),
            delivery: SentBy::Platform,
            ttl: 100,
            client: Client::default(),
            at: at(),
        };
        run(&mut user, change).expect("asks");
        let before = user.access();
        run(&mut user, end).expect(what);
        assert_ne!(user.access().epoch, before.epoch, "{what} leaves links and codes");
        assert_eq!(user.access().ended_at, Some(later(2)), "{what}");
        if user.banned {
            run(&mut user, UserCommand::Unban { at: later(3) }).expect("unbans");
        }
        let confirm = MailboxCommand::ConfirmEmailChange { generation: 1, at: later(4) };
        assert_eq!(run(&mut user, confirm), Err(UserError::InvalidToken), "{what}: the change of address");
        let again = set_password(1);
        assert_eq!(run(&mut user, again), Err(UserError::InvalidToken), "{what}: the reset");
    }
}

#[test]
fn what_ends_access_ends_tokens_that_would_verify_the_address() {
    for (what, end) in ends() {
        let mut user = of([registered()]);
        run(&mut user, verification(SentBy::Platform, false)).expect("asks");
        // This token proves nothing about the mailbox, so the address stays unproven.
        run(&mut user, reset(ResetReason::Admin, SentBy::App, true)).expect("asks");
        match run(&mut user, end) {
            Err(UserError::EmailNotVerified) => continue,
            done => done.expect(what),
        };
        if user.banned {
            run(&mut user, UserCommand::Unban { at: later(3) }).expect("unbans");
        }
        assert_eq!(run(&mut user, verify()), Err(UserError::InvalidToken), "{what}");
    }
}

/// Events from before bans ended more than sessions keep their meaning: an upgrade logs no one out.
#[test]
fn old_bans_and_grants_mean_what_they_meant() {
    let UserEvent::UserBanned(ban) = banned() else { unreachable!() };
    let ban = UserEvent::UserBanned(UserBanned { access_ended: false, ..ban });
    let UserEvent::RoleGranted(grant) = granted("admin") else { unreachable!() };
    let grant = UserEvent::RoleGranted(RoleGranted { access_ended: false, ..grant });
    let unban = UserEvent::UserUnbanned(UserUnbanned { user_id: user_id(), at: at() });
    let user = of([registered(), ban, unban, grant]);
    assert_eq!(user.access(), Access::default());
    assert_eq!(user.password_hash, Some(hash("$argon2id$1")));
}

#[test]
fn an_unproven_address_becomes_no_admin() {
    let mut user = of([registered()]);
    assert_eq!(run(&mut user, grant("admin")), Err(UserError::EmailNotVerified));
    assert!(run(&mut user, grant("editor")).is_ok());
    run(&mut user, verification(SentBy::Platform, false)).expect("asks");
    assert_eq!(run(&mut user, grant("admin")), Err(UserError::EmailNotVerified));
    run(&mut user, verify()).expect("verifies");
    assert!(run(&mut user, grant("admin")).is_ok() && user.promotions.contains_key(&Role::admin()));
}

#[test]
fn an_admin_keeps_a_password_only_if_nobody_else_can_have_set_it() {
    let UserEvent::UserRegistered(made) = registered() else { unreachable!() };
    let by_admin =
        UserEvent::UserRegistered(UserRegistered { method: RegistrationMethod::Admin, ..made.clone() });
    let by_mail = (ResetReason::Forgotten, SentBy::Platform, false);
    let by_app = (ResetReason::Forgotten, SentBy::App, false);
    let by_limited_admin = (ResetReason::Admin, SentBy::App, false);
    let by_full_admin = (ResetReason::Admin, SentBy::App, true);
    for (what, made, verified_by, resets, stays) in [
        ("the person's own", registered(), (SentBy::Platform, false), vec![], true),
        ("an admin's", by_admin.clone(), (SentBy::Platform, false), vec![], false),
        ("one whose proof a key had", registered(), (SentBy::App, false), vec![], false),
        ("one whose proof a full admin had", registered(), (SentBy::App, true), vec![], true),
        ("an admin's, reset by mail", by_admin, (SentBy::Platform, false), vec![by_mail], true),
        ("one reset by a key", registered(), (SentBy::Platform, false), vec![by_app], false),
        ("one reset by users:write", registered(), (SentBy::Platform, false), vec![by_limited_admin], false),
        ("one reset by a full admin", registered(), (SentBy::Platform, false), vec![by_full_admin], true),
        (
            "one of two tokens",
            registered(),
            (SentBy::Platform, false),
            vec![by_limited_admin, by_mail],
            false,
        ),
    ] {
        let mut user = of([made]);
        run(&mut user, verification(verified_by.0, verified_by.1)).expect("asks");
        run(&mut user, verify()).expect("verifies");
        let asked = u32::try_from(resets.len()).expect("few");
        for (reason, delivery, full_admin) in resets {
            run(&mut user, reset(reason, delivery, full_admin)).expect("asks");
        }
        if asked > 0 {
            run(&mut user, set_password(asked)).expect("resets");
        }
        let checked = user.password_hash.clone().expect("there is one");
        let session_id = SessionId(uuid::Uuid::from_u128(1));
        let change =
            MailboxCommand::ChangePassword { checked, new: hash("$argon2id$9"), session_id, at: later(1) };
        let mut changed = user.clone();
        run(&mut changed, change).expect("changes");
        for mut user in [user, changed] {
            run(&mut user, grant("editor")).expect("grants");
            assert!(user.password_hash.is_some(), "{what}: another role changes nothing");
            run(&mut user, grant("admin")).expect("grants");
            assert_eq!(user.password_hash.is_some(), stays, "{what}");
        }
    }
}

#[test]
fn a_takeover_by_the_owner_of_the_mailbox_clears_what_a_squatter_wrote() {
    let proof = MailboxCommand::ProveEmail { email: ada(), proof: MailboxProof::MagicLink, at: at() };
    let mut by_link = of([registered()]);
    run(&mut by_link, proof.clone()).expect("proves");
    assert_eq!((by_link.name.clone(), by_link.password_hash.clone()), (None, None));
    let mut by_reset = of([registered()]);
    run(&mut by_reset, reset(ResetReason::Forgotten, SentBy::Platform, false)).expect("asks");
    run(&mut by_reset, set_password(1)).expect("resets");
    assert!(by_reset.email_verified && by_reset.name.is_none());

    assert_eq!(verified().name.as_deref(), Some("Ada"), "the person who confirmed the registration wrote it");
    let mut known = verified();
    run(&mut known, proof.clone()).expect("nothing new");
    run(&mut known, reset(ResetReason::Forgotten, SentBy::Platform, false)).expect("asks");
    run(&mut known, set_password(1)).expect("resets");
    assert_eq!(known.name.as_deref(), Some("Ada"), "no one else has been in the account");
    let UserEvent::UserRegistered(made) = registered() else { unreachable!() };
    let method = RegistrationMethod::Admin;
    let mut by_admin = of([UserEvent::UserRegistered(UserRegistered { method, ..made })]);
    run(&mut by_admin, proof).expect("proves");
    assert_eq!(by_admin.name.as_deref(), Some("Ada"), "an admin's profile does not come from a squatter");
}

#[test]
fn who_disowns_an_unproven_account_ends_it_for_good() {
    let disown = |generation| MailboxCommand::Disown { generation, at: later(1) };
    let mut user = of([registered()]);
    assert_eq!(run(&mut user, disown(1)), Err(UserError::InvalidToken));
    run(&mut user, verification(SentBy::Platform, false)).expect("asks");
    assert_eq!(run(&mut user, disown(2)), Err(UserError::InvalidToken));
    assert!(run(&mut verified(), disown(1)).is_err(), "a proven account has an owner");

    run(&mut user, grant("editor")).expect("grants");
    let erased = run(&mut user, disown(1)).expect("erases");
    let reason = ErasureReason::Disowned;
    assert_eq!(erased, [UserEvent::UserErased(UserErased { user_id: user_id(), reason, at: later(1) })]);
    assert_eq!((user.id, user.erased, user.is_active()), (Some(user_id()), true, false));
    assert_eq!((&user.email, &user.name, &user.password_hash), (&None, &None, &None));
    assert!(user.roles.is_empty() && !user.is_of(&AppId::default_app()));
    for command in [
        disown(1).into(),
        verify().into(),
        grant("editor"),
        UserCommand::Ban { reason: None, at: at() },
        UserCommand::EndAccess { kept_session: None, reason: RevocationReason::User, at: at() },
        reset(ResetReason::Admin, SentBy::App, true).into(),
    ] {
        assert_eq!(run(&mut user, command), Err(UserError::Absent));
    }
}

#[test]
fn a_used_token_tells_that_its_address_is_verified_until_the_address_is_another() {
    let mut user = of([registered()]);
    for _ in 0..2 {
        run(&mut user, verification(SentBy::Platform, false)).expect("asks");
    }
    run(&mut user, verify()).expect("verifies");
    let redeem =
        |user: &mut User, generation| run(user, MailboxCommand::VerifyEmail { generation, at: later(500) });
    for generation in [1, 2] {
        assert_eq!(redeem(&mut user, generation), Err(UserError::AlreadyVerified));
    }
    for generation in [0, 3] {
        assert_eq!(redeem(&mut user, generation), Err(UserError::InvalidToken));
    }
    user.apply(UserEvent::EmailChanged(EmailChanged {
        user_id: user_id(),
        session_id: SessionId(uuid::Uuid::from_u128(1)),
        at: at(),
        personal: Personal { email: Some(ada()), ..Personal::default() },
    }));
    assert_eq!(redeem(&mut user, 1), Err(UserError::InvalidToken));
}
