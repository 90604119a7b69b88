//! An error and its causes in one line, without repetitions: many errors include their causes.

use std::error::Error;

/// An error with its causes, for people.
pub fn told(error: &anyhow::Error) -> String {
    said_once(error.chain())
}

/// The same for a single error.
pub fn told_of(error: &(dyn Error + 'static)) -> String {
    said_once(anyhow::Chain::new(error))
}

fn said_once<'e>(chain: impl Iterator<Item = &'e (dyn Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in chain.map(ToString::to_string) {
        // A cause that repeats the text before it and adds to it is reduced to the addition.
        let new = match cause.strip_prefix(text.as_str()) {
            Some(more) if !text.is_empty() && !more.starts_with(char::is_alphanumeric) => more,
            _ => &cause,
        };
        if new.is_empty() || text.contains(new.trim_end_matches('.')) {
            continue;
        }
        if new.len() < cause.len() || text.is_empty() {
            text.push_str(new);
        } else {
            text.push_str(": ");
            text.push_str(new);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use anyhow::{Context, anyhow};
    use event_store::StoreError;

    use super::*;
    use crate::config::ConfigError;
    use crate::data_dir::DataDirError;

    fn denied() -> io::Error {
        io::Error::from_raw_os_error(13)
    }

    #[test]
    fn every_cause_is_said_once() {
        let sql = || sqlx::Error::Io(io::Error::from_raw_os_error(111));
        let path = || PathBuf::from("/data");
        let chains: Vec<(anyhow::Error, &str)> = vec![
            (DataDirError::NotWritten { path: path(), source: denied() }.into(), "Permission denied"),
            (DataDirError::Unreadable { path: path(), source: denied() }.into(), "Permission denied"),
            (DataDirError::NotCreated { path: path(), source: denied() }.into(), "Permission denied"),
            (ConfigError::Unreadable { path: path(), source: denied() }.into(), "Permission denied"),
            (
                DataDirError::Config(ConfigError::Unreadable { path: path(), source: denied() }).into(),
                "Permission denied",
            ),
            (anyhow::Error::new(sql()), "Connection refused"),
            (anyhow::Error::new(sql()).context("the read models cannot be opened"), "Connection refused"),
            (
                anyhow::Error::new(read_models::OpenError::Unreachable {
                    database: "x".to_owned(),
                    source: sql(),
                }),
                "Connection refused",
            ),
            (anyhow::Error::new(denied()).context("a").context("b"), "Permission denied"),
            (
                anyhow::Error::new(StoreError::Unavailable("it is away".into())).context("the first apps"),
                "it is away",
            ),
            (anyhow!("it is away").context("it is away"), "it is away"),
            (
                Err::<(), _>(denied()).context("cannot listen on 127.0.0.1:80").expect_err("is refused"),
                "denied",
            ),
        ];
        for (error, once) in chains {
            let text = told(&error);
            assert_eq!(text.matches(once).count(), 1, "{text}");
            assert!(!text.contains(": :") && !text.ends_with(':'), "{text}");
        }
        let error = anyhow::Error::new(denied()).context("a").context("b");
        assert_eq!(told(&error), "b: a: Permission denied (os error 13)");
    }

    #[test]
    fn what_is_not_said_yet_is_not_left_out() {
        let error = anyhow!("the server does not answer").context("the journal").context("not started");
        assert_eq!(told(&error), "not started: the journal: the server does not answer");
        // A cause that only shares a prefix with the text before it.
        let error = anyhow!("the journal is damaged").context("the journal");
        assert_eq!(told(&error), "the journal is damaged");
    }
}
