//! API keys of an organization: an app's programs take them for what the organization lets them do in the app.
//!
//! They belong to the organization. They outlive the membership of whoever made them, and end with the organization, by its one
//! event. In Watchword itself they open nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Acting, Organization, OrganizationError, OrganizationEvent, OrganizationKeyIssued,
    OrganizationKeyRevoked, Rank, RolePermission,
};
use crate::ids::{UserId, id};

id!(
    /// An API key of an organization.
    OrganizationKeyId
);

/// The most API keys of an organization that are neither revoked nor expired.
pub const MAX_KEYS: usize = 100;
/// The most permissions of one of them.
pub const MAX_KEY_PERMISSIONS: usize = 50;

/// An API key of an organization that is not revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationKey {
    /// Its name.
    pub name: String,
    /// What it allows in the app.
    pub permissions: BTreeSet<RolePermission>,
    /// The member who made it; absent if the app did.
    pub issued_by: Option<UserId>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub at: Timestamp,
}

/// A new API key of an organization.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct IssueKey {
    pub acting: Acting,
    pub key_id: OrganizationKeyId,
    pub name: String,
    pub permissions: BTreeSet<RolePermission>,
    pub expires_at: Option<Timestamp>,
    pub at: Timestamp,
}

impl Organization {
    /// The key of this id, if it is valid at this time.
    pub fn key(&self, id: OrganizationKeyId, at: Timestamp) -> Option<&OrganizationKey> {
        self.keys.get(&id).filter(|key| key.expires_at.is_none_or(|end| at < end))
    }

    pub(super) fn issue_key(&self, issue: IssueKey) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let IssueKey { acting, key_id, name, permissions, expires_at, at } = issue;
        self.require(acting, Rank::Admin)?;
        if permissions.is_empty() || permissions.len() > MAX_KEY_PERMISSIONS {
            return Err(OrganizationError::KeyPermissions);
        }
        // Asked here: an end that was in the future at first may be past when the request is repeated.
        if expires_at.is_some_and(|end| end <= at) {
            return Err(OrganizationError::EndsInThePast);
        }
        if self.keys.keys().filter(|id| self.key(**id, at).is_some()).count() >= MAX_KEYS {
            return Err(OrganizationError::TooManyKeys);
        }
        let issued_by = match acting {
            Acting::User(user_id) => Some(user_id),
            Acting::App => None,
        };
        let organization_id = self.id()?;
        let issued =
            OrganizationKeyIssued { organization_id, key_id, name, permissions, issued_by, expires_at, at };
        Ok(Some(OrganizationEvent::OrganizationKeyIssued(issued)))
    }

    pub(super) fn revoke_key(
        &self,
        acting: Acting,
        key_id: OrganizationKeyId,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        self.require(acting, Rank::Admin)?;
        self.key(key_id, at).ok_or(OrganizationError::NoSuchKey)?;
        let revoked = OrganizationKeyRevoked { organization_id: self.id()?, key_id, at };
        Ok(Some(OrganizationEvent::OrganizationKeyRevoked(revoked)))
    }

    pub(super) fn apply_key_issued(&mut self, event: OrganizationKeyIssued) {
        let OrganizationKeyIssued { key_id, name, permissions, issued_by, expires_at, at, .. } = event;
        self.keys.retain(|_, key| key.expires_at.is_none_or(|end| at < end));
        self.keys.insert(key_id, OrganizationKey { name, permissions, issued_by, expires_at, at });
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::AppId;
    use crate::draft::Draft;
    use crate::organization::{MemberAdded, OrganizationCommand, OrganizationCreated, OrganizationId, Slug};
    use crate::role::Role;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
    const OWNER: UserId = UserId(Uuid::from_u128(2));
    const ADMIN: UserId = UserId(Uuid::from_u128(3));
    const MEMBER: UserId = UserId(Uuid::from_u128(4));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn key_id(id: u128) -> OrganizationKeyId {
        OrganizationKeyId(Uuid::from_u128(id))
    }

    fn given() -> Draft<Organization> {
        let added = |user_id, role: &str| {
            let (organization_id, role) = (ORGANIZATION, Role::parse(role).expect("valid"));
            OrganizationEvent::MemberAdded(MemberAdded { organization_id, user_id, role, at: at(1) })
        };
        let created = OrganizationEvent::OrganizationCreated(OrganizationCreated {
            organization_id: ORGANIZATION,
            app_id: AppId::default_app(),
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            at: at(0),
        });
        Draft::given([created, added(OWNER, "owner"), added(ADMIN, "admin"), added(MEMBER, "member")])
    }

    fn issue(acting: Acting, id: u128, expires_at: Option<i64>) -> OrganizationCommand {
        let permissions = [RolePermission::parse("billing:read").expect("valid")].into();
        let (key_id, name, expires_at) = (key_id(id), "ci".to_owned(), expires_at.map(at));
        OrganizationCommand::IssueKey(IssueKey { acting, key_id, name, permissions, expires_at, at: at(10) })
    }

    fn revoke(acting: Acting, id: u128, second: i64) -> OrganizationCommand {
        OrganizationCommand::RevokeKey { acting, key_id: key_id(id), at: at(second) }
    }

    #[test]
    fn owners_and_admins_make_and_revoke_them() {
        let mut organization = given();
        for (acting, why) in [
            (Acting::User(MEMBER), OrganizationError::NotAllowed),
            (Acting::User(UserId(Uuid::nil())), OrganizationError::Absent),
        ] {
            assert_eq!(organization.execute(issue(acting, 7, None)), Err(why.clone()));
            assert_eq!(organization.execute(revoke(acting, 7, 11)), Err(why));
        }
        for (id, acting) in [(7, Acting::User(OWNER)), (8, Acting::User(ADMIN)), (9, Acting::App)] {
            organization.execute(issue(acting, id, None)).expect("is made");
        }
        let makers: Vec<_> = organization.keys.values().map(|key| key.issued_by).collect();
        assert_eq!(makers, [Some(OWNER), Some(ADMIN), None]);
        organization.execute(revoke(Acting::User(ADMIN), 7, 11)).expect("is revoked");
        assert_eq!(organization.key(key_id(7), at(12)), None);
        let again = organization.execute(revoke(Acting::User(ADMIN), 7, 12));
        assert_eq!(again, Err(OrganizationError::NoSuchKey));
    }

    #[test]
    fn they_end_at_their_time_and_with_the_organization_but_not_with_their_maker() {
        let mut organization = given();
        organization.execute(issue(Acting::User(ADMIN), 7, Some(20))).expect("is made");
        organization.execute(issue(Acting::User(ADMIN), 8, None)).expect("is made");
        assert!(organization.key(key_id(7), at(19)).is_some());
        assert!(organization.key(key_id(7), at(20)).is_none());
        let late = organization.execute(issue(Acting::App, 9, Some(10)));
        assert_eq!(late, Err(OrganizationError::EndsInThePast));
        let remove = OrganizationCommand::RemoveMember { acting: Acting::App, user_id: ADMIN, at: at(20) };
        organization.execute(remove).expect("is removed");
        assert!(organization.key(key_id(8), at(21)).is_some());
        organization
            .execute(OrganizationCommand::Delete { acting: Acting::App, at: at(22) })
            .expect("is deleted");
        assert!(organization.keys.is_empty());
        let gone = organization.execute(issue(Acting::App, 10, None));
        assert_eq!(gone, Err(OrganizationError::Absent));
    }

    #[test]
    fn there_are_not_too_many_and_each_allows_something() {
        let mut organization = given();
        for permissions in [0, MAX_KEY_PERMISSIONS + 1] {
            let names = (0..permissions).map(|n| RolePermission::parse(format!("p{n}")).expect("valid"));
            let issue = IssueKey {
                acting: Acting::App,
                key_id: key_id(1),
                name: "ci".to_owned(),
                permissions: names.collect(),
                expires_at: None,
                at: at(10),
            };
            let refused = organization.execute(OrganizationCommand::IssueKey(issue));
            assert_eq!(refused, Err(OrganizationError::KeyPermissions));
        }
        for id in 0..MAX_KEYS as u128 {
            organization.execute(issue(Acting::App, id, (id == 0).then_some(11))).expect("is made");
        }
        let refused = organization.execute(issue(Acting::App, 1000, None));
        assert_eq!(refused, Err(OrganizationError::TooManyKeys));
        organization.execute(revoke(Acting::App, 5, 10)).expect("is revoked");
        organization.execute(issue(Acting::App, 1000, None)).expect("is made");
    }
}
