//! Raw values, from the file and the environment, and errors in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::keys::{KEYS, Key, OptionalKey, is_secret, of_file, variable};

/// The first error found in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {source}. Make it readable, or name another with --config", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid TOML: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("{origin} is no key of the configuration{}. `watchword doctor --keys` lists them", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    Unknown { origin: String, suggestion: Option<String> },
    #[error("{origin} is not valid: {problem}")]
    Bad { origin: String, problem: String },
    #[error("{origin} names {}, which cannot be read: {source}. Make it readable, or name another file", path.display())]
    UnreadableSecret { origin: String, path: PathBuf, source: std::io::Error },
    #[error("{} holds a secret and other users of this machine can read it (mode {mode:04o}). Run: chmod 600 {}", path.display(), path.display())]
    WorldReadable { path: PathBuf, mode: u32 },
}

/// The prefix of the origin of a value read from a separate file.
const OWN_FILE: &str = "the file ";

/// Raw values by key, each with its origin.
#[derive(Default)]
pub(super) struct Values(pub(super) BTreeMap<String, (String, String)>);

impl Values {
    pub(super) fn set(&mut self, key: &str, origin: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.to_owned(), (origin.into(), value.into()));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Reads the value of a key from a file.
    fn set_from_file(&mut self, key: &str, origin: &str, path: &Path) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::UnreadableSecret {
            origin: origin.to_owned(),
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        refuse_world_readable(path)?;
        self.set(key, format!("{OWN_FILE}{} of {origin}", path.display()), text.trim());
        Ok(())
    }

    /// The value of a key, or its default.
    pub(super) fn take<T>(&mut self, key: &Key<T>) -> Result<T, ConfigError> {
        let taken = self.parsed(key.name, key.parse)?;
        Ok(taken.unwrap_or_else(|| (key.parse)(key.default).expect("a default is a value")))
    }

    /// The value of a key, if it is set.
    pub(super) fn take_given<T>(&mut self, key: &OptionalKey<T>) -> Result<Option<T>, ConfigError> {
        self.parsed(key.name, key.parse)
    }

    fn parsed<T>(
        &mut self,
        key: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((origin, value)) = self.0.remove(key) else { return Ok(None) };
        parse(&value).map(Some).map_err(|problem| ConfigError::Bad { origin, problem })
    }

    pub(super) fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::NotToml {
            path: path.to_owned(),
            message: place(&text, &e),
        })?;
        self.add_table(path, "", &table)?;
        // Values from separate files were already checked.
        let holds_password = |(key, (origin, value)): (&String, &(String, String))| {
            !origin.starts_with(OWN_FILE)
                && (is_secret(key) || (key.ends_with("_url") && value.contains('@')))
        };
        if self.0.iter().any(holds_password) {
            refuse_world_readable(path)?;
        }
        Ok(())
    }

    fn add_table(&mut self, path: &Path, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let origin = format!("{key} in {}", path.display());
            let is_section = KEYS.iter().any(|known| known.name.starts_with(&format!("{key}.")));
            if let toml::Value::Table(section) = value
                && is_section
            {
                self.add_table(path, &format!("{key}."), section)?;
                continue;
            }
            if let (Some(of), Some(file)) = (of_file(&key), value.as_str()) {
                self.set_from_file(of, &origin, Path::new(file))?;
                continue;
            }
            if !KEYS.iter().any(|known| known.name == key) {
                let suggestion = nearest(&key, KEYS.iter().map(|known| known.name.to_owned()));
                return Err(ConfigError::Unknown { origin, suggestion });
            }
            let Some(text) = as_text(value) else {
                return Err(ConfigError::Bad {
                    origin,
                    problem: "give a text, a number or a list".to_owned(),
                });
            };
            self.set(&key, origin, text);
        }
        Ok(())
    }

    pub(super) fn read_environment(
        &mut self,
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<(), ConfigError> {
        let mut by_files = Vec::new();
        let mut by_variables = std::collections::BTreeSet::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("WATCHWORD_")) else { continue };
            let lower = name["WATCHWORD_".len()..].to_lowercase();
            if let Some(of) = of_file(&lower) {
                if !value.is_empty() {
                    by_files.push((of, name.to_owned(), PathBuf::from(value)));
                }
                continue;
            }
            let Some(known) = KEYS.iter().find(|known| variable(known.name) == name) else {
                if made_by_kubernetes(name) {
                    continue;
                }
                let suggestion = nearest(name, KEYS.iter().map(|known| variable(known.name)));
                return Err(ConfigError::Unknown {
                    origin: format!("the environment variable {name}"),
                    suggestion,
                });
            };
            let Ok(value) = value.into_string() else {
                return Err(ConfigError::Bad {
                    origin: name.to_owned(),
                    problem: "it is not UTF-8".to_owned(),
                });
            };
            // Shells and compose files express "not set" by an empty variable.
            if !value.is_empty() {
                by_variables.insert(known.name);
                self.set(known.name, name, value);
            }
        }
        for (key, origin, path) in by_files {
            if by_variables.contains(key) {
                let problem = format!("{} is set as well: leave out one of the two", variable(key));
                return Err(ConfigError::Bad { origin, problem });
            }
            self.set_from_file(key, &origin, &path)?;
        }
        Ok(())
    }
}

/// Kubernetes sets these in every pod if a service is named `watchword`.
fn made_by_kubernetes(name: &str) -> bool {
    name == "WATCHWORD_PORT" || name.starts_with("WATCHWORD_PORT_") || name.starts_with("WATCHWORD_SERVICE_")
}

/// Refuses a file that everybody on the machine can read.
pub fn refuse_world_readable(path: &Path) -> Result<(), ConfigError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?
            .permissions()
            .mode();
        if mode & 0o007 != 0 {
            return Err(ConfigError::WorldReadable { path: path.to_owned(), mode: mode & 0o7777 });
        }
    }
    Ok(())
}

/// What is wrong, and where.
fn place(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{message} at line {line}, column {column}")
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(if *flag { "on" } else { "off" }.to_owned()),
        // A list of tables is written as JSON in the environment.
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            serde_json::to_string(items).ok()
        }
        toml::Value::Array(items) => {
            items.iter().map(as_text).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The candidate that is at most three edits away.
fn nearest(text: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::levenshtein(text, &candidate), candidate))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, candidate)| candidate)
}
