use super::*;

fn with(key: &str, value: &str) -> Result<Config, ConfigError> {
    let mut values = Values::default();
    values.set(key, key, value);
    Config::from_values(&mut values)
}

#[test]
fn the_listed_defaults_are_the_defaults() {
    let bare = Config::from_values(&mut Values::default()).expect("defaults");
    for key in KEYS.iter().filter(|key| !key.default.is_empty() && !key.default.contains('<')) {
        let said = with(key.name, key.default).expect(key.name);
        assert_eq!(format!("{said:?}"), format!("{bare:?}"), "{}", key.name);
    }
}

/// Tests of the parts run on their own defaults: they are those that operators get.
#[test]
fn the_parts_have_the_same_defaults() {
    let config = Config::from_values(&mut Values::default()).expect("defaults");
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", RateSettings::default()));
    assert_eq!(format!("{:?}", config.lockout), format!("{:?}", LockoutPolicy::default()));
    let policy = config.mail.map(|mail| mail.policy);
    assert_eq!(format!("{policy:?}"), format!("{:?}", Some(DeliveryPolicy::default())));
    assert_eq!(config.projections_lease, projection_service::SharingSettings::LEASE);
    let relay = with("nats_url", "nats://127.0.0.1").expect("valid").nats.map(|nats| nats.relay);
    assert_eq!(format!("{relay:?}"), format!("{:?}", Some(RelaySettings::default())));
    let mut values = Values::default();
    values.set("journal_url", "journal_url", "postgres://db.example/auth");
    values.set("master_key", "master_key", "secret of all nodes");
    let databases = Config::from_values(&mut values).expect("valid").databases.expect("in PostgreSQL");
    assert_eq!(
        format!("{:?}", databases.settings),
        format!("{:?}", event_store::PostgresSettings::default())
    );
}

#[test]
fn witnesses_are_tables_in_a_file_and_json_in_the_environment() {
    let signer = |name| tlog::Signer::from_seed(name, tlog::note::Kind::Witness, &[1; 32]).expect("a key");
    let (one, other) = (signer("w.example/1"), signer("w.example/2"));
    let (one, other) = (one.key(), other.key());
    let url = "https://w.example/";
    let inline = format!(
        "witnesses = [{{ key = \"{one}\", url = \"{url}\" }}, {{ key = \"{other}\", url = \"{url}\" }}]"
    );
    let tables =
        [one, other].map(|key| format!("[[witnesses]]\nkey = \"{key}\"\nurl = \"{url}\"\n")).concat();
    let json =
        serde_json::json!([{"key": one.to_string(), "url": url}, {"key": other.to_string(), "url": url}]);
    let expected = with("witnesses", &json.to_string()).expect("valid").witnesses;
    assert_eq!(expected.iter().map(|it| &it.key).collect::<Vec<_>>(), [one, other]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("watchword.toml");
    for text in [inline, tables] {
        std::fs::write(&path, &text).expect("written");
        let mut values = Values::default();
        values.read_file(&path).expect("it is read");
        assert_eq!(Config::from_values(&mut values).expect("valid").witnesses, expected, "{text}");
    }
}

#[test]
fn no_key_is_declared_twice_and_every_default_is_a_value() {
    let names: std::collections::BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let variables: std::collections::BTreeSet<_> = KEYS.iter().map(|key| variable(key.name)).collect();
    assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
    // `take` rests on it.
    Config::from_values(&mut Values::default()).expect("defaults");
}

#[test]
fn every_key_is_read() {
    let mut values = Values::default();
    for key in KEYS {
        values.set(key.name, key.name, "");
    }
    for key in KEYS {
        let mut one = Values::default();
        one.set(key.name, key.name, "no value of any key \u{1}://");
        let wrong = Config::from_values(&mut one).is_err();
        assert!(wrong || one.0.is_empty(), "{} is never taken", key.name);
    }
}

#[test]
fn refuses_bad_values_by_name() {
    for (key, value) in [
        ("listen", "8080"),
        ("internal_listen", "9090"),
        ("public_url", "https://example.com/a//b"),
        ("public_url", "https://example.com/path?query"),
        ("public_url", "example.com"),
        ("nats_url", "http://localhost"),
        ("mail_url", "http://localhost"),
        ("mail_url", "smtp://user@localhost"),
        ("mail_url", "smtps://user:password@"),
        ("mail.sender", "nobody"),
        ("mail.attempts", "0"),
        ("nats.batch", "1001"),
        ("nats.batch", "0"),
        ("nats.replicas", "0"),
        ("nats.storage", "disk"),
        ("nats.max_age", "1d"),
        ("nats.rebuild_interval", "on"),
        ("journal_url", "mysql://localhost/journal"),
        ("journal_url", "postgres://localhost"),
        ("key_store_url", "postgres://localhost/keys"),
        ("postgres.connections", "0"),
        ("postgres.role", "pg_monitor"),
        ("postgres.role", "a; DROP TABLE events"),
        ("admin_key", "too short"),
        ("postgres.poll", "often"),
        ("log_format", "xml"),
        ("otlp_endpoint", "collector:4318"),
        ("otlp_endpoint", "grpc://collector:4317"),
        ("otlp_endpoint", "https://key@collector"),
        ("otlp.sampling", "10"),
        ("otlp.sampling", "NaN"),
        ("trusted_proxies", "10.0.0.0/99"),
        ("argon2", "m=1,t=1,p=1"),
        ("argon2", "m=19456,t=2"),
        ("argon2", "m=19456,t=2,p=1,p=1"),
        ("rate_limits", "yes"),
        ("limits.credentials", "0/60"),
        ("limits.general", "60"),
        ("limits.in_flight", "0"),
        ("limits.event_streams", "some"),
        ("lockout.failures", "0"),
        ("shutdown_timeout", "0"),
        ("cache.aggregates", "-1"),
        ("cache.aggregates_mib", "0"),
        ("cache.events_mib", "1 GiB"),
    ] {
        let error = with(key, value).expect_err(value).to_string();
        assert!(error.starts_with(key), "{error}");
    }
}

#[test]
fn journal_and_keys_are_both_files_or_both_in_postgres() {
    let with_all = |pairs: &[(&str, &str)]| {
        let mut values = Values::default();
        for (key, value) in pairs {
            values.set(key, *key, *value);
        }
        Config::from_values(&mut values)
    };
    let journal = ("journal_url", "postgres://u:hunter2@db.example/auth");
    let master = ("master_key", "secret of all nodes");
    let config = with_all(&[journal, master]).expect("valid");
    let databases = config.databases.as_ref().expect("in PostgreSQL");
    assert_eq!(databases.journal.to_string(), "postgres://db.example:5432/auth");
    assert_eq!(databases.key_store.to_string(), databases.journal.to_string());
    assert_eq!(config.read_models.to_string(), databases.journal.to_string());
    assert!(!format!("{config:?}").contains("hunter2"));
    let named = with_all(&[journal, master, ("postgres.role", "watchword_acme")]).expect("valid");
    let databases = named.databases.as_ref().expect("in PostgreSQL");
    let read_models = match &named.read_models {
        Location::Postgres(url) => url.clone(),
        Location::File(_) => panic!("in PostgreSQL"),
    };
    for url in [databases.journal.postgres().expect("in PostgreSQL"), &databases.key_store, &read_models] {
        assert_eq!(url.role().as_str(), "watchword_acme", "{url}");
    }
    let apart = with_all(&[journal, master, ("key_store_url", "postgres://keys.example/keys")]);
    let apart = apart.expect("valid").databases.expect("in PostgreSQL");
    assert_eq!(apart.key_store.to_string(), "postgres://keys.example:5432/keys");

    let error = with_all(&[journal]).expect_err("no master key").to_string();
    assert!(error.contains("WATCHWORD_MASTER_KEY") && !error.contains("hunter2"), "{error}");
    let mixed = with_all(&[journal, master, ("key_store_url", "sqlite:keys.db")]);
    assert!(mixed.expect_err("mixed").to_string().starts_with("key_store_url"));
    assert!(with_all(&[("key_store_url", "postgres://localhost/keys"), master]).is_err());
}

#[test]
fn only_the_journal_can_be_in_kurrentdb() {
    for key in ["read_models_url", "key_store_url"] {
        let error = with(key, "esdb://ada:hunter2@db.example").expect_err("is refused").to_string();
        assert!(error.starts_with(key) && error.contains("only the journal"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[cfg(not(feature = "kurrentdb"))]
#[test]
fn without_kurrentdb_it_is_told_how_to_build_with_it() {
    let error = with("journal_url", "esdb://ada:hunter2@db.example").expect_err("is refused").to_string();
    assert!(error.starts_with("journal_url") && error.contains("--features kurrentdb"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[cfg(feature = "kurrentdb")]
#[test]
fn a_journal_in_kurrentdb_has_its_keys_and_read_models_in_postgres() {
    let with_all = |pairs: &[(&str, &str)]| {
        let mut values = Values::default();
        for (key, value) in pairs {
            values.set(key, *key, *value);
        }
        Config::from_values(&mut values)
    };
    let journal = ("journal_url", "esdb://ada:hunter2@db.example?tls=false");
    let master = ("master_key", "secret of all nodes");
    let keys = ("key_store_url", "postgres://keys.example/keys");
    let config = with_all(&[journal, master, keys, ("data_dir", "here")]).expect("valid");
    let databases = config.databases.as_ref().expect("shared");
    assert_eq!(databases.journal.to_string(), "esdb://db.example:2113");
    let crate::databases::SharedJournal::Kurrent { replica, .. } = &databases.journal else {
        panic!("in KurrentDB")
    };
    assert_eq!(replica, Path::new("here/replica.db"));
    assert_eq!(databases.key_store.to_string(), "postgres://keys.example:5432/keys");
    assert_eq!(config.read_models.to_string(), databases.key_store.to_string());
    assert!(config.shares_stores() && !format!("{config:?}").contains("hunter2"));

    let without = |left_out: &str| {
        let pairs: Vec<_> = [journal, master, keys].into_iter().filter(|(key, _)| *key != left_out).collect();
        with_all(&pairs).expect_err(left_out).to_string()
    };
    assert!(without("key_store_url").starts_with("key_store_url"));
    assert!(without("master_key").contains("WATCHWORD_MASTER_KEY"));
    let error = with_all(&[journal, master, ("key_store_url", "keys.db")]).expect_err("a file").to_string();
    assert!(error.starts_with("key_store_url") && !error.contains("hunter2"), "{error}");
}

#[test]
fn takes_the_environment_over_the_file_and_names_what_it_does_not_know() {
    let mut values = Values::default();
    values.set("listen", "file", "127.0.0.1:1");
    let variables =
        [("WATCHWORD_LISTEN", "127.0.0.1:2"), ("WATCHWORD_SERVICE_HOST", "10.0.0.1"), ("PATH", "/")];
    values.read_environment(variables.map(|(k, v)| (k.into(), v.into())).into_iter()).expect("known");
    assert_eq!(Config::from_values(&mut values).expect("valid").listen.port(), 2);

    let error = Values::default()
        .read_environment([("WATCHWORD_LISTNE".into(), "x".into())].into_iter())
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("WATCHWORD_LISTNE") && error.contains("WATCHWORD_LISTEN"), "{error}");
}

#[test]
fn numbers_of_the_file_need_no_quotes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("watchword.toml");
    std::fs::write(
        &file,
        "otlp_endpoint = \"http://127.0.0.1:4318\"\notlp.sampling = 0.25\nshutdown_timeout = 3\n",
    )
    .expect("written");
    let mut values = Values::default();
    values.read_file(&file).expect("read");
    let config = Config::from_values(&mut values).expect("valid");
    assert_eq!(config.traces.expect("there is a collector").sampling.to_string(), "0.25");
    assert_eq!(config.shutdown_timeout, Duration::from_secs(3));
}

#[test]
fn a_network_may_be_a_single_address() {
    let config = with("trusted_proxies", "10.0.0.0/8, ::1").expect("valid");
    assert_eq!(config.trusted_proxies.len(), 2);
}
