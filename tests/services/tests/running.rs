//! The services run, come again with what they had, and leave nothing behind.

use test_services::{Nats, Postgres};

#[test]
fn postgres_comes_again_after_a_crash() {
    let mut server = Postgres::start();
    let (one, two) = (server.database(), server.database());
    assert_eq!(server.psql(&one, "CREATE TABLE t AS SELECT 7 AS x; SHOW fsync"), "on\n");
    assert_eq!(server.psql(&two, "SELECT to_regclass('t') IS NULL"), "t\n");
    server.crash();
    server.up();
    server.stop();
    server.up();
    assert_eq!(server.psql(&one, "SELECT x FROM t"), "7\n");
    let folder = server.data();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn nats_comes_again_after_a_kill() {
    let mut server = Nats::start();
    server.kill();
    server.up();
    assert!(server.log().contains("JetStream"), "{}", server.log());
    let folder = server.store().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}
