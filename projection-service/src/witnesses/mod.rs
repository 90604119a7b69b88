//! What witnesses say of the signed checkpoints: each is asked to sign every new one ([`asking`]), and their signatures are
//! served with it. Whoever requires them cannot be shown another history than everybody else.

mod asking;
mod client;
mod cosignatures;

use std::iter;
use std::sync::Arc;

use event_store::KeptCheckpoint;
use read_models::ReadModels;
use tasks::Task;
use tlog::note::Signature;
use tlog::{Note, VerifierKey};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use self::client::Client;
pub use self::client::WitnessSettings;
use crate::ProjectionService;
use crate::proofs::Notary;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    cosignatures::routes()
}

/// The configured witnesses.
pub(crate) struct Witnesses {
    keys: Vec<VerifierKey>,
}

impl Witnesses {
    /// Starts to ask them. The tasks end with the service.
    pub(crate) fn start(
        settings: Vec<WitnessSettings>,
        notary: &Arc<Notary>,
        models: &Arc<ReadModels>,
        ending: &watch::Receiver<bool>,
    ) -> (Self, Vec<Task>) {
        let keys = settings.iter().map(|witness| witness.key.clone()).collect();
        let asked = settings
            .into_iter()
            .map(|witness| asking::start(Client::new(witness), notary, models, ending.clone()));
        let tasks = asked.collect();
        (Self { keys }, tasks)
    }

    /// The note of a checkpoint, with the signatures of these witnesses behind those of the log. They are verified again: a
    /// line that only claims to be of a witness would spoil the whole note for who knows its key.
    pub(crate) fn note(&self, kept: &KeptCheckpoint) -> String {
        let cosigned = self.keys.iter().flat_map(|key| of_witness(kept, key));
        let lines = cosigned.map(|signature| signature.to_string());
        iter::once(kept.checkpoint.note.clone()).chain(lines).collect()
    }
}

/// The signatures of a witness that a checkpoint was kept with.
fn of_witness(kept: &KeptCheckpoint, key: &VerifierKey) -> Vec<Signature> {
    let Ok(note) = kept.checkpoint.note.parse::<Note>() else { return vec![] };
    let lines = kept.cosignatures.iter().filter_map(|line| Signature::parse(line.trim_end_matches('\n')));
    let mine = lines.filter(|line| line.name() == key.name()).filter_map(|line| {
        let alone = Note { text: note.text.clone(), signatures: vec![line] };
        alone.verified(std::slice::from_ref(key)).ok()?.pop()
    });
    mine.take(1).collect()
}
