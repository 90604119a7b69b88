//! The disk fills up, and then has room again.

use test_services::{Disk, Nats};
use tests::workload::History;
use tests::{Bus, Server, checker};

use crate::{relay, server_of, server_with, until};

/// The size of the disks, in MiB.
const SIZE: u32 = 64;
/// The room that is left: enough for some dozen commits.
const ROOM: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_disk_is_full() {
    let (bus, disk) = (Bus::start(), Disk::new(SIZE));
    let data = disk.path().join("data").display().to_string();
    let mut server = server_of(&bus, &[("WATCHWORD_DATA_DIR", &data)]).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            disk.fill(ROOM);
            load.failed(30).await;
            // Reading needs no room.
            assert!(!server.events().await.is_empty());
            disk.free();
            load.done(40).await;
        })
        .await;
    server.says("disk is full").await;
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_models_disk_is_full() {
    let (bus, disk) = (Bus::start(), Disk::new(SIZE));
    let url = format!("sqlite:{}/read-models.db", disk.path().display());
    let mut server = server_of(&bus, &[("WATCHWORD_READ_MODELS_URL", &url)]).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            disk.fill(ROOM);
            until("a projector says that the disk is full", async || says_full(&server).await).await;
            load.done(30).await;
            disk.free();
            load.done(30).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    checker::check(&mut server, Some(&bus), &history).await;
}

async fn says_full(server: &Server) -> bool {
    let list = server.get("/v1/projections").bearer(&server.platform_key()).await.expect(200).json();
    let items = list["items"].as_array().expect("a list has items");
    items.iter().any(|it| it["error"].as_str().is_some_and(|error| error.contains("disk is full")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_nats_is_full() {
    let disk = Disk::new(SIZE);
    let mut bus = Bus::of(Nats::start_on(&disk));
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            disk.fill(ROOM);
            until("the relay is interrupted", async || relay(&server).await["ok"] == false).await;
            load.done(30).await;
            disk.free();
            // A stream whose file met the full disk accepts nothing until nats-server is restarted.
            bus.stop();
            bus.up();
            load.done(30).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}
