//! The first start meets a full disk, and a later one has room: nothing that the first has left stands in the way.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Instant;

use test_services::Disk;
use tests::{PATIENCE, Server, email, until};

/// The room that the first start finds, in KiB: it ends at another step each time.
const ROOMS: [u64; 13] = [0, 4, 8, 16, 24, 32, 48, 64, 96, 160, 256, 512, 1024];

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_full_at_the_first_start() {
    let mut refused = 0;
    for room in ROOMS {
        let disk = Disk::new(8);
        let data = disk.path().join("data").display().to_string();
        let mut server =
            Server::new(&[("WATCHWORD_DATA_DIR", &data), ("WATCHWORD_ARGON2", "m=1024,t=1,p=1")]);
        disk.fill(room * 1024);
        refused += u32::from(!starts(&server, &disk).await);
        server.up().await;
        let key = server.platform_key();
        server.get("/v1/apps").bearer(&key).await.expect(200);
        server.default_app().register(&email("ada")).await;
        assert!(server.terminate().await.success());
        let doctor = server.command(&["doctor"]).output().expect("runs");
        assert!(doctor.status.success(), "{room} KiB: {}", String::from_utf8_lossy(&doctor.stdout));
        let left: Vec<_> =
            fs::read_dir(&data).expect("the folder").flatten().map(|it| it.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{room} KiB: {left:?}");
    }
    assert!(refused > 2, "the disk was too full for only {refused} starts");
}

/// Whether a start becomes ready. Else it has said that the disk is full, and has ended or waits for room. Then there is room,
/// and what has not ended becomes ready by itself.
async fn starts(server: &Server, disk: &Disk) -> bool {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let output = File::create(log.path()).expect("it can be written");
    let mut child = server
        .command(&["serve"])
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a handle"))
        .stderr(output)
        .spawn()
        .expect("it can be started");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            let said = fs::read_to_string(log.path()).expect("text");
            assert!(!status.success(), "{said}");
            let full =
                ["No space left", "disk is full", "disk I/O error"].iter().any(|text| said.contains(text));
            assert!(full && !said.contains("panicked"), "{said}");
            disk.free();
            return false;
        }
        if server.is_alive().await {
            let answer = server.get("/readyz").await;
            let is_full = answer.text.contains(r#""state":"full""#);
            if answer.status == 200 || is_full {
                disk.free();
                until("it has found the room", async || server.get("/readyz").await.status == 200).await;
                child.kill().expect("it runs");
                child.wait().expect("it can be waited for");
                return !is_full;
            }
        }
        let said = || fs::read_to_string(log.path()).expect("text");
        assert!(Instant::now() < deadline, "it neither starts nor ends: {}", said());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What earlier versions left: nothing was encrypted yet, so a new key is no loss.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_key_file_is_written_anew_unless_there_are_stores() {
    let mut server = Server::new(&[]);
    let data = server.data();
    fs::create_dir(&data).expect("a new folder");
    for file in ["master.key", "admin.key"] {
        fs::write(data.join(file), "").expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(data.join(file), mode).expect("set");
    }
    server.up().await;
    assert_eq!(fs::metadata(data.join("master.key")).expect("it is there").len(), 45);
    server.get("/v1/apps").bearer(&server.platform_key()).await.expect(200);
    assert!(server.terminate().await.success());

    let key = fs::read(data.join("master.key")).expect("read");
    fs::write(data.join("master.key"), "").expect("written");
    for command in ["serve", "doctor"] {
        let refused = server.command(&[command]).output().expect("runs");
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!refused.status.success() && said.contains("master.key is empty"), "{command}: {said}");
        assert!(said.contains("restore it from its backup"), "{command}: {said}");
    }
    assert_eq!(fs::metadata(data.join("master.key")).expect("it is there").len(), 0, "it is left alone");
    fs::write(data.join("master.key"), key).expect("written");
    server.up().await;
}
