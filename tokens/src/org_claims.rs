//! What an access token says about its user's organizations.
//!
//! A token travels with every request, so the organizations take a bounded part of it. Where they do not fit, the token says
//! that they were left out, and never names some of them: to whoever reads it, one that is missing would be one that the user
//! is no member of.

use std::collections::BTreeMap;

use domain::organization::{RolePermission, Slug};
use domain::{OrganizationId, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most bytes of JSON that organizations take in a token.
pub const MAX_ORGS: usize = 4096;
/// The same in cookie mode, where browsers drop a cookie of more than 4096 bytes.
pub const MAX_ORGS_IN_COOKIE: usize = 512;
/// The least bytes that one takes: its id, a slug of one letter, a role of one letter, no permissions.
const SMALLEST: usize =
    r#""018f0000-0000-7000-8000-000000000000":{"slug":"a","role":"a","permissions":[]},"#.len();

/// What a user is in one organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgClaim {
    /// Its name in URLs.
    pub slug: Slug,
    /// The user's role in it.
    pub role: Role,
    /// What the role allows.
    pub permissions: Vec<RolePermission>,
}

/// The organization that a session acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveOrg {
    /// Its id.
    pub id: OrganizationId,
    /// The user's role in it.
    pub role: Role,
    /// What the role allows; absent where it does not fit.
    pub permissions: Option<Vec<RolePermission>>,
}

/// A user's organizations, as far as they fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgClaims {
    /// All of them, or none if they do not fit.
    orgs: Option<BTreeMap<OrganizationId, OrgClaim>>,
    active: Option<ActiveOrg>,
    /// How many bytes they may still take.
    room: usize,
}

impl OrgClaims {
    /// None yet, and so many bytes to fill.
    pub fn within(bytes: usize) -> Self {
        // Two braces.
        Self { orgs: Some(BTreeMap::new()), active: None, room: bytes.saturating_sub(2) }
    }

    /// Whether so many organizations cannot fit, whatever they are: then none of them has to be read.
    pub fn are_too_many(&self, count: usize) -> bool {
        // The last one has no comma.
        (count * SMALLEST).saturating_sub(1) > self.room
    }

    /// Whether more can be added.
    pub fn have_room(&self) -> bool {
        self.orgs.is_some()
    }

    /// Names the organization that the session acts for. Comes before [`OrgClaims::add`]: it is what the user asked for, and
    /// the others get what it leaves.
    pub fn act_for(&mut self, id: OrganizationId, claim: &OrgClaim) {
        let bytes = length(&claim.permissions);
        let fits = bytes <= self.room;
        if fits {
            self.room -= bytes;
        }
        let permissions = fits.then(|| claim.permissions.clone());
        self.active = Some(ActiveOrg { id, role: claim.role.clone(), permissions });
    }

    /// Adds an organization. Where it does not fit, all are left out.
    pub fn add(&mut self, id: OrganizationId, claim: OrgClaim) {
        let Some(orgs) = &mut self.orgs else { return };
        // Quotes, a colon, and a comma after all but the first.
        let bytes = id.to_string().len() + 3 + length(&claim) + usize::from(!orgs.is_empty());
        match self.room.checked_sub(bytes) {
            Some(room) => {
                self.room = room;
                orgs.insert(id, claim);
            }
            None => self.leave_out(),
        }
    }

    /// Leaves all organizations out but the one that the session acts for.
    pub fn leave_out(&mut self) {
        self.orgs = None;
    }

    /// Leaves out what the role allows in the organization that the session acts for. Nobody takes that for more than it is.
    pub(crate) fn leave_out_permissions(&mut self) {
        if let Some(active) = &mut self.active {
            active.permissions = None;
        }
    }

    /// All organizations; `None` if they were left out.
    pub fn orgs(&self) -> Option<&BTreeMap<OrganizationId, OrgClaim>> {
        self.orgs.as_ref()
    }

    /// The organization that the session acts for.
    pub fn active(&self) -> Option<&ActiveOrg> {
        self.active.as_ref()
    }

    /// Whether something was left out.
    pub fn are_truncated(&self) -> bool {
        let lacks = |active: &ActiveOrg| active.permissions.is_none();
        self.orgs.is_none() || self.active.as_ref().is_some_and(lacks)
    }
}

fn length(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> OrganizationId {
        OrganizationId(Uuid::from_u128(number))
    }

    fn claim(slug: &str, permissions: usize) -> OrgClaim {
        let permission = |n| RolePermission::parse(format!("billing:read-{n}")).expect("valid");
        OrgClaim {
            slug: Slug::parse(slug).expect("valid"),
            role: Role::owner(),
            permissions: (0..permissions).map(permission).collect(),
        }
    }

    fn of(count: u128, most: usize) -> OrgClaims {
        let mut claims = OrgClaims::within(most);
        (0..count).for_each(|number| claims.add(id(number), claim("engines", 3)));
        claims
    }

    #[test]
    fn fill_exactly_what_they_may_and_then_leave_all_out() {
        for count in 0..5 {
            let bytes = length(of(count, 4096).orgs().expect("they fit"));
            assert!(!of(count, bytes).are_truncated(), "{count} in {bytes}");
            if count > 0 {
                let short = of(count, bytes - 1);
                assert!(short.are_truncated() && short.orgs().is_none(), "{count} in less than {bytes}");
            }
        }
    }

    #[test]
    fn too_many_are_told_without_a_look_at_them() {
        let smallest =
            |number: u128| OrgClaim { role: Role::parse("a").expect("valid"), ..claim("a", 0) }.of(number);
        let mut claims = OrgClaims::within(MAX_ORGS);
        let fit = (1..=100).take_while(|count| !OrgClaims::within(MAX_ORGS).are_too_many(*count)).count();
        for number in 0..fit as u128 {
            let (id, claim) = smallest(number);
            claims.add(id, claim);
        }
        assert!(!claims.are_truncated(), "what is not too many fits: {fit}");
        let (id, claim) = smallest(1000);
        claims.add(id, claim);
        assert!(claims.are_truncated(), "what is too many does not");
    }

    impl OrgClaim {
        fn of(self, number: u128) -> (OrganizationId, Self) {
            (id(number), self)
        }
    }

    #[test]
    fn the_active_one_comes_first() {
        let active = claim("engines", 3);
        let bytes = length(&active.permissions);
        let mut claims = OrgClaims::within(bytes + 2);
        claims.act_for(id(1), &active);
        claims.add(id(1), active.clone());
        assert_eq!(claims.active().and_then(|it| it.permissions.as_ref()), Some(&active.permissions));
        assert!(claims.orgs().is_none() && claims.are_truncated());

        let mut claims = OrgClaims::within(bytes);
        claims.act_for(id(1), &active);
        assert_eq!(claims.active().map(|it| (it.id, &it.permissions)), Some((id(1), &None)));
        assert!(claims.are_truncated());
    }
}
