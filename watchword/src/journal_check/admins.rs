//! The admins of each app.

use std::collections::{BTreeMap, HashMap};

use cqrs_es::Aggregate;
use domain::app::App;
use domain::user::{User, UserEvent};
use domain::{AppId, Event, UserId};
use schemas::RecordedEvent;

/// Derived from the events so far.
#[derive(Default)]
pub(super) struct Admins {
    apps: BTreeMap<AppId, App>,
    /// Only users who have ever been granted a role, and only what concerns roles.
    users: HashMap<UserId, (AppId, User)>,
}

/// How many users hold the admin role of an app.
#[derive(Debug, PartialEq, Eq)]
pub struct AdminCount {
    pub app_id: AppId,
    pub role: String,
    /// Those to whom it opens the app.
    pub admins: usize,
    /// Those who were granted it before the app named it: it opens nothing.
    pub older: usize,
}

impl Admins {
    pub(super) fn see(&mut self, of: &RecordedEvent, event: &Event) {
        let app_id = &of.metadata.app_id;
        match event {
            Event::App(event) => self.apps.entry(app_id.clone()).or_default().apply(event.clone()),
            Event::User(event @ UserEvent::RoleGranted(_)) => {
                let (_, user) =
                    self.users.entry(event.user_id()).or_insert_with(|| (app_id.clone(), User::default()));
                user.apply(event.clone());
            }
            Event::User(event @ UserEvent::RoleRevoked(_)) => {
                if let Some((_, user)) = self.users.get_mut(&event.user_id()) {
                    user.apply(event.clone());
                }
            }
            Event::User(UserEvent::UserErased(event)) => {
                self.users.remove(&event.user_id);
            }
            _ => {}
        }
    }

    /// The apps that have admins.
    pub(super) fn count(&self) -> Vec<AdminCount> {
        let count = |(app_id, app): (&AppId, &App)| {
            let role = app.settings.admin_role.as_ref()?;
            let holds = |user: &&User| user.roles.contains(role);
            let holders =
                self.users.values().filter(|(of, _)| of == app_id).map(|(_, user)| user).filter(holds);
            let (admins, older): (Vec<_>, Vec<_>) = holders.partition(|user| app.is_admin(user));
            let (admins, older) = (admins.len(), older.len());
            (admins + older > 0).then(|| AdminCount {
                app_id: app_id.clone(),
                role: role.to_string(),
                admins,
                older,
            })
        };
        self.apps.iter().filter_map(count).collect()
    }
}
