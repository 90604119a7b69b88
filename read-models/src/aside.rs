//! The other names that tables and their indexes have in PostgreSQL while a new build of them stands beside the live one.

use crate::projector::{Projector, key};

/// What the name of a table, an index or a checkpoint gets in a new build.
const SUFFIX: &str = "_rebuild";

/// The names of one read model's tables and indexes.
#[derive(Debug)]
pub(crate) struct Aside {
    names: Vec<String>,
}

impl Aside {
    pub fn of(projector: &dyn Projector) -> Self {
        let tables = projector.tables().iter().map(|table| (*table).to_owned());
        let indexes = indexes(projector.ddl()).map(|(name, _)| name.to_owned());
        Self { names: tables.chain(indexes).collect() }
    }

    /// The key of the checkpoint.
    pub fn key(projector: &dyn Projector) -> String {
        key(projector) + SUFFIX
    }

    /// Whether a checkpoint with this key is one of a new build.
    pub fn is_key(key: &str) -> bool {
        key.ends_with(SUFFIX)
    }

    /// The statement about the new build. Only whole names are others: `users_v1` is a part of `active_users_v1`.
    pub fn rename(&self, sql: &str) -> String {
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut renamed = String::with_capacity(sql.len() + 4 * SUFFIX.len());
        let mut rest = sql;
        while let Some(begin) = rest.find(is_of_a_name) {
            let (before, from) = rest.split_at(begin);
            let end = from.find(|c| !is_of_a_name(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            renamed.push_str(before);
            renamed.push_str(word);
            if self.names.iter().any(|name| name == word) {
                renamed.push_str(SUFFIX);
            }
            rest = after;
        }
        renamed.push_str(rest);
        renamed
    }

    /// The statements that put the new build in the place of the live tables.
    pub fn take_place(projector: &dyn Projector) -> String {
        let table = |table: &&str| {
            format!(
                "DROP TABLE IF EXISTS {table}; ALTER TABLE {table}{SUFFIX} RENAME TO {table};
                 ALTER INDEX {table}{SUFFIX}_pkey RENAME TO {table}_pkey;"
            )
        };
        let index = |(index, _)| format!("ALTER INDEX {index}{SUFFIX} RENAME TO {index};");
        let tables = projector.tables().iter().map(table);
        tables.chain(indexes(projector.ddl()).map(index)).collect::<Vec<_>>().join("\n")
    }

    /// The statements that drop the new build.
    pub fn drop(projector: &dyn Projector) -> String {
        let table = |table: &&str| format!("DROP TABLE IF EXISTS {table}{SUFFIX};");
        projector.tables().iter().map(table).collect::<Vec<_>>().join("\n")
    }
}

/// The names and statements of the indexes that these statements create.
pub(crate) fn indexes(ddl: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    const CREATE: &str = "CREATE INDEX IF NOT EXISTS ";
    ddl.split_inclusive(';').filter_map(|statement| {
        let statement = &statement[statement.find(CREATE)?..];
        Some((statement[CREATE.len()..].split(' ').next()?, statement))
    })
}

/// These statements without those that create indexes, except the named ones.
pub(crate) fn without_indexes(ddl: &'static str, needed: &[&str]) -> String {
    let later = indexes(ddl).filter(|(name, _)| !needed.contains(name));
    later.fold(ddl.to_owned(), |ddl, (_, statement)| ddl.replace(statement, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_others() {
        let aside = Aside { names: vec!["users_v1".to_owned(), "users_v1_email".to_owned()] };
        assert_eq!(
            aside.rename(
                "SELECT users_v1.x FROM users_v1, active_users_v1 -- users_v1_email, users_v1_email2"
            ),
            "SELECT users_v1_rebuild.x FROM users_v1_rebuild, active_users_v1 -- users_v1_email_rebuild, users_v1_email2"
        );
    }

    #[test]
    fn indexes_are_found_among_the_statements() {
        const DDL: &str = "-- Both.\nCREATE TABLE IF NOT EXISTS a (b TEXT) STRICT;\nCREATE INDEX IF NOT EXISTS c ON a (b);\n\
                           CREATE INDEX IF NOT EXISTS d ON a (b) WHERE b IS NOT NULL;\n";
        let all: Vec<_> = indexes(DDL).collect();
        let second = "CREATE INDEX IF NOT EXISTS d ON a (b) WHERE b IS NOT NULL;";
        assert_eq!(all, [("c", "CREATE INDEX IF NOT EXISTS c ON a (b);"), ("d", second)]);
        assert!(!without_indexes(DDL, &["c"]).contains(" d "), "it is made later");
        assert!(without_indexes(DDL, &["c"]).contains(" c "), "it is needed");
    }
}
