//! The organizations that a person is in, by a stream of their own: every login and refresh looks at it, and finds out
//! without a search. It says only where to look. Whether the person is a member, and with which role, the organization
//! decides ([`crate::organization::Organization`]).

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims::Claiming;
use crate::event::{EventInfo as _, Stream, StreamId, events};
use crate::ids::UserId;
use crate::organization::OrganizationId;

/// The most organizations that a person can be in: each login looks at all of them.
pub const MAX_ORGANIZATIONS: usize = 100;

/// The commands.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum MembershipsCommand {
    /// Enter an organization into the list.
    Join { user_id: UserId, organization_id: OrganizationId, at: Timestamp },
    /// Take it from the list.
    Leave { user_id: UserId, organization_id: OrganizationId, at: Timestamp },
}

/// The person is in [`MAX_ORGANIZATIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a person can be in at most {MAX_ORGANIZATIONS} organizations")]
pub struct TooManyOrganizations;

/// A person is in an organization from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationJoined {
    /// The person.
    pub user_id: UserId,
    /// The organization.
    pub organization_id: OrganizationId,
    /// When it happened.
    pub at: Timestamp,
}

/// A person is no longer in an organization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationLeft {
    /// The person.
    pub user_id: UserId,
    /// The organization.
    pub organization_id: OrganizationId,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of a person's memberships.
    pub enum MembershipsEvent of "memberships", whose |event| Some(event.user_id);
    OrganizationJoined: open,
    OrganizationLeft: open,
}

impl Claiming for MembershipsEvent {}

/// The organizations of a person.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memberships {
    /// Their ids.
    pub organizations: BTreeSet<OrganizationId>,
}

impl Memberships {
    fn decide(&self, command: MembershipsCommand) -> Result<Option<MembershipsEvent>, TooManyOrganizations> {
        Ok(match command {
            MembershipsCommand::Join { organization_id, .. }
                if self.organizations.contains(&organization_id) =>
            {
                None
            }
            MembershipsCommand::Join { .. } if self.organizations.len() >= MAX_ORGANIZATIONS => {
                return Err(TooManyOrganizations);
            }
            MembershipsCommand::Join { user_id, organization_id, at } => {
                let joined = OrganizationJoined { user_id, organization_id, at };
                Some(MembershipsEvent::OrganizationJoined(joined))
            }
            MembershipsCommand::Leave { user_id, organization_id, at } => {
                let left = OrganizationLeft { user_id, organization_id, at };
                let is_in = self.organizations.contains(&organization_id);
                is_in.then_some(MembershipsEvent::OrganizationLeft(left))
            }
        })
    }
}

impl StreamId {
    /// The stream of a person's memberships.
    pub fn memberships(id: UserId) -> Self {
        Self::new(MembershipsEvent::AGGREGATE, id)
    }
}

impl Stream for Memberships {
    /// Every login looks at it, and many apps have no organizations.
    const IS_OFTEN_ABSENT: bool = true;

    type Id = UserId;

    fn stream(id: &UserId) -> StreamId {
        StreamId::memberships(*id)
    }
}

impl Aggregate for Memberships {
    const TYPE: &'static str = "memberships";
    type Command = MembershipsCommand;
    type Event = MembershipsEvent;
    type Error = TooManyOrganizations;
    type Services = ();

    async fn handle(
        &mut self,
        command: MembershipsCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), TooManyOrganizations> {
        if let Some(event) = self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: MembershipsEvent) {
        match event {
            MembershipsEvent::OrganizationJoined(OrganizationJoined { organization_id, .. }) => {
                self.organizations.insert(organization_id);
            }
            MembershipsEvent::OrganizationLeft(OrganizationLeft { organization_id, .. }) => {
                self.organizations.remove(&organization_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::draft::Draft;

    const USER: UserId = UserId(Uuid::from_u128(7));

    fn at() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("in range")
    }

    fn join(number: u128) -> MembershipsCommand {
        let organization_id = OrganizationId(Uuid::from_u128(number));
        MembershipsCommand::Join { user_id: USER, organization_id, at: at() }
    }

    #[test]
    fn lists_each_organization_once() {
        let mut memberships = Draft::<Memberships>::new();
        memberships.execute(join(1)).expect("joins");
        memberships.execute(join(1)).expect("changes nothing");
        let organization_id = OrganizationId(Uuid::from_u128(1));
        for _ in 0..2 {
            let leave = MembershipsCommand::Leave { user_id: USER, organization_id, at: at() };
            memberships.execute(leave).expect("leaves");
        }
        assert_eq!(memberships.decided(), ["OrganizationJoined", "OrganizationLeft"]);
        assert!(memberships.organizations.is_empty());
    }

    #[test]
    fn has_an_end() {
        let mut memberships = Draft::<Memberships>::new();
        for number in 0..MAX_ORGANIZATIONS as u128 {
            memberships.execute(join(number)).expect("joins");
        }
        assert_eq!(memberships.execute(join(1000)), Err(TooManyOrganizations));
        memberships.execute(join(3)).expect("is in already");
    }
}
