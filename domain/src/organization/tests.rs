use uuid::Uuid;

use super::*;
use crate::claims::ClaimChange;
use crate::draft::Draft;

pub(crate) const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(20));
const ADA: UserId = UserId(Uuid::from_u128(1));
const BEA: UserId = UserId(Uuid::from_u128(2));
const CLEO: UserId = UserId(Uuid::from_u128(3));
const EVE: UserId = UserId(Uuid::from_u128(4));

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn role(text: &str) -> Role {
    Role::parse(text).expect("valid")
}

fn slug(text: &str) -> Slug {
    Slug::parse(text).expect("valid")
}

fn claimed(text: &str) -> Claimed {
    Claimed::Slug { app_id: AppId::default_app(), slug: slug(text) }
}

fn created() -> OrganizationEvent {
    OrganizationEvent::OrganizationCreated(OrganizationCreated {
        organization_id: ORGANIZATION,
        app_id: AppId::default_app(),
        name: "Engines".to_owned(),
        slug: slug("engines"),
        at: at(0),
    })
}

fn added(user_id: UserId, name: &str) -> OrganizationEvent {
    let (organization_id, role) = (ORGANIZATION, role(name));
    OrganizationEvent::MemberAdded(MemberAdded { organization_id, user_id, role, at: at(1) })
}

/// Ada is its owner, Bea an admin, Cleo a member, and Eve a stranger.
fn organization() -> Draft<Organization> {
    Draft::given([created(), added(ADA, "owner"), added(BEA, "admin"), added(CLEO, "member")])
}

fn change(acting: UserId, user_id: UserId, name: &str) -> OrganizationCommand {
    OrganizationCommand::ChangeRole {
        acting: Acting::User(acting),
        user_id,
        role: role(name),
        is_template: false,
        at: at(9),
    }
}

fn remove(acting: UserId, user_id: UserId) -> OrganizationCommand {
    OrganizationCommand::RemoveMember { acting: Acting::User(acting), user_id, at: at(9) }
}

fn add(acting: Acting, name: &str) -> OrganizationCommand {
    OrganizationCommand::AddMember { acting, user_id: EVE, role: role(name), is_template: false, at: at(9) }
}

fn delete(acting: UserId) -> OrganizationCommand {
    OrganizationCommand::Delete { acting: Acting::User(acting), at: at(9) }
}

fn rename(acting: UserId, name: Option<&str>, new: Option<&str>) -> OrganizationCommand {
    let (name, slug) = (name.map(str::to_owned), new.map(slug));
    OrganizationCommand::Rename { acting: Acting::User(acting), name, slug, at: at(9) }
}

#[test]
fn inv_h_a_slug_is_taken_with_the_name_and_given_back_with_it() {
    let mut made = Draft::<Organization>::new();
    let create = OrganizationCommand::Create {
        organization_id: ORGANIZATION,
        app_id: AppId::default_app(),
        name: "Engines".to_owned(),
        slug: slug("engines"),
        at: at(0),
    };
    made.execute(create.clone()).expect("is created");
    assert_eq!(made.claims(), [ClaimChange::Take(claimed("engines"))]);
    assert_eq!(made.execute(create), Err(OrganizationError::Exists));

    let mut renamed = organization();
    renamed.execute(rename(BEA, Some("Looms"), None)).expect("is renamed");
    assert_eq!(renamed.claims(), [], "the slug is the same");
    renamed.execute(rename(BEA, None, Some("looms"))).expect("is renamed");
    let passed = [ClaimChange::Release(claimed("engines")), ClaimChange::Take(claimed("looms"))];
    assert_eq!(renamed.claims(), passed);
    renamed.execute(rename(BEA, Some("Looms"), Some("looms"))).expect("changes nothing");
    assert_eq!(renamed.decided(), ["OrganizationRenamed"; 2]);
    renamed.execute(delete(ADA)).expect("is deleted");
    assert_eq!(renamed.claims().last(), Some(&ClaimChange::Release(claimed("looms"))));
}

#[test]
fn nobody_acts_on_whoever_ranks_above_them_or_gives_more_than_they_have() {
    use OrganizationError::{AboveOneself, Absent, NoSuchMember, NotAllowed};
    for (command, refusal) in [
        (change(BEA, BEA, "owner"), AboveOneself),
        (change(BEA, CLEO, "owner"), AboveOneself),
        (change(BEA, ADA, "member"), AboveOneself),
        (remove(BEA, ADA), AboveOneself),
        (add(Acting::User(BEA), "owner"), AboveOneself),
        (change(CLEO, CLEO, "admin"), NotAllowed),
        (change(CLEO, BEA, "member"), NotAllowed),
        (remove(CLEO, BEA), NotAllowed),
        (add(Acting::User(CLEO), "member"), NotAllowed),
        (rename(CLEO, Some("Looms"), None), NotAllowed),
        (delete(CLEO), NotAllowed),
        (delete(BEA), NotAllowed),
        (change(EVE, EVE, "member"), Absent),
        (remove(EVE, CLEO), Absent),
        (remove(EVE, EVE), Absent),
        (rename(EVE, Some("Looms"), None), Absent),
        (delete(EVE), Absent),
        (change(ADA, EVE, "member"), NoSuchMember),
        (remove(ADA, EVE), NoSuchMember),
    ] {
        let mut organization = organization();
        assert_eq!(organization.execute(command.clone()), Err(refusal), "{command:?}");
        assert!(organization.events().is_empty());
    }
}

#[test]
fn each_rank_does_what_is_its_own() {
    for (command, event) in [
        (change(ADA, CLEO, "owner"), Some("MemberRoleChanged")),
        (change(BEA, CLEO, "admin"), Some("MemberRoleChanged")),
        (change(BEA, BEA, "member"), Some("MemberRoleChanged")),
        (change(BEA, CLEO, "member"), None),
        (remove(ADA, BEA), Some("MemberRemoved")),
        (remove(BEA, CLEO), Some("MemberRemoved")),
        (remove(CLEO, CLEO), Some("MemberRemoved")),
        (add(Acting::User(BEA), "admin"), Some("MemberAdded")),
        (add(Acting::App, "owner"), Some("MemberAdded")),
        (rename(BEA, Some("Looms"), None), Some("OrganizationRenamed")),
        (delete(ADA), Some("OrganizationDeleted")),
    ] {
        let mut organization = organization();
        organization.execute(command.clone()).expect("is allowed");
        assert_eq!(organization.decided(), event.into_iter().collect::<Vec<_>>(), "{command:?}");
    }
    let mut organization = organization();
    let refused = organization.execute(add(Acting::App, "boss"));
    assert_eq!(refused, Err(OrganizationError::NoSuchRole));
    assert_eq!(organization.execute(add(Acting::App, "Owner")), Err(OrganizationError::NoSuchRole));
}

#[test]
fn the_last_owner_stays() {
    let mut organization = organization();
    assert_eq!(organization.execute(change(ADA, ADA, "admin")), Err(OrganizationError::LastOwner));
    assert_eq!(organization.execute(remove(ADA, ADA)), Err(OrganizationError::LastOwner));
    let by_app = OrganizationCommand::RemoveMember { acting: Acting::App, user_id: ADA, at: at(9) };
    assert_eq!(organization.execute(by_app), Err(OrganizationError::LastOwner));

    organization.execute(change(ADA, BEA, "owner")).expect("there are two");
    organization.execute(remove(BEA, ADA)).expect("one remains");
    assert_eq!(organization.execute(remove(BEA, BEA)), Err(OrganizationError::LastOwner));
    assert_eq!(organization.role_of(ADA), None);

    // Whoever was erased leaves nothing behind, even here.
    let erased = OrganizationCommand::RemoveErased { user_id: BEA, at: at(9) };
    organization.execute(erased.clone()).expect("is removed");
    organization.execute(erased).expect("changes nothing");
    assert_eq!(organization.decided().len(), 3);
}

#[test]
fn a_deleted_organization_is_nobodys() {
    let mut organization = organization();
    organization.execute(delete(ADA)).expect("is deleted");
    assert!(!organization.is_of(&AppId::default_app()) && organization.members.is_empty());
    for command in [delete(ADA), rename(ADA, Some("Looms"), None), add(Acting::App, "owner")] {
        assert_eq!(organization.execute(command), Err(OrganizationError::Absent));
    }
}
