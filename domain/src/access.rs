//! Who looked at what: reads of other people's data, and exports. They change nothing, so there is no aggregate: each such
//! event is the only one of its stream, whose name says for whom, for what and for which hour it stands. So the log grows by
//! one event for each caller, person and hour at most, however often somebody looks.

use cqrs_es::DomainEvent;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::event::EventInfo;
use crate::ids::UserId;

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

/// Who looked at what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
#[expect(missing_docs, reason = "each variant's payload is documented")]
pub enum AccessEvent {
    #[serde(rename = "PersonalDataRead")]
    PersonalDataRead(PersonalDataRead),
    #[serde(rename = "HistoryExported")]
    HistoryExported(HistoryExported),
}

impl EventInfo for AccessEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::PersonalDataRead(_) => "PersonalDataRead",
            Self::HistoryExported(_) => "HistoryExported",
        }
    }

    fn person(&self) -> Option<UserId> {
        match self {
            Self::PersonalDataRead(event) => Some(event.user_id),
            Self::HistoryExported(event) => event.user_id,
        }
    }
}

impl DomainEvent for AccessEvent {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        self.version().to_string()
    }
}
