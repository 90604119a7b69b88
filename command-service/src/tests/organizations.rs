//! Organizations over HTTP: ranks, what ends at once on every node, and what others see.

use domain::decisions::SetMember;
use domain::memberships::Memberships;
use domain::organization::{Acting, Organization, OrganizationId};

use super::*;

const ORGS: &str = "/v1/apps/default/orgs";

/// A user with an access token.
struct Somebody {
    id: UserId,
    token: String,
}

impl World {
    async fn somebody(&self, name: &str) -> Somebody {
        let registered = self.register(&format!("{name}@example.com")).await;
        Somebody { id: user_id(&registered), token: registered.text("access_token") }
    }

    async fn organization(&self, owner: &Somebody) -> String {
        let body = Some(json!({"name": "Engines"}));
        let made = self.call("POST", ORGS, Some(&owner.token), body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("id")
    }

    /// Makes a user a member, as an admin of the app would.
    async fn enrol(&self, org: &str, user: &Somebody, role: &str) {
        let organization_id = OrganizationId(org.parse().expect("an id"));
        let role = domain::Role::parse(role).expect("valid");
        let (acting, user_id, at) = (Acting::App, user.id, self.clock.now());
        let set = SetMember { organization_id, acting, user_id, role, at };
        let mut reads = Reads::new();
        let user = reads.of::<User>(&user_id);
        let organization = reads.of::<Organization>(&organization_id);
        let memberships = reads.of::<Memberships>(&user_id);
        let decide = move |work: &mut dispatcher::Work| {
            let (user, organization, memberships) = work.drafts((user, organization, memberships));
            set.decide(user, organization, memberships)
        };
        self.service.dispatcher.run(self.context_of_system(), reads, decide).await.expect("is enrolled");
    }

    async fn set_role(&self, org: &str, by: &Somebody, whom: &Somebody, role: &str) -> Answer {
        let path = format!("{ORGS}/{org}/members/{}", whom.id);
        self.call("PUT", &path, Some(&by.token), Some(json!({"role": role}))).await
    }

    async fn remove(&self, org: &str, by: &Somebody, whom: &Somebody) -> Answer {
        let path = format!("{ORGS}/{org}/members/{}", whom.id);
        self.call("DELETE", &path, Some(&by.token), None).await
    }

    async fn sees(&self, org: &str, user: &Somebody) -> bool {
        let path = format!("{ORGS}/{org}");
        match self.call("GET", &path, Some(&user.token), None).await.status.as_u16() {
            200 => true,
            404 => false,
            other => panic!("{other}"),
        }
    }
}

fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn inv_v_nobody_becomes_more_than_who_made_them_so() {
    let world = World::start().await;
    let (ada, bea, cleo, eve) = (
        world.somebody("ada").await,
        world.somebody("bea").await,
        world.somebody("cleo").await,
        world.somebody("eve").await,
    );
    let org = world.organization(&ada).await;
    world.enrol(&org, &bea, "admin").await;
    world.enrol(&org, &cleo, "member").await;
    let before = world.all_events().await;
    let forbidden = (403, "forbidden");
    assert_eq!(said(&world.set_role(&org, &bea, &bea, "owner").await), forbidden);
    assert_eq!(said(&world.set_role(&org, &bea, &ada, "member").await), forbidden);
    assert_eq!(said(&world.set_role(&org, &cleo, &cleo, "admin").await), forbidden);
    assert_eq!(said(&world.remove(&org, &bea, &ada).await), forbidden);
    assert_eq!(said(&world.remove(&org, &cleo, &bea).await), forbidden);
    assert_eq!(said(&world.set_role(&org, &ada, &ada, "admin").await), (409, "last_owner"));
    assert_eq!(said(&world.remove(&org, &ada, &ada).await), (409, "last_owner"));
    assert_eq!(said(&world.set_role(&org, &ada, &cleo, "boss").await), (422, "validation_failed"));
    assert_eq!(said(&world.set_role(&org, &ada, &cleo, "Owner").await), (422, "validation_failed"));
    // Whoever is no member cannot be made one, whether there is such a user or not.
    let absent = Somebody { id: UserId(world.clock.new_id()), token: String::new() };
    for nobody in [&eve, &absent] {
        assert_eq!(said(&world.set_role(&org, &ada, nobody, "member").await), (404, "not_found"));
        assert_eq!(said(&world.remove(&org, &ada, nobody).await), (404, "not_found"));
    }
    // To a stranger there is no organization.
    assert_eq!(said(&world.set_role(&org, &eve, &cleo, "boss").await), (404, "not_found"));
    assert_eq!(said(&world.remove(&org, &eve, &cleo).await), (404, "not_found"));
    for (method, body) in [("GET", None), ("DELETE", None), ("PATCH", Some(json!({"name": ""})))] {
        let answer = world.call(method, &format!("{ORGS}/{org}"), Some(&eve.token), body).await;
        assert_eq!(said(&answer), (404, "not_found"), "{method}");
    }
    let by_admin = world.call("DELETE", &format!("{ORGS}/{org}"), Some(&bea.token), None).await;
    assert_eq!(said(&by_admin), forbidden);
    assert_eq!(world.all_events().await, before, "a refusal writes nothing");
}

#[tokio::test]
async fn inv_d_what_was_taken_away_is_gone_on_every_node() {
    let world = World::start().await;
    let (ada, bea, cleo) =
        (world.somebody("ada").await, world.somebody("bea").await, world.somebody("cleo").await);
    let org = world.organization(&ada).await;
    world.enrol(&org, &bea, "admin").await;
    world.enrol(&org, &cleo, "member").await;
    let (node, _) = round_trips::node_of_many(&world);
    for member in [&ada, &bea, &cleo] {
        assert!(node.sees(&org, member).await);
    }
    // Demoted here, refused there.
    assert_eq!(world.set_role(&org, &ada, &bea, "member").await.status, 200);
    assert_eq!(said(&node.set_role(&org, &bea, &cleo, "admin").await), (403, "forbidden"));
    // Removed here, gone there.
    assert_eq!(world.remove(&org, &ada, &cleo).await.status, 204);
    assert!(!node.sees(&org, &cleo).await);
    let list = node.call("GET", ORGS, Some(&cleo.token), None).await;
    assert_eq!(list.body["total"], 0);
    let members = node.call("GET", &format!("{ORGS}/{org}/members"), Some(&bea.token), None).await;
    assert_eq!(members.body["total"], 2);
    let emails = members.body["items"].as_array().expect("a list").iter().map(|item| &item["email"]);
    assert!(emails.clone().any(|email| *email == "ada@example.com"), "{}", members.body);
    // Banned, and therefore nobody.
    world.by_platform("POST", &format!("/v1/apps/default/admin/users/{}/ban", bea.id), None).await;
    assert_eq!(node.call("GET", ORGS, Some(&bea.token), None).await.status, 401);
    // Deleted.
    assert_eq!(world.call("DELETE", &format!("{ORGS}/{org}"), Some(&ada.token), None).await.status, 204);
    assert!(!node.sees(&org, &ada).await);
    let lists = world.service.repository.load::<Memberships>(&bea.id).await.expect("loads");
    assert!(lists.state.organizations.is_empty(), "a deleted organization is in nobody's list");
}

/// The list of a person only says where to look: whoever could write more into it would be a member of nothing.
#[tokio::test]
async fn inv_r_a_list_makes_no_member() {
    use domain::memberships::MembershipsCommand;
    let world = World::start().await;
    let (ada, eve) = (world.somebody("ada").await, world.somebody("eve").await);
    let org = world.organization(&ada).await;
    let organization_id = OrganizationId(org.parse().expect("an id"));
    let join = MembershipsCommand::Join { user_id: eve.id, organization_id, at: world.clock.now() };
    let (reads, memberships) = Reads::one::<Memberships>(&eve.id);
    let decide = move |work: &mut dispatcher::Work| work.execute(memberships, join);
    world.service.dispatcher.run(world.context_of_system(), reads, decide).await.expect("is entered");
    assert!(!world.sees(&org, &eve).await);
    assert_eq!(world.call("GET", ORGS, Some(&eve.token), None).await.body["total"], 0);
    assert_eq!(world.me(&eve.token).await.body["orgs"], json!([]));
}

#[tokio::test]
async fn inv_h_a_slug_is_given_once_however_many_ask() {
    let world = World::start().await;
    let other = world.another_node();
    let (ada, eve) = (world.somebody("ada").await, world.somebody("eve").await);
    let body = || Some(json!({"name": "Engines", "slug": "engines"}));
    let (first, second) = tokio::join!(
        world.call("POST", ORGS, Some(&ada.token), body()),
        other.call("POST", ORGS, Some(&eve.token), body()),
    );
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{} {}", first.body, second.body);
}
