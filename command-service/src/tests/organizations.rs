//! Organizations over HTTP: ranks, what ends at once on every node, and what others see.

use domain::decisions::SetMember;
use domain::memberships::Memberships;
use domain::organization::{Acting, Organization, OrganizationId};
use domain::role_templates::RoleTemplates;

use super::*;

pub(super) const ORGS: &str = "/v1/apps/default/orgs";

/// A user with an access token.
pub(super) struct Somebody {
    pub id: UserId,
    pub token: String,
}

impl World {
    pub(super) async fn somebody(&self, name: &str) -> Somebody {
        let registered = self.register(&format!("{name}@example.com")).await;
        Somebody { id: user_id(&registered), token: registered.text("access_token") }
    }

    pub(super) async fn organization(&self, owner: &Somebody) -> String {
        let body = Some(json!({"name": "Engines"}));
        let made = self.call("POST", ORGS, Some(&owner.token), body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("id")
    }

    /// Makes a user a member, as an admin of the app would.
    pub(super) async fn enrol(&self, org: &str, user: &Somebody, role: &str) {
        let organization_id = OrganizationId(org.parse().expect("an id"));
        let role = domain::Role::parse(role).expect("valid");
        let (acting, user_id, at) = (Acting::App, user.id, self.clock.now());
        let set = SetMember { organization_id, acting, user_id, role, at };
        let mut reads = Reads::new();
        let user = reads.of::<User>(&user_id);
        let organization = reads.of::<Organization>(&organization_id);
        let templates = reads.of::<RoleTemplates>(&AppId::default_app());
        let memberships = reads.of::<Memberships>(&user_id);
        let decide = move |work: &mut dispatcher::Work| {
            let (user, organization, templates, memberships) =
                work.drafts((user, organization, templates, memberships));
            set.decide(user, organization, templates, memberships)
        };
        self.service.dispatcher.run(self.context_of_system(), reads, decide).await.expect("is enrolled");
    }

    pub(super) async fn set_role(&self, org: &str, by: &Somebody, whom: &Somebody, role: &str) -> Answer {
        let path = format!("{ORGS}/{org}/members/{}", whom.id);
        self.call("PUT", &path, Some(&by.token), Some(json!({"role": role}))).await
    }

    pub(super) async fn remove(&self, org: &str, by: &Somebody, whom: &Somebody) -> Answer {
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

pub(super) fn said(answer: &Answer) -> (u16, &str) {
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

impl World {
    /// A user whose address is verified.
    async fn proven(&self, name: &str) -> Somebody {
        let address = format!("{name}@example.com");
        let id = user_id(&self.register(&address).await);
        self.verify("default", &address).await;
        let token = self.login(&address, PASSWORD).await.text("access_token");
        Somebody { id, token }
    }

    /// The token of an invitation to this address.
    async fn invite(&self, org: &str, by: &Somebody, name: &str, role: &str) -> String {
        let body = json!({"email": format!("{name}@example.com"), "role": role});
        let path = format!("{ORGS}/{org}/invitations");
        let made = self.call("POST", &path, Some(&by.token), Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        self.token("MemberInvited").await
    }

    async fn accept(&self, by: &Somebody, token: &str) -> Answer {
        let path = "/v1/apps/default/auth/invitations/accept";
        self.call("POST", path, Some(&by.token), Some(json!({ "token": token }))).await
    }
}

#[tokio::test]
async fn inv_v_no_invitation_gives_more_than_its_maker_has_and_it_dies_with_that_right() {
    let world = World::start().await;
    let (ada, bea, cleo, eve) = (
        world.proven("ada").await,
        world.proven("bea").await,
        world.proven("cleo").await,
        world.proven("eve").await,
    );
    let org = world.organization(&ada).await;
    world.enrol(&org, &bea, "admin").await;
    world.enrol(&org, &cleo, "member").await;
    let path = format!("{ORGS}/{org}/invitations");
    let invite = async |by: &Somebody, role: &str| {
        let body = json!({"email": "eve@example.com", "role": role});
        world.call("POST", &path, Some(&by.token), Some(body)).await
    };
    assert_eq!(said(&invite(&bea, "owner").await), (403, "forbidden"));
    assert_eq!(said(&invite(&cleo, "member").await), (403, "forbidden"));
    assert_eq!(said(&invite(&eve, "member").await), (404, "not_found"));
    assert_eq!(said(&invite(&ada, "boss").await), (422, "validation_failed"));
    let list = world.call("GET", &path, Some(&cleo.token), None).await;
    assert_eq!(said(&list), (403, "forbidden"), "invited addresses are for those who invite");
    let dead = (400, "invalid_or_expired_token");

    let demoted = world.invite(&org, &bea, "eve", "admin").await;
    assert_eq!(world.set_role(&org, &ada, &bea, "member").await.status, 200);
    assert_eq!(said(&world.accept(&eve, &demoted).await), dead);
    assert_eq!(world.set_role(&org, &ada, &bea, "admin").await.status, 200);
    assert_eq!(said(&world.accept(&eve, &demoted).await), dead, "a promotion brings none back");

    let removed = world.invite(&org, &bea, "eve", "admin").await;
    assert_eq!(world.remove(&org, &ada, &bea).await.status, 204);
    assert_eq!(said(&world.accept(&eve, &removed).await), dead);

    let banned = world.invite(&org, &ada, "eve", "owner").await;
    world.ban(ada.id).await;
    assert_eq!(said(&world.accept(&eve, &banned).await), dead);
}

#[tokio::test]
async fn inv_g_an_invitation_is_for_one_address_one_organization_and_one_time() {
    let world = World::start().await;
    let (ada, bea, eve) = (world.proven("ada").await, world.proven("bea").await, world.proven("eve").await);
    let (org, other) = (world.organization(&ada).await, world.organization(&eve).await);
    let token = world.invite(&org, &ada, "bea", "member").await;
    let dead = (400, "invalid_or_expired_token");

    // Another account, and one that has not proven the address.
    assert_eq!(said(&world.accept(&eve, &token).await), (403, "forbidden"));
    let unproven = world.somebody("dora").await;
    let to_dora = world.invite(&org, &ada, "dora", "member").await;
    assert_eq!(said(&world.accept(&unproven, &to_dora).await), (403, "email_not_verified"));
    // Every bit of it counts: nobody makes it one of another organization.
    let foreign = world.invite(&other, &eve, "bea", "owner").await;
    for at in 0..token.len() {
        let mut edited = token.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        let edited = String::from_utf8(edited).expect("ASCII");
        // The last characters of base64 have bits that mean nothing.
        assert!(edited == token || world.accept(&bea, &edited).await.status != 200, "{at}: {edited}");
    }
    let half = token.len() / 2;
    for swapped in
        [format!("{}{}", &token[..half], &foreign[half..]), token[..half].to_owned(), String::new()]
    {
        assert_eq!(said(&world.accept(&bea, &swapped).await), dead, "{swapped}");
    }
    // Revoked.
    let list = world.call("GET", &format!("{ORGS}/{org}/invitations"), Some(&ada.token), None).await;
    let of_dora = list.body["items"].as_array().expect("a list").iter();
    let of_dora = of_dora.clone().find(|it| it["email"] == "dora@example.com").expect("is listed");
    let path = format!("{ORGS}/{org}/invitations/{}", of_dora["id"].as_str().expect("an id"));
    assert_eq!(world.call("DELETE", &path, Some(&ada.token), None).await.status, 204);
    world.verify("default", "dora@example.com").await;
    let dora = world.login("dora@example.com", PASSWORD).await.text("access_token");
    let dora = Somebody { id: unproven.id, token: dora };
    assert_eq!(said(&world.accept(&dora, &to_dora).await), dead);
    // Raced from two nodes.
    let node = world.another_node();
    let (here, there) = tokio::join!(world.accept(&bea, &token), node.accept(&bea, &token));
    let mut statuses = [here.status.as_u16(), there.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{} {}", here.body, there.body);
    assert_eq!(world.events("InvitationAccepted").await, 1);
    // A member is not made one again.
    let again = world.invite(&org, &ada, "bea", "owner").await;
    assert_eq!(said(&world.accept(&bea, &again).await), (409, "already_member"));
    // Expired, and of a deleted organization.
    let late = world.invite(&org, &ada, "eve", "member").await;
    world.clock.advance(SignedDuration::from_secs(604_800));
    let eve =
        Somebody { id: eve.id, token: world.login("eve@example.com", PASSWORD).await.text("access_token") };
    let ada =
        Somebody { id: ada.id, token: world.login("ada@example.com", PASSWORD).await.text("access_token") };
    assert_eq!(said(&world.accept(&eve, &late).await), dead);
    let to_nobody = world.invite(&org, &ada, "eve", "member").await;
    assert_eq!(world.call("DELETE", &format!("{ORGS}/{org}"), Some(&ada.token), None).await.status, 204);
    assert_eq!(said(&world.accept(&eve, &to_nobody).await), dead);
}

#[tokio::test]
async fn a_member_mails_strangers_only_so_often() {
    let two_a_day =
        Rate { requests: 2.try_into().expect("not zero"), seconds: 86_400.try_into().expect("not zero") };
    let limits = RateSettings { invitations: two_a_day, ..RateSettings::default() };
    let world = World::with("m=64,t=1,p=1", limits).await;
    let (ada, bea) = (world.proven("ada").await, world.proven("bea").await);
    let (org, other, own) =
        (world.organization(&ada).await, world.organization(&ada).await, world.organization(&bea).await);
    world.enrol(&org, &bea, "admin").await;
    let invite = async |org: &str, by: &Somebody, address: &str| {
        let body = json!({"email": address});
        let path = format!("{ORGS}/{org}/invitations");
        world.call("POST", &path, Some(&by.token), Some(body)).await
    };
    let many = (429, "rate_limited");
    assert_eq!(invite(&org, &ada, "one@example.com").await.status, 201);
    assert_eq!(invite(&other, &ada, "two@example.com").await.status, 201);
    assert_eq!(said(&invite(&other, &ada, "three@example.com").await), many, "of one user");
    assert_eq!(invite(&org, &bea, "four@example.com").await.status, 201);
    assert_eq!(said(&invite(&org, &bea, "five@example.com").await), many, "of one organization");
    // What was refused counts against nobody.
    assert_eq!(invite(&own, &bea, "six@example.com").await.status, 201);
    assert_eq!(world.events("MemberInvited").await, 4);

    let world = World::with("m=64,t=1,p=1", RateSettings::default()).await;
    let ada = world.proven("ada").await;
    let org = world.organization(&ada).await;
    let mut statuses = Vec::new();
    for tag in 0..6 {
        let body = json!({"email": format!("eve+{tag}@example.com")});
        let path = format!("{ORGS}/{org}/invitations");
        let answer = world.call("POST", &path, Some(&ada.token), Some(body)).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [201, 201, 201, 201, 201, 429], "of one mailbox");
}
