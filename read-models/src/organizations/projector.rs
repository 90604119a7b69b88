//! Fills `organizations`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::organization::{OrganizationCreated, OrganizationEvent};
use domain::{Event, OrganizationId, Timestamp};

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows;
use crate::sql::{Query, Rows, Transaction};
use crate::store::ReadModels;
use crate::text;

/// How many characters of a word are indexed, and compared.
pub(super) const WORD: usize = 20;

/// Writes `organizations`.
pub struct OrganizationsProjector;

impl OrganizationsProjector {
    pub(crate) fn new(_: &ReadModels) -> Self {
        Self
    }
}

/// A row while a batch changes it.
struct Draft {
    app_id: String,
    name: String,
    slug: String,
    members: i64,
    created_at: i64,
    updated_at: i64,
    /// Whether the batch creates it.
    is_new: bool,
    /// Whether its words differ from those in the table.
    renamed: bool,
    deleted: bool,
}

#[async_trait]
impl Projector for OrganizationsProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["organizations_v1", "organization_words_v1", "organization_counts_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &["organization_words_v1_organization"]
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut events = Vec::new();
        for event in batch {
            if let Event::Organization(event) = event.event()? {
                events.push(event);
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let mut drafts = load(tx, &events).await?;
        for event in events {
            change(&mut drafts, event)?;
        }
        write(tx, drafts).await
    }
}

/// The current rows of the organizations that the events are about.
async fn load(
    tx: &mut Transaction,
    events: &[&OrganizationEvent],
) -> Result<BTreeMap<OrganizationId, Draft>, ProjectError> {
    let ids: BTreeSet<OrganizationId> = events.iter().map(|event| event.organization_id()).collect();
    let mut wanted = Rows::new(["id"]);
    for id in ids {
        wanted.push([id.0.into()]);
    }
    let found = "SELECT * FROM organizations_v1 WHERE organization_id IN (SELECT id FROM {rows})";
    let mut drafts = BTreeMap::new();
    for row in &tx.run_for(&wanted, found).await? {
        let draft = Draft {
            app_id: row.get("app_id")?,
            name: row.get("name")?,
            slug: row.get("slug")?,
            members: row.get("member_count")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
            is_new: false,
            renamed: false,
            deleted: false,
        };
        drafts.insert(OrganizationId(rows::id(row.get("organization_id")?)?), draft);
    }
    Ok(drafts)
}

fn change(
    drafts: &mut BTreeMap<OrganizationId, Draft>,
    event: &OrganizationEvent,
) -> Result<(), ProjectError> {
    if let OrganizationEvent::OrganizationCreated(event) = event {
        drafts.insert(event.organization_id, created(event));
        return Ok(());
    }
    let missing = ProjectError::Damaged("an event is about an organization that is not in the table");
    let draft = drafts.get_mut(&event.organization_id()).ok_or(missing)?;
    let mut touch = |at: Timestamp| draft.updated_at = at.as_microsecond();
    match event {
        OrganizationEvent::OrganizationCreated(_) => {}
        OrganizationEvent::OrganizationRenamed(event) => {
            touch(event.at);
            draft.name.clone_from(&event.name);
            event.slug.as_str().clone_into(&mut draft.slug);
            draft.renamed = true;
        }
        OrganizationEvent::OrganizationDeleted(_) => draft.deleted = true,
        OrganizationEvent::MemberAdded(event) => {
            touch(event.at);
            draft.members += 1;
        }
        OrganizationEvent::InvitationAccepted(event) => {
            touch(event.at);
            draft.members += 1;
        }
        OrganizationEvent::MemberInvited(event) => touch(event.at),
        OrganizationEvent::InvitationRevoked(event) => touch(event.at),
        OrganizationEvent::OrganizationKeyIssued(event) => touch(event.at),
        OrganizationEvent::OrganizationKeyRevoked(event) => touch(event.at),
        OrganizationEvent::MemberRoleChanged(event) => touch(event.at),
        OrganizationEvent::OrganizationRoleSet(event) => touch(event.at),
        OrganizationEvent::OrganizationRoleDeleted(event) => touch(event.at),
        OrganizationEvent::MemberRemoved(event) => {
            touch(event.at);
            draft.members -= 1;
        }
    }
    Ok(())
}

fn created(event: &OrganizationCreated) -> Draft {
    Draft {
        app_id: event.app_id.to_string(),
        name: event.name.clone(),
        slug: event.slug.as_str().to_owned(),
        members: 0,
        created_at: event.at.as_microsecond(),
        updated_at: event.at.as_microsecond(),
        is_new: true,
        renamed: true,
        deleted: false,
    }
}

async fn write(tx: &mut Transaction, drafts: BTreeMap<OrganizationId, Draft>) -> Result<(), ProjectError> {
    let mut organizations = Rows::new([
        "organization_id",
        "app_id",
        "name",
        "sort_name",
        "slug",
        "member_count",
        "created_at",
        "updated_at",
    ]);
    let mut reworded = Rows::new(["id"]);
    let mut words = Rows::new(["word", "organization_id"]);
    let mut deleted = Rows::new(["id"]);
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (id, draft) in drafts {
        *counts.entry(draft.app_id.clone()).or_default() +=
            i64::from(draft.is_new) - i64::from(draft.deleted);
        if draft.renamed || draft.deleted {
            reworded.push([id.0.into()]);
        }
        if draft.deleted {
            deleted.push([id.0.into()]);
            continue;
        }
        if draft.renamed {
            for word in indexed_words(&draft) {
                words.push([word.into(), id.0.into()]);
            }
        }
        organizations.push([
            id.0.into(),
            draft.app_id.into(),
            draft.name.as_str().into(),
            text::fold(&draft.name).into(),
            draft.slug.into(),
            draft.members.into(),
            draft.created_at.into(),
            draft.updated_at.into(),
        ]);
    }
    tx.run_for(
        &organizations,
        "INSERT INTO organizations_v1 ({columns}) SELECT * FROM {rows} WHERE true
         ON CONFLICT (organization_id) DO UPDATE SET name = excluded.name, sort_name = excluded.sort_name,
           slug = excluded.slug, member_count = excluded.member_count, updated_at = excluded.updated_at",
    )
    .await?;
    let of_these = "WHERE organization_id IN (SELECT id FROM {rows})";
    tx.run_for(&reworded, &format!("DELETE FROM organization_words_v1 {of_these}")).await?;
    tx.run_for(&words, "INSERT INTO organization_words_v1 ({columns}) SELECT * FROM {rows}").await?;
    tx.run_for(&deleted, &format!("DELETE FROM organizations_v1 {of_these}")).await?;
    let mut changed = Rows::new(["app_id", "organizations"]);
    for (app_id, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
        changed.push([app_id.into(), count.into()]);
    }
    // What somebody else has put there must not stop the projector.
    let written = tx
        .run_for(
            &changed,
            "INSERT INTO organization_counts_v1 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (app_id) DO UPDATE SET organizations = excluded.organizations
               + CASE WHEN organization_counts_v1.organizations BETWEEN 0 AND 1000000000000
                 THEN organization_counts_v1.organizations ELSE 0 END
             RETURNING organizations",
        )
        .await?;
    for row in &written {
        if row.get::<i64>("organizations")? == 0 {
            tx.run(Query::new("DELETE FROM organization_counts_v1 WHERE organizations = 0")).await?;
            break;
        }
    }
    Ok(())
}

/// What finds an organization: the beginnings of each word of its name and slug.
fn indexed_words(draft: &Draft) -> BTreeSet<String> {
    let words = [&draft.name, &draft.slug].into_iter().flat_map(|it| text::words(it));
    let mut indexed = BTreeSet::new();
    for word in words {
        indexed.extend(text::beginnings(&word).map(|rest| indexed_word(&draft.app_id, rest)));
    }
    indexed
}

/// A word as the table has it. Apps' ids have no blanks, so none begins like another one's.
pub(super) fn indexed_word(app_id: &str, word: &str) -> String {
    let end = word.char_indices().nth(WORD).map_or(word.len(), |(at, _)| at);
    format!("{app_id} {}", &word[..end])
}
