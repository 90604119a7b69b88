use cqrs_es::test::TestFramework;

use super::*;

type UserTest = TestFramework<User>;

pub(super) fn user_id() -> UserId {
    UserId(uuid::Uuid::from_u128(7))
}

pub(super) fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

pub(super) fn hash(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

pub(super) fn registered() -> UserEvent {
    let personal = Personal {
        email: Some(Email::parse("ada@example.com").expect("valid")),
        name: Some("Ada".to_owned()),
        password_hash: Some(hash("$argon2id$1")),
        ..Personal::default()
    };
    UserEvent::UserRegistered(UserRegistered {
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        at: at(),
        personal,
    })
}

pub(super) fn banned() -> UserEvent {
    UserEvent::UserBanned(UserBanned {
        user_id: user_id(),
        access_ended: true,
        at: at(),
        personal: Personal::default(),
    })
}

pub(super) fn granted(role: &str) -> UserEvent {
    UserEvent::RoleGranted(RoleGranted {
        user_id: user_id(),
        role: Role::parse(role).expect("valid"),
        access_ended: role == "admin",
        admin_role_changes: None,
        at: at(),
    })
}

#[tokio::test]
async fn registers_once() {
    let register = UserCommand::Register {
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        email: Email::parse("ada@example.com").expect("valid"),
        proof: None,
        password_hash: Some(hash("$argon2id$1")),
        profile: Profile { name: Some("Ada".to_owned()), ..Profile::default() },
        origin: Origin::default(),
        client: Client::default(),
        at: at(),
    };
    let test = || UserTest::with(());
    test()
        .given_no_previous_events()
        .when_async(register.clone())
        .await
        .then_expect_events(vec![registered()]);
    test().given(vec![registered()]).when_async(register).await.then_expect_error(UserError::Exists);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_makes_no_event() {
    let patch = ProfilePatch { name: Some(Some("Ada".to_owned())), phone: Some(None), avatar_url: None };
    let update = UserCommand::UpdateProfile { patch, at: at() };
    UserTest::with(()).given(vec![registered()]).when_async(update).await.then_expect_events(vec![]);
}

#[tokio::test]
async fn a_patch_sets_and_clears() {
    let patch = ProfilePatch { name: Some(None), phone: Some(Some("+44 1".to_owned())), avatar_url: None };
    let update = UserCommand::UpdateProfile { patch, at: at() };
    UserTest::with(()).given(vec![registered()]).when_async(update).await.then_expect_events(vec![
        UserEvent::ProfileUpdated(ProfileUpdated {
            user_id: user_id(),
            cleared: BTreeSet::from([ProfileField::Name]),
            at: at(),
            personal: Personal { phone: Some("+44 1".to_owned()), ..Personal::default() },
        }),
    ]);
}

#[tokio::test]
async fn bans_and_unbans_once() {
    let ban = UserCommand::Ban { reason: None, at: at() };
    let unban = UserCommand::Unban { at: at() };
    let unbanned = UserEvent::UserUnbanned(UserUnbanned { user_id: user_id(), at: at() });
    let test = || UserTest::with(());
    test().given(vec![registered()]).when_async(ban.clone()).await.then_expect_events(vec![banned()]);
    test().given(vec![registered(), banned()]).when_async(ban).await.then_expect_events(vec![]);
    test().given(vec![registered(), banned()]).when_async(unban).await.then_expect_events(vec![unbanned]);
}

#[tokio::test]
async fn roles_are_a_set_with_a_bound() {
    let grant = |role: &str| UserCommand::GrantRole {
        role: Role::parse(role).expect("valid"),
        promotes: None,
        at: at(),
    };
    let test = || UserTest::with(());
    test()
        .given(vec![registered()])
        .when_async(grant("editor"))
        .await
        .then_expect_events(vec![granted("editor")]);
    let once = vec![registered(), granted("editor")];
    test().given(once).when_async(grant("editor")).await.then_expect_events(vec![]);
    let mut many = vec![registered()];
    many.extend((0..MAX_ROLES).map(|n| granted(&format!("r{n}"))));
    test().given(many).when_async(grant("editor")).await.then_expect_error(UserError::TooManyRoles);
    let mut long = vec![registered()];
    long.extend((10..40).map(|n| granted(&format!("r{n}{}", "x".repeat(61)))));
    let long_role = "y".repeat(64);
    test()
        .given(long.clone())
        .when_async(grant(&long_role))
        .await
        .then_expect_events(vec![granted(&long_role)]);
    long.push(granted(&long_role));
    test()
        .given(long)
        .when_async(grant("seventeen-letters"))
        .await
        .then_expect_error(UserError::TooManyRoles);
}

#[tokio::test]
async fn a_rehash_of_an_old_password_comes_too_late() {
    let rehash = UserCommand::Rehash { old: hash("$argon2id$0"), new: hash("$argon2id$2"), at: at() };
    UserTest::with(()).given(vec![registered()]).when_async(rehash).await.then_expect_events(vec![]);
}

#[tokio::test]
async fn nobody_is_banned_before_they_are_there() {
    let ban = UserCommand::Ban { reason: None, at: at() };
    UserTest::with(()).given_no_previous_events().when_async(ban).await.then_expect_error(UserError::Absent);
}

#[test]
fn an_erased_person_leaves_a_user_without_address_or_password() {
    let UserEvent::UserRegistered(mut event) = registered() else { unreachable!() };
    event.personal = Personal::default();
    let mut user = User::default();
    user.apply(UserEvent::UserRegistered(event));
    assert_eq!((user.email, user.password_hash, user.name), (None, None, None));
}
