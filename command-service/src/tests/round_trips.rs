//! How often a request asks a journal on a server: each call of the journal is a round trip.

use event_store::contract::Nodes;

use super::*;

/// A node that remembers nothing, on a journal that others write to as well.
pub(super) fn node_of_many(world: &World) -> (World, Arc<Nodes>) {
    let journal = Arc::new(Nodes::new(vec![world.journal.clone()]));
    let (shared, keys) = (journal.clone() as Arc<dyn Journal>, &world.service.key_store);
    let limits = RateSettings { enabled: false, ..RateSettings::default() };
    let (service, router) = node(shared.clone(), keys, world.clock.clone(), "m=64,t=1,p=1", &limits);
    let (clock, key) = (world.clock.clone(), world.key.clone());
    (World { _dir: None, journal: shared, clock, service, router, key }, journal)
}

/// The answer to a request under a key of its own, and the calls that it took.
async fn ask(node: &World, journal: &Nodes, route: &str, body: Value) -> (Answer, String) {
    let path = format!("/v1/apps/default/auth/{route}");
    let key = format!("{}", node.clock.new_id());
    journal.calls();
    let answer = node.call_with("POST", &path, None, Some(body), Some(&key)).await;
    let calls = journal.calls();
    let calls: Vec<String> = calls.iter().map(|(method, count)| format!("{method} {count}")).collect();
    (answer, calls.join(", "))
}

/// Its key is looked up once before it, and once more by the append itself. What a decision rests on is guarded by the append,
/// so versions are asked about only for what is decided before it: the app of a registration, the person that a login has
/// found, and all that the check of the password rests on together.
#[tokio::test]
async fn a_request_looks_its_key_up_once_and_asks_about_versions_together() {
    let world = World::start().await;
    let (node, journal) = node_of_many(&world);
    let account = |email| json!({"email": email, "password": PASSWORD});
    let (first, _) = ask(&node, &journal, "register", account("ada@example.com")).await;
    assert_eq!(first.status, 201, "{}", first.body);

    let (registered, calls) = ask(&node, &journal, "register", account("eve@example.com")).await;
    assert_eq!(registered.status, 201, "{}", registered.body);
    assert_eq!(calls, "append 1, claim_owner 2, idempotent 1, versions 1");

    // That nobody has guessed at the account so far, and that the person is in no organization, is read together, and at hand
    // from the second login on.
    let (login, calls) = ask(&node, &journal, "login", account("ada@example.com")).await;
    assert_eq!(login.status, 200, "{}", login.body);
    let cold =
        "append 1, claim_owner 1, claims 1, idempotent 1, load_snapshots 1, read_streams 1, versions 2";
    assert_eq!(calls, cold);
    let (login, calls) = ask(&node, &journal, "login", account("ada@example.com")).await;
    assert_eq!(login.status, 200, "{}", login.body);
    assert_eq!(calls, "append 1, claim_owner 1, claims 1, idempotent 1, versions 2");

    let body = json!({"refresh_token": login.text("refresh_token")});
    let (refreshed, calls) = ask(&node, &journal, "refresh", body.clone()).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_eq!(calls, "append 1, idempotent 1");

    // What other nodes have written is still seen.
    assert_eq!(world.login("ada@example.com", "not her password").await.status, 401);
    let (_, calls) = ask(&node, &journal, "login", account("ada@example.com")).await;
    assert_eq!(calls, "append 1, claim_owner 1, claims 1, idempotent 1, read_stream 1, versions 2");
}

/// A person's organizations are asked about once, together, however many there are. Nobody else pays for them.
#[tokio::test]
async fn organizations_cost_their_members_one_question() {
    let world = World::start().await;
    let (node, journal) = node_of_many(&world);
    let ada = node.somebody("ada").await;
    for _ in 0..3 {
        node.organization(&ada).await;
    }
    let account = json!({"email": "ada@example.com", "password": PASSWORD});
    let (login, _) = ask(&node, &journal, "login", account.clone()).await;
    let (_, calls) = ask(&node, &journal, "login", account).await;
    assert_eq!(calls, "append 1, claim_owner 1, claims 1, idempotent 1, versions 3");
    let body = json!({"refresh_token": login.text("refresh_token")});
    let (refreshed, calls) = ask(&node, &journal, "refresh", body).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_eq!(calls, "append 1, idempotent 1, versions 1");

    // A node that has none of it at hand reads them together.
    let (cold, journal) = node_of_many(&world);
    let body = json!({"refresh_token": refreshed.text("refresh_token")});
    let (answer, calls) = ask(&cold, &journal, "refresh", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let together = "append 1, idempotent 1, load_snapshot 2, load_snapshots 2, read_stream 2, read_streams 2, versions 1";
    assert_eq!(calls, together);
}
