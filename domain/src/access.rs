//! Access to data: reads of other people's data, and exports. They change nothing, so there is no aggregate: each such
//! event is the only one of its stream, whose name gives the reader, the data and the hour. So the log grows by at most
//! one event for each caller, person and hour, however often they read.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::Claiming;
use crate::event::{EventInfo as _, StreamId, events};
use crate::ids::{AccessId, UserId};

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
}

/// Somebody who manages the app has read a person's data: the first time within an hour. Where from is in `personal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PersonalDataRead {
    /// Whose.
    pub user_id: UserId,
    /// In which app.
    pub app_id: AppId,
    /// Where.
    pub source: PersonalDataSource,
    /// When.
    pub at: Timestamp,
}

/// Somebody has taken the history, or a part of it, with them: for the first time within an hour in this form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryExported {
    /// Of this app; absent for all apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<AppId>,
    /// About this person only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// In which form.
    pub form: ExportForm,
    /// Whether personal data was in it in the clear.
    pub opened: bool,
    /// When.
    pub at: Timestamp,
}

events! {
    /// Who looked at what.
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
