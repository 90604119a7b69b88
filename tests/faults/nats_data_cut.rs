//! A power loss takes the end of the stream, which JetStream had acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use test_services::Nats;
use tests::workload::History;
use tests::{Bus, checker};

use crate::server_with;

/// Cuts off the last fifth of a file.
pub fn cut(path: &Path) {
    let file = fs::File::options().write(true).open(path).expect("it can be opened");
    let length = file.metadata().expect("it has a length").len();
    file.set_len(length * 8 / 10).expect("it can be cut");
}

/// The newest file with messages below a folder.
pub fn newest_block(folder: &Path) -> Option<PathBuf> {
    let mut blocks = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "blk")
                && path.parent()?.ends_with("WATCHWORD/msgs")
            {
                let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
                blocks.push((number, path));
            }
        }
    }
    blocks.into_iter().max().map(|(_, path)| path)
}

/// After a kill, the stream simply ends earlier.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_block_loses_a_fifth_after_a_kill() {
    the_newest_block_loses_a_fifth(Nats::kill).await;
}

/// After a proper stop, the server remembers how far the stream went, and has holes.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_block_loses_a_fifth_after_a_stop() {
    the_newest_block_loses_a_fifth(Nats::stop).await;
}

async fn the_newest_block_loses_a_fifth(end: fn(&mut Nats)) {
    let mut bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(100).await).await;
    checker::check_running(&server, Some(&bus), &history).await;
    history
        .during(&[&server], async |load| {
            end(&mut bus);
            cut(&newest_block(bus.store()).expect("the stream has messages"));
            load.done(30).await;
            bus.up();
            load.done(30).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}
