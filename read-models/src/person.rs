//! All that the read models hold about one person, as JSON.
//!
//! It is found by the name of a column, so that no read model has to be listed here.

use domain::{AppId, UserId};
use event_store::StoreError;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::rows;
use crate::sql::{Query, Row, Value};
use crate::store::{ReadError, ReadModels};

/// How many rows are read at a time.
const PAGE: usize = 500;
/// The columns that name the person whose row it is: in the last one by [`event_store::LookupKey::person`].
const OWNERS: [&str; 3] = ["user_id", "person", KEYED];
const KEYED: &str = "person_key";

/// A table with rows about people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonalTable {
    /// Its name.
    pub name: &'static str,
    model: &'static str,
    owner: &'static str,
    /// Whether it has rows of several apps about one person: what those of another app have asked about them.
    has_apps: bool,
}

impl ReadModels {
    /// The tables that have rows about people now.
    pub async fn personal_tables(&self) -> Result<Vec<PersonalTable>, ReadError> {
        let mut tables = Vec::new();
        let projectors = self.projectors();
        for projector in &projectors {
            let model = projector.name();
            for name in projector.tables().iter().copied() {
                let query = Query::new(format!("SELECT * FROM {name} LIMIT 1"));
                let row = self.database_of(model).read(query).await?;
                let Some(row) = row.first() else { continue };
                let columns = row.cells()?;
                let owner =
                    OWNERS.into_iter().find(|owner| columns.iter().any(|(column, _)| column == owner));
                let has_apps = columns.iter().any(|(column, _)| *column == "app_id");
                tables.extend(owner.map(|owner| PersonalTable { name, model, owner, has_apps }));
            }
        }
        Ok(tables)
    }

    /// Up to 500 rows of a table about a person of an app, after the first `skipped`; fewer at the end. Sealed members are opened, and
    /// times are texts; ids and keyed hashes are hexadecimal.
    pub async fn rows_about(
        &self,
        (app_id, person): (&AppId, UserId),
        table: PersonalTable,
        skipped: usize,
    ) -> Result<Vec<Json>, ReadError> {
        let PersonalTable { name, model, owner, has_apps } = table;
        let mut query = Query::new(format!("SELECT * FROM {name} WHERE {owner} = "));
        if owner == KEYED {
            query.push_bind(self.lookup.person(app_id, person).as_slice());
        } else {
            query.push_bind(person.0);
        }
        if has_apps {
            query.push(" AND app_id = ").push_bind(app_id.as_str());
        }
        query.push(&format!(" ORDER BY 1, 2 LIMIT {PAGE} OFFSET {skipped}"));
        let mut shown = Vec::new();
        for row in self.database_of(model).read(query).await? {
            shown.push(self.show(person, name, &row).await?);
        }
        Ok(shown)
    }

    async fn show(&self, person: UserId, table: &str, row: &Row) -> Result<Json, StoreError> {
        let mut members = Map::new();
        for (column, value) in row.cells()? {
            if let (Value::Bytes(Some(sealed)), "sealed") = (&value, column) {
                let id = rows::id(row.get(0)?)?;
                let personal = rows::open(&self.sealer, table, id, person, Some(sealed.as_slice())).await?;
                members.insert("personal".to_owned(), serde_json::to_value(personal).unwrap_or_default());
                continue;
            }
            // The hash of an address that a request about the person came from, which may be another's: equal hashes would tell
            // whether it was theirs, too.
            if column != "ip" {
                members.insert(column.to_owned(), cell(column, value)?);
            }
        }
        Ok(Json::Object(members))
    }
}

/// A cell for people.
fn cell(column: &str, value: Value) -> Result<Json, StoreError> {
    Ok(match value {
        Value::Int(Some(time)) if column == "at" || column.ends_with("_at") => {
            Json::String(rows::time(time)?.to_string())
        }
        Value::Int(Some(number)) => number.into(),
        Value::Text(Some(text)) => text.into(),
        Value::Bytes(Some(bytes)) => match Uuid::from_slice(&bytes) {
            Ok(id) => id.to_string().into(),
            Err(_) => hex::encode(bytes).into(),
        },
        Value::Int(None) | Value::Text(None) | Value::Bytes(None) => Json::Null,
    })
}
