//! The roles that an app gives to all of its organizations.
//!
//! They are a stream of their own, and not in the app's: whoever is in no organization pays nothing for them at a login, and nodes of
//! an earlier version, which do not know their events, still read the app.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::Claiming;
use crate::event::{EventInfo as _, Stream, StreamId, events};
use crate::organization::{MAX_ROLES, RolePermission, RoleProblem, check_permissions, is_confusing};
use crate::role::Role;

/// The commands.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum RoleTemplatesCommand {
    /// Say what a role allows in all organizations of the app that do not say it themselves.
    Set { app_id: AppId, role: Role, permissions: BTreeSet<RolePermission>, at: Timestamp },
    /// Take that back.
    Delete { app_id: AppId, role: Role, at: Timestamp },
}

/// A role means this from now on, in all organizations of the app that have none of that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleTemplateSet {
    /// The app.
    pub app_id: AppId,
    /// The role: `owner`, `admin`, `member` or one of the app's own.
    pub role: Role,
    /// What it allows.
    pub permissions: BTreeSet<RolePermission>,
    /// When it happened.
    pub at: Timestamp,
}

/// The app says no longer what a role allows. Its holders keep its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleTemplateDeleted {
    /// The app.
    pub app_id: AppId,
    /// The role.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of an app's roles for organizations.
    pub enum RoleTemplatesEvent of "roles", whose |_| None;
    RoleTemplateSet: open,
    RoleTemplateDeleted: open,
}

impl Claiming for RoleTemplatesEvent {}

/// The roles of an app for its organizations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoleTemplates {
    /// What each allows.
    pub roles: BTreeMap<Role, BTreeSet<RolePermission>>,
}

impl RoleTemplates {
    /// What a role allows, if the app says so.
    pub fn permissions(&self, role: &Role) -> Option<&BTreeSet<RolePermission>> {
        self.roles.get(role)
    }

    fn decide(&self, command: RoleTemplatesCommand) -> Result<Option<RoleTemplatesEvent>, RoleProblem> {
        match command {
            RoleTemplatesCommand::Set { app_id, role, permissions, at } => {
                if is_confusing(&role) {
                    return Err(RoleProblem::Reserved);
                }
                check_permissions(&permissions)?;
                if self.roles.get(&role) == Some(&permissions) {
                    return Ok(None);
                }
                if !self.roles.contains_key(&role) && self.roles.len() >= MAX_ROLES {
                    return Err(RoleProblem::TooMany);
                }
                let set = RoleTemplateSet { app_id, role, permissions, at };
                Ok(Some(RoleTemplatesEvent::RoleTemplateSet(set)))
            }
            RoleTemplatesCommand::Delete { app_id, role, at } => {
                if !self.roles.contains_key(&role) {
                    return Err(RoleProblem::Absent);
                }
                let deleted = RoleTemplateDeleted { app_id, role, at };
                Ok(Some(RoleTemplatesEvent::RoleTemplateDeleted(deleted)))
            }
        }
    }
}

impl StreamId {
    /// The stream of an app's roles for organizations.
    pub fn role_templates(id: &AppId) -> Self {
        Self::new(RoleTemplatesEvent::AGGREGATE, id)
    }
}

impl Stream for RoleTemplates {
    /// Most apps have none, and every token of a member looks at it.
    const IS_OFTEN_ABSENT: bool = true;

    type Id = AppId;

    fn stream(id: &AppId) -> StreamId {
        StreamId::role_templates(id)
    }
}

impl Aggregate for RoleTemplates {
    const TYPE: &'static str = "roles";
    type Command = RoleTemplatesCommand;
    type Event = RoleTemplatesEvent;
    type Error = RoleProblem;
    type Services = ();

    async fn handle(
        &mut self,
        command: RoleTemplatesCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), RoleProblem> {
        if let Some(event) = self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: RoleTemplatesEvent) {
        match event {
            RoleTemplatesEvent::RoleTemplateSet(RoleTemplateSet { role, permissions, .. }) => {
                self.roles.insert(role, permissions);
            }
            RoleTemplatesEvent::RoleTemplateDeleted(RoleTemplateDeleted { role, .. }) => {
                self.roles.remove(&role);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Draft;
    use crate::organization::MAX_PERMISSIONS;

    fn at() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("in range")
    }

    fn role(name: &str) -> Role {
        Role::parse(name).expect("valid")
    }

    fn permissions(names: &[&str]) -> BTreeSet<RolePermission> {
        names.iter().map(|name| RolePermission::parse(*name).expect("valid")).collect()
    }

    fn set(name: &str, names: &[&str]) -> RoleTemplatesCommand {
        let (app_id, permissions) = (AppId::default_app(), permissions(names));
        RoleTemplatesCommand::Set { app_id, role: role(name), permissions, at: at() }
    }

    fn delete(name: &str) -> RoleTemplatesCommand {
        RoleTemplatesCommand::Delete { app_id: AppId::default_app(), role: role(name), at: at() }
    }

    #[test]
    fn a_template_says_what_a_role_allows_also_of_the_built_in_ones() {
        let mut templates = Draft::<RoleTemplates>::new();
        templates.execute(set("owner", &["billing:*"])).expect("is set");
        templates.execute(set("support", &["tickets:read"])).expect("is set");
        templates.execute(set("support", &["tickets:read"])).expect("changes nothing");
        templates.execute(set("support", &[])).expect("is set");
        assert_eq!(templates.permissions(&role("support")), Some(&permissions(&[])));
        templates.execute(delete("support")).expect("is deleted");
        assert_eq!(templates.permissions(&role("support")), None);
        assert_eq!(templates.permissions(&role("owner")), Some(&permissions(&["billing:*"])));
        let events = ["RoleTemplateSet", "RoleTemplateSet", "RoleTemplateSet", "RoleTemplateDeleted"];
        assert_eq!(templates.decided(), events);
        assert_eq!(templates.execute(delete("support")), Err(RoleProblem::Absent));
    }

    #[test]
    fn templates_have_an_end_and_no_confusing_names() {
        let mut templates = Draft::<RoleTemplates>::new();
        for name in ["Owner", "ADMIN", "mEmber"] {
            assert_eq!(templates.execute(set(name, &[])), Err(RoleProblem::Reserved), "{name}");
        }
        let many: Vec<String> = (0..=MAX_PERMISSIONS).map(|n| format!("p{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(templates.execute(set("support", &many)), Err(RoleProblem::TooManyPermissions));
        for number in 0..MAX_ROLES {
            templates.execute(set(&format!("r{number}"), &many[1..])).expect("is set");
        }
        assert_eq!(templates.execute(set("support", &[])), Err(RoleProblem::TooMany));
        templates.execute(set("r0", &[])).expect("is there already");
    }
}
