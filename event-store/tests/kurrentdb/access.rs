//! Access rights at the server, and the errors of those who lack them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_store::contract::{append, stream};
use event_store::{Journal, KurrentJournal, KurrentRights, KurrentSettings, OpenError};
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::World;
use super::server::Server;

/// Two accounts of one server; the first is the journal's.
const ACCOUNTS: [(&str, &str); 4] = [
    ("watchword", "violet/kettle:93"),
    ("mallory", "hunter2"),
    ("admin", "of-the-administrators"),
    ("ops", "changeit"),
];

const OWN: &str = "watchword:violet%2Fkettle%3A93@";

fn at(server: &Server, account: &str, world: &World) -> World {
    World { stream: world.stream.clone(), ..World::on(None, &server.url_of(account)) }
}

/// The error of a node that is rejected. It must come at once, however long other failures are retried.
async fn refused(world: &World, node: &str) -> String {
    let patient = KurrentSettings {
        answer_timeout: Duration::from_mins(10),
        patience: Duration::from_mins(10),
        answer: Duration::from_mins(10),
        ..world.settings()
    };
    let begun = Instant::now();
    let refusal = world.try_open(node, patient).await.err().expect("is refused");
    assert!(begun.elapsed() < Duration::from_mins(1), "at once, even on a busy machine");
    assert!(matches!(refusal, OpenError::Denied { .. }), "{refusal}");
    let text = format!("{refusal} {refusal:?}");
    assert!(!text.contains("hunter2") && !text.contains("violet"), "{text}");
    refusal.to_string()
}

#[tokio::test]
async fn another_account_of_the_server_can_neither_read_nor_append() {
    let server = Server::start_with(&ACCOUNTS).await;
    let anywhere = World::on(None, &server.url());
    let own = at(&server, OWN, &anywhere);
    let journal = own.open("own").await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.hold_cursor("mail", "own", Duration::from_hours(1)).await.expect("works").expect("is free");

    let other = at(&server, "mallory:hunter2@", &anywhere);
    let said = refused(&other, "other").await;
    assert!(said.contains("mallory may not read the stream") && said.contains("$acl"), "{said}");
    // Nor with the server's own client.
    let client = |account: &str| {
        let settings = server.url_of(account).parse::<eventstore::ClientSettings>().expect("a URL");
        eventstore::Client::new(settings).expect("is made")
    };
    let mail = format!("{}-effect-mail", own.stream);
    for name in [&own.stream, &format!("$${}", own.stream), &mail, &format!("$${mail}")] {
        let event = eventstore::EventData::json("RoleGranted", &json!({})).expect("is JSON");
        let any = eventstore::AppendToStreamOptions::default();
        let written = client("mallory:hunter2@").append_to_stream(name.as_str(), &any, event).await;
        assert!(matches!(written, Err(eventstore::Error::AccessDenied)), "{name}: {written:?}");
        let all = eventstore::ReadStreamOptions::default();
        let read = match client("mallory:hunter2@").read_stream(name.as_str(), &all).await {
            Ok(mut events) => events.next().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(matches!(read, Err(eventstore::Error::AccessDenied)), "{name}: {read:?}");
    }
    // The journal's own account cannot revoke that, nor have its events discarded.
    for name in [format!("$${}", own.stream), format!("$${mail}")] {
        let event = eventstore::EventData::json("$metadata", &json!({ "$maxCount": 1 })).expect("is JSON");
        let any = eventstore::AppendToStreamOptions::default();
        let account = eventstore::Credentials::new("watchword", "violet/kettle:93");
        let any = any.authenticated(account);
        let written = client("").append_to_stream(name.as_str(), &any, event).await;
        assert!(matches!(written, Err(eventstore::Error::AccessDenied)), "{name}: {written:?}");
    }
    journal.append(append(&stream("a"), 1, 1)).await.expect("goes on");
    let about = server.about(&mail).expect("is there");
    assert_eq!((&about["$maxCount"], &about["$acl"]["$w"]), (&json!(100), &json!(["watchword"])));
}

#[tokio::test]
async fn a_rejected_login_is_reported_at_once() {
    let server = Server::start_with(&ACCOUNTS).await;
    let anywhere = World::on(None, &server.url());
    for (account, told) in [
        ("watchword:hunter2@", "the server rejects watchword"),
        ("nobody:hunter2@", "the server rejects nobody"),
        ("watchword@", "the server rejects watchword"),
        ("", "give user and password in the URL"),
    ] {
        let said = refused(&at(&server, account, &anywhere), "one").await;
        assert!(said.contains(told) && said.contains("URL"), "{account}: {said}");
    }
    at(&server, OWN, &anywhere)
        .open("one")
        .await
        .append(append(&stream("a"), 0, 1))
        .await
        .expect("is let in");
}

/// An account whose password changed after it logged in.
#[tokio::test]
async fn a_changed_password_is_reported_and_not_retried() {
    let server = Server::start_with(&ACCOUNTS).await;
    let world = at(&server, OWN, &World::on(None, &server.url()));
    let journal = world.open("one").await;
    server.set_password("watchword", "another");
    let refused = journal.append(append(&stream("a"), 0, 1)).await.expect_err("is refused");
    assert!(refused.to_string().contains("the server rejects watchword"), "{refused}");
    server.set_password("watchword", "violet/kettle:93");
    journal.append(append(&stream("a"), 0, 1)).await.expect("is let in again");
}

fn settings(world: &World) -> KurrentSettings {
    world.settings()
}

#[tokio::test]
async fn what_is_wrong_with_accounts_and_rights_is_found() {
    let server = Server::start_with(&ACCOUNTS).await;
    let anywhere = World::on(None, &server.url());
    let own = at(&server, OWN, &anywhere);
    let look = async |world: &World| {
        KurrentRights::look(&world.url, &settings(world), &["mail"]).await.expect("looks")
    };
    // Before the first event there is nothing to protect.
    assert_eq!(look(&own).await.streams, []);
    let journal = own.open("own").await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.hold_cursor("mail", "own", Duration::from_hours(1)).await.expect("works").expect("is free");
    let fine = look(&own).await;
    let streams = vec![(own.stream.clone(), vec![]), (format!("{}-effect-mail", own.stream), vec![])];
    assert_eq!(fine.streams, streams);
    assert_eq!(
        (fine.user.as_deref(), fine.is_administrator, fine.asks_for_passwords),
        (Some("watchword"), false, true)
    );
    assert_eq!(fine.factory, ["ops"]);

    // An administrator opens it to all accounts.
    server.tamper(&format!("$${}", own.stream), |events| {
        events[0].set_data(
            json!({ "$acl": { "$r": "$all", "$w": ["watchword", "mallory"] } }).to_string().as_bytes(),
        );
    });
    let open = look(&own).await;
    let (_, faults) = &open.streams[0];
    assert!(faults.iter().any(|it| it.contains("every account of the server may read it")), "{faults:?}");
    assert!(faults.iter().any(|it| it.contains("mallory may write to it")), "{faults:?}");
    assert!(faults.iter().any(|it| it.contains("delete")) && faults.len() == 4, "{faults:?}");
    server.tamper(&format!("$${}", own.stream), Vec::clear);
    assert!(look(&own).await.streams[0].1[0].contains("no $acl"));

    let admin = look(&at(&server, "admin:of-the-administrators@", &anywhere)).await;
    assert!(admin.is_administrator);
    server.set_password("admin", "changeit");
    assert_eq!(look(&own).await.factory, ["admin", "ops"]);

    let open = World::stand_in().await;
    open.open("one").await.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let rights = look(&open).await;
    assert_eq!((rights.user, rights.asks_for_passwords, rights.factory), (None, false, vec![]));
}

/// A stream that an earlier version created without access rights.
#[tokio::test]
async fn an_older_stream_is_protected_when_a_node_starts() {
    let server = Server::start_with(&ACCOUNTS).await;
    let own = at(&server, OWN, &World::on(None, &server.url()));
    let journal = own.open("own").await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.close().await;
    server.tamper(&format!("$${}", own.stream), Vec::clear);
    own.open("own").await.close().await;
    assert_eq!(server.about(&own.stream).expect("is there")["$acl"]["$w"], json!(["watchword"]));
    // Rights that an administrator has set stay.
    server.tamper(&format!("$${}", own.stream), |events| {
        events[0].set_data(br#"{"$acl":{"$w":["watchword","other"]}}"#);
    });
    own.open("own").await.close().await;
    assert_eq!(server.about(&own.stream).expect("is there")["$acl"]["$w"], json!(["watchword", "other"]));
}

/// Two authorities, and a server's certificate for `localhost` by the first one.
fn certificates(folder: &Path) {
    const SCRIPT: &str = "
set -e
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \"$@\"; }
new -subj /CN=authority -keyout ca.key -out ca.pem
new -subj /CN=another -keyout other.key -out other.pem
new -subj /CN=localhost -CA ca.pem -CAkey ca.key -keyout server.key -out server.crt \
  -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let output = Command::new("sh").args(["-c", SCRIPT]).current_dir(folder).output().expect("a shell runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn secured(folder: &Path) -> Server {
    let chain = CertificateDer::pem_file_iter(folder.join("server.crt")).expect("reads");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("is PEM");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("reads");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        config.expect("knows TLS").with_no_client_auth().with_single_cert(chain, key).expect("fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Server::start_at("127.0.0.1:0", &ACCOUNTS, Some(TlsAcceptor::from(Arc::new(config)))).await
}

#[tokio::test]
async fn with_tls_only_the_configured_authority_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path());
    let server = secured(folder.path()).await;
    let url = |parameters: &str| format!("esdb://{OWN}localhost:{}?{parameters}", server.port());
    let of = |name: &str| format!("tls=true&tlsCaFile={}", folder.path().join(name).display());
    let world = World::on(None, &url(&of("ca.pem")));
    let journal: KurrentJournal = world.open("own").await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    assert_eq!(journal.head().await, Ok(1));
    let rights = KurrentRights::look(&world.url, &settings(&world), &[]).await.expect("looks");
    assert_eq!(rights.streams, [(world.stream.clone(), vec![])]);
    std::fs::write(folder.path().join("empty.pem"), "").expect("writes");
    for (parameters, told) in [
        (String::new(), "tlsCaFile="),
        ("tls=true".to_owned(), "tlsCaFile="),
        (of("other.pem"), "an unknown authority"),
        (of("absent.pem"), "absent.pem cannot be read"),
        (of("empty.pem"), "holds no certificate"),
    ] {
        let said = refused(&World::on(None, &url(&parameters)), "other").await;
        assert!(said.contains(told), "{parameters}: {said}");
    }
    let elsewhere = url(&of("ca.pem")).replace("localhost", "127.0.0.1");
    let said = refused(&World::on(None, &elsewhere), "other").await;
    assert!(said.contains("its certificate is for another name"), "{said}");
    // Only one of the two uses TLS.
    let plain = World::on(None, &url("tls=false"));
    let error = plain.try_open("other", plain.hasty()).await.err().expect("is refused").to_string();
    assert!(error.contains("remove tls=false"), "{error}");
    let open = Server::start().await;
    let said = refused(&World::on(None, &format!("esdb://127.0.0.1:{}", open.port())), "other").await;
    assert!(said.contains("set tls=false"), "{said}");
}

/// Two providers of cryptography are built in with this feature, and `sslmode=verify-ca` takes the process's.
#[tokio::test]
async fn a_key_store_whose_authority_is_checked_is_reached_without_a_panic() {
    use event_store::{PostgresSettings, PostgresUrl, postgres::PostgresServer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = listener.local_addr().expect("an address");
    let greeted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // The request for TLS, which is granted; then the first byte of a handshake.
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.expect("it asks for TLS");
        stream.write_all(b"S").await.expect("writes");
        stream.read_u8().await
    });
    let url: PostgresUrl = format!("postgres://u:p@{place}/db?sslmode=verify-ca").parse().expect("a URL");
    PostgresServer::look(&url, &PostgresSettings::default()).await.expect_err("it closes the connection");
    assert_eq!(greeted.await.expect("does not panic").expect("it began a handshake"), 0x16);
}
