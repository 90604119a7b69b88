//! A bit of a stored event flips on disk: requests that need the event are refused with an error, all others work, and
//! nothing after it is taken for granted.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::workload::History;
use tests::{Bus, PASSWORD, checker, email, of_type};

use crate::{server_with, until};

/// Flips a bit of a stored text that occurs once, or flips it back.
fn flip(journal: &Path, text: &str, from: u8) {
    let mut bytes = fs::read(journal).expect("it can be read");
    let needle = [&text.as_bytes()[..text.len() - 1], &[from]].concat();
    let places: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 1, "{text} is in the file once");
    bytes[places[0] + needle.len() - 1] ^= 1;
    fs::write(journal, bytes).expect("it can be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_of_a_stored_event_flips() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    let (victim, other) = (email("victim"), email("other"));
    let (tokens, _) =
        (server.default_app().register(&victim).await, server.default_app().register(&other).await);
    history.during(&[&server], async |load| load.done(60).await).await;
    let position = registered(&server.events().await, &tokens.user_id);

    // The user in the event, in the journal's file.
    let text = format!("\"method\":\"password\",\"user_id\":\"{}", tokens.user_id);
    let (digit, journal) =
        (*text.as_bytes().last().expect("it has an end"), server.data().join("journal.db"));
    checker::forget_read_models(&mut server).await;
    flip(&journal, &text, digit);
    server.up_open().await;

    // The projectors stop right before it, and say so.
    let key = server.platform_key();
    until("the projectors stop at it", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        list["items"].as_array().expect("a list has items").iter().all(|it| {
            it["state"] == "failed"
                && it["failed_position"] == position
                && it["position"] == position - 1
                && it["error"].as_str().is_some_and(|error| error.contains("its MAC is wrong"))
        })
    })
    .await;
    server.get("/readyz").await.problem(503, "not_ready");

    // Requests that need the unreadable event are refused; others are unaffected.
    let app = server.default_app();
    for call in [app.me(&tokens.access), app.refresh(&tokens.refresh), app.login(&victim, PASSWORD)] {
        call.await.problem(503, "journal_damaged");
    }
    app.login(&other, PASSWORD).await.expect(200);
    history.during(&[&server], async |load| load.done(30).await).await;
    assert!(history.all_were_answered());

    assert!(server.terminate().await.success());
    let doctor = server.command(&["doctor", "--json"]).output().expect("it runs");
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success() && found.contains(&format!("event {position}")), "{found}");

    // A backup of the file has the right bit.
    flip(&journal, &text, digit ^ 1);
    server.up().await;
    server.default_app().me(&tokens.access).await.expect(200);
    checker::check(&mut server, Some(&bus), &history).await;
}

/// The position of a user's registration.
fn registered(events: &[Value], user_id: &str) -> u64 {
    let registrations = of_type(events, "UserRegistered");
    let own = registrations.iter().find(|it| it["data"]["user_id"] == user_id).expect("it is in the log");
    own["position"].as_u64().expect("a position")
}
