//! Signing keys: those that are to sign by themselves, and settings that lock verifiers out.

use command_service::{APPS, KeySwitch};
use domain::app::App;
use domain::{AppId, Timestamp};
use event_store::{Repository, StoreError};
use serde_json::Value;
use tokens::algorithm_name;

use super::Findings;

const ABOUT: &str = "signing keys";

/// Of the apps in the journal.
pub(super) async fn examine(findings: &mut Findings, repository: &Repository, at: Timestamp) {
    if let Err(error) = look(findings, repository, at).await {
        findings.fault(ABOUT, error.to_string());
    }
}

async fn look(findings: &mut Findings, repository: &Repository, at: Timestamp) -> Result<(), StoreError> {
    let mut apps = 0;
    for (claim, _) in repository.journal().claims(APPS, "").await? {
        let Ok(app_id) = AppId::parse(claim.key) else { continue };
        let app = repository.load::<App>(&app_id).await?;
        if app.state.signing_key(at).is_none() {
            continue;
        }
        apps += 1;
        if let Some(switch) = KeySwitch::of(&app.state, at) {
            let (kid, alg, from) = (&switch.kid, algorithm_name(switch.alg), switch.signs_from);
            findings.fine(ABOUT, format!("{app_id}: {kid} ({alg}) signs from {from}"));
        }
        if app.state.settings.key_propagation == 0 {
            let text = "key_propagation is 0: after a rotation verifiers refuse new tokens until they fetch the keys again";
            findings.warning(ABOUT, format!("{app_id}: {text}"));
        }
    }
    findings.fine(ABOUT, format!("{apps} apps have one that signs"));
    Ok(())
}

/// Of a running server, as `/readyz` tells it.
pub(super) fn tell(findings: &mut Findings, check: &Value) {
    for switch in check["scheduled"].as_array().into_iter().flatten() {
        let text = |member: &str| switch[member].as_str().unwrap_or_default();
        let (app, kid, alg, from) = (text("app_id"), text("kid"), text("alg"), text("signs_from"));
        findings.fine(ABOUT, format!("{app}: {kid} ({alg}) signs from {from}"));
    }
}
