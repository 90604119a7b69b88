//! Refuses filters that name something nonexistent: an empty page would say that it never happened.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use domain::app::App;
use domain::organization::Organization;
use domain::{AppId, OrganizationId};
use event_store::Repository;
use http_kit::Problem;
use schemas::field_codes;

/// The types of events, of all versions.
static TYPES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let name = |path: String| Some(path.rsplit('/').next()?.split('.').next()?.to_owned());
    schemas::event_schemas::all()
        .into_keys()
        .filter(|path| path.starts_with("events/"))
        .filter_map(name)
        .collect()
});

/// 422 unless events can have this type.
pub(crate) fn known_type(kind: &str) -> Result<(), Problem> {
    if TYPES.contains(kind) {
        return Ok(());
    }
    let detail = "no event has this type, which is compared exactly; GET /schemas lists the types";
    Err(Problem::invalid_parameter("type", field_codes::UNKNOWN_TYPE, detail))
}

/// 422 unless there is this app.
pub(crate) async fn known_app(repository: &Repository, app_id: &AppId) -> Result<(), Problem> {
    if repository.load::<App>(app_id).await?.state.id.is_some() {
        return Ok(());
    }
    Err(Problem::invalid_parameter(
        "app_id",
        field_codes::UNKNOWN_APP,
        "there is no such app; GET /v1/apps lists them",
    ))
}

/// 422 unless the app has, or had, this organization.
pub(crate) async fn known_organization(
    repository: &Repository,
    app_id: &AppId,
    organization: OrganizationId,
) -> Result<(), Problem> {
    if repository.load::<Organization>(&organization).await?.state.app_id.as_ref() == Some(app_id) {
        return Ok(());
    }
    let detail = "the app has no such organization";
    Err(Problem::invalid_parameter("org_id", field_codes::UNKNOWN_ORGANIZATION, detail))
}
