//! The rows of organizations and members, and what is found in them.

use domain::organization::{
    MemberAdded, MemberRemoved, MemberRoleChanged, OrganizationCreated, OrganizationDeleted,
    OrganizationEvent, OrganizationRenamed, RemovalReason, Slug,
};
use domain::{AppId, Event, OrganizationId, Role};
use uuid::Uuid;

use super::rows::both_ways;
use super::world::*;
use crate::members::{MemberFilter, MemberSort};
use crate::organizations::{OrganizationFilter, OrganizationSort};
use crate::{Paging, ReadError};

fn organization(n: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(0x0_0a60_0000 + n))
}

fn slug(text: &str) -> Slug {
    Slug::parse(text).expect("valid")
}

fn role(name: &str) -> Role {
    Role::parse(name).expect("valid")
}

pub(super) fn created(n: u128, name: &str, seconds: i64) -> Event {
    Event::Organization(OrganizationEvent::OrganizationCreated(OrganizationCreated {
        organization_id: organization(n),
        app_id: AppId::default_app(),
        name: name.to_owned(),
        slug: slug(&format!("slug-{n}")),
        at: at(seconds),
    }))
}

pub(super) fn renamed(n: u128, name: &str, seconds: i64) -> Event {
    Event::Organization(OrganizationEvent::OrganizationRenamed(OrganizationRenamed {
        organization_id: organization(n),
        app_id: AppId::default_app(),
        name: name.to_owned(),
        slug: slug(&format!("other-{n}")),
        at: at(seconds),
    }))
}

pub(super) fn deleted(n: u128, seconds: i64) -> Event {
    let deleted = OrganizationDeleted { organization_id: organization(n), at: at(seconds) };
    Event::Organization(OrganizationEvent::OrganizationDeleted(deleted))
}

pub(super) fn added(n: u128, member: u128, name: &str, seconds: i64) -> Event {
    Event::Organization(OrganizationEvent::MemberAdded(MemberAdded {
        organization_id: organization(n),
        user_id: user(member),
        role: role(name),
        at: at(seconds),
    }))
}

pub(super) fn changed(n: u128, member: u128, name: &str, seconds: i64) -> Event {
    Event::Organization(OrganizationEvent::MemberRoleChanged(MemberRoleChanged {
        organization_id: organization(n),
        user_id: user(member),
        role: role(name),
        at: at(seconds),
    }))
}

pub(super) fn removed(n: u128, member: u128, seconds: i64) -> Event {
    Event::Organization(OrganizationEvent::MemberRemoved(MemberRemoved {
        organization_id: organization(n),
        user_id: user(member),
        reason: RemovalReason::Removed,
        at: at(seconds),
    }))
}

async fn organizations_are_found_by_words(on: On) {
    let history = [
        created(1, "Zoë's Analytical Engines", 10),
        created(2, "ΟΔΥΣΣΕΥΣ Travel", 20),
        created(3, "株式会社山田商店", 30),
        created(4, "Former Name", 40),
        created(5, "Gone", 50),
        added(1, 1, "owner", 60),
        added(1, 2, "member", 70),
        added(2, 1, "owner", 80),
        renamed(4, "İstanbul AI", 90),
        removed(1, 2, 100),
        deleted(5, 110),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    let (app, other) = (AppId::default_app(), AppId::parse("other").expect("valid"));
    for models in ways {
        let list = async |app: &AppId, query: Option<&str>, sort| {
            let filter = OrganizationFilter { query: query.map(str::to_owned), sort };
            let page = models.organizations().list(app, &filter, &Paging::default()).await.expect("lists");
            assert_eq!(page.total, page.items.len() as u64, "{query:?}");
            page.items
        };
        let found = async |query: &str| {
            let items = list(&app, Some(query), OrganizationSort::CreatedAt).await;
            items.iter().map(|it| it.id.0.as_u128() - organization(0).0.as_u128()).collect::<Vec<_>>()
        };
        for (query, expected) in [
            ("zoe", vec![1]),
            ("ZOE\u{308}", vec![1]),
            ("eng ana", vec![1]),
            ("οδυσ", vec![2]),
            ("οδυσσεύς", vec![2]),
            ("istanbul", vec![4]),
            ("AI", vec![4]),
            ("山", vec![3]),
            ("商店", vec![3]),
            ("slug", vec![1, 2, 3]),
            ("former", vec![]),
            ("gone", vec![]),
            ("engines travel", vec![]),
        ] {
            assert_eq!(found(query).await, expected, "{query}");
        }
        let by_name = list(&app, None, OrganizationSort::Name).await;
        let names: Vec<&str> = by_name.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["İstanbul AI", "Zoë's Analytical Engines", "ΟΔΥΣΣΕΥΣ Travel", "株式会社山田商店"]);
        let newest = &list(&app, None, OrganizationSort::UpdatedAtDescending).await[0];
        assert_eq!((newest.name.as_str(), newest.updated_at), ("Zoë's Analytical Engines", at(100)));
        assert_eq!((newest.member_count, newest.created_at), (1, at(10)));
        assert_eq!(by_name[0].slug, "other-4");
        assert!(list(&other, None, OrganizationSort::Name).await.is_empty());
        assert!(list(&other, Some("zoe"), OrganizationSort::Name).await.is_empty());
        let no_word = OrganizationFilter { query: Some("--".to_owned()), ..OrganizationFilter::default() };
        let refused = models.organizations().list(&app, &no_word, &Paging::default()).await;
        assert!(matches!(refused, Err(ReadError::QueryWithoutWord)));
    }
}

async fn cursors_lead_through_every_organization_once(on: On) {
    let world = World::new(on).await;
    for n in 0..7 {
        world.append(&created(n, "Same Name", i64::from(n > 3)), 0).await;
    }
    world.catch_up(&world.models, 1000).await;
    let app = AppId::default_app();
    for query in [None, Some("same")] {
        for sort in [
            OrganizationSort::Name,
            OrganizationSort::NameDescending,
            OrganizationSort::CreatedAtDescending,
            OrganizationSort::UpdatedAt,
        ] {
            let filter = OrganizationFilter { query: query.map(str::to_owned), sort };
            let (mut seen, mut paging) = (Vec::new(), Paging { limit: 3, ..Paging::default() });
            loop {
                let page = world.models.organizations().list(&app, &filter, &paging).await.expect("lists");
                assert_eq!(page.total, 7);
                seen.extend(page.items.iter().map(|it| it.id));
                paging.cursor = page.next_cursor;
                let Some(cursor) = &paging.cursor else { break };
                let other = OrganizationFilter { sort: OrganizationSort::CreatedAt, ..filter.clone() };
                let of_other = Paging { cursor: Some(cursor.clone()), ..Paging::default() };
                let refused = world.models.organizations().list(&app, &other, &of_other).await;
                assert!(matches!(refused, Err(ReadError::Cursor)));
            }
            assert_eq!(seen.len(), 7, "{filter:?}");
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 7, "{filter:?}");
        }
    }
}

async fn members_are_who_is_in(on: On) {
    let history = [
        created(1, "One", 0),
        created(2, "Two", 0),
        added(1, 1, "owner", 10),
        added(1, 2, "member", 20),
        added(1, 3, "member", 30),
        added(2, 1, "owner", 40),
        added(2, 3, "member", 50),
        changed(1, 2, "admin", 60),
        removed(1, 3, 70),
        added(1, 3, "member", 80),
        added(1, 4, "member", 90),
        registered(4, "dora@example.com", "Dora", 95),
        // Nobody has ended her membership yet.
        erased(4, 100),
        deleted(2, 110),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    for models in ways {
        let list = async |n, role: Option<&str>, sort| {
            let filter = MemberFilter { role: role.map(|name| Role::parse(name).expect("valid")), sort };
            let page = models.members().list(organization(n), &filter, &Paging::default()).await;
            let page = page.expect("lists");
            assert_eq!(page.total, page.items.len() as u64);
            page.items.into_iter().map(|row| (row.user_id, row.role.to_string())).collect::<Vec<_>>()
        };
        let named = |n, name: &str| (user(n), name.to_owned());
        assert_eq!(
            list(1, None, MemberSort::JoinedAt).await,
            [named(1, "owner"), named(2, "admin"), named(3, "member")]
        );
        assert_eq!(list(1, Some("admin"), MemberSort::JoinedAtDescending).await, [named(2, "admin")]);
        assert_eq!(list(2, None, MemberSort::JoinedAt).await, []);
        let mut paging = Paging { limit: 2, ..Paging::default() };
        let filter = MemberFilter { sort: MemberSort::JoinedAtDescending, ..MemberFilter::default() };
        let first = models.members().list(organization(1), &filter, &paging).await.expect("lists");
        paging.cursor = first.next_cursor;
        let second = models.members().list(organization(1), &filter, &paging).await.expect("lists");
        assert_eq!((first.items.len(), second.items.len(), second.next_cursor), (2, 1, None));
        assert_eq!(second.items[0].user_id, user(1));
    }
}

on_both! {
    organizations_are_found_by_words,
    cursors_lead_through_every_organization_once,
    members_are_who_is_in,
}
