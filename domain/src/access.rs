//! Access to data: reads of other people's data, and exports. They change nothing, so there is no aggregate: each such
//! event is the only one of its stream, whose name gives the reader, the data and the hour. So the log grows by at most
//! one event for each caller, person and hour, however often they read.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::Claiming;
use crate::event::{EventInfo as _, StreamId, events};
use crate::ids::{UserId, id};

id!(
    /// Somebody's look at somebody's data within an hour.
    AccessId
);

/// Where personal data was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PersonalDataSource {
    /// The person's account.
    User,
    /// A list of users, or a search in it.
    UserList,
    /// The person's sessions.
    Sessions,
    /// The audit log, with personal parts opened.
    Audit,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportForm {
    /// A `CloudEvent` a line.
    Ndjson,
    /// A table.
    Csv,
    /// All that is held about one person, as one JSON document.
    Person,
    /// The users as they are now, one per line.
    Users,
    /// The same with the hashes of their passwords.
    UsersWithHashes,
}

/// A manager of the app read a person's data, for the first time within an hour. `personal` holds the request's origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PersonalDataRead {
    /// The person.
    pub user_id: UserId,
    /// The app.
    pub app_id: AppId,
    /// Where the data was read.
    pub source: PersonalDataSource,
    /// When it happened.
    pub at: Timestamp,
}

/// The history, or a part of it, was exported in this form, for the first time within an hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryExported {
    /// The exported app; absent for all apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<AppId>,
    /// The only person in the export; absent for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The form of the export.
    pub form: ExportForm,
    /// Whether personal data was exported in clear text.
    pub opened: bool,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of access to personal data.
    pub enum AccessEvent of "access", whose |event| event.user_id.into();
    PersonalDataRead: open,
    HistoryExported: open,
}

impl Claiming for AccessEvent {}

impl StreamId {
    /// The stream of one reader's access to one person's data.
    pub fn access(id: AccessId) -> Self {
        Self::new(AccessEvent::AGGREGATE, id)
    }
}
