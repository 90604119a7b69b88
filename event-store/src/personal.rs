//! The sealed parts of events: opened with the key of the person that the event is about, or with a key of the instance
//! if it is about no person.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::user::Client;
use domain::{Event, Personal, UserId};
use schemas::codec;
use schemas::envelope::{Actor, ActorKind, RecordedEvent};
use uuid::Uuid;

use crate::journal::{NewEvent, StoreError};
use crate::sealing::Sealer;

/// The request that made an event: where it came from and who made it.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a> {
    /// Where it came from.
    pub client: &'a Client,
    /// Who made it.
    pub actor: &'a Actor,
}

impl Requested<'_> {
    fn user(&self) -> Option<UserId> {
        let id = self.actor.id.as_ref().filter(|_| self.actor.kind == ActorKind::User)?;
        id.parse().ok().map(UserId)
    }
}

/// Used instead of a person if there is none.
const NO_PERSON: UserId = UserId(Uuid::nil());

/// The opened sealed part, as JSON. `None` if there is none, or its person was erased.
pub(crate) async fn open_bytes(
    keys: &Sealer,
    recorded: &RecordedEvent,
) -> Result<Option<Vec<u8>>, StoreError> {
    let RecordedEvent { id, name, .. } = recorded;
    match (recorded.person, &recorded.personal) {
        (Some(person), Some(sealed)) => keys.open(person, &event_aad(*id, name, person), sealed).await,
        (None, Some(sealed)) => keys.open_of_nobody(&event_aad(*id, name, NO_PERSON), sealed).map(Some),
        (_, None) => Ok(None),
    }
}

/// The opened personal part of an event. An event without personal members of its own has one too: it says where the
/// request came from. `None` if there is none, or its person was erased. If another user made the request and was
/// erased, it does not say where the request came from. An error if the person's key is missing without an erasure.
pub async fn open(keys: &Sealer, recorded: &RecordedEvent) -> Result<Option<Personal>, StoreError> {
    let Some(opened) = open_bytes(keys, recorded).await? else {
        if let (Some(person), Some(_)) = (recorded.person, &recorded.personal) {
            keys.keys().require_known(person).await?;
        }
        return Ok(None);
    };
    let damaged = || StoreError::Damaged(format!("event {}: its personal part", recorded.position));
    let mut personal: Personal = serde_json::from_slice(&opened).map_err(|_| damaged())?;
    if let Some(acting) = personal.acting.take() {
        let (person, sealed) = acting.split_once('.').ok_or_else(damaged)?;
        let person = UserId(person.parse().map_err(|_| damaged())?);
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| damaged())?;
        let aad = acting_aad(recorded.id, &recorded.name, person);
        if let Some(client) = keys.open(person, &aad, &sealed).await? {
            let Client { ip, user_agent } = serde_json::from_slice(&client).map_err(|_| damaged())?;
            personal = Personal { ip, user_agent, ..personal };
        }
    }
    Ok(Some(personal))
}

/// Encodes an event that no request made.
pub(crate) async fn encode(keys: &Sealer, event: &Event, id: Uuid) -> Result<NewEvent, StoreError> {
    seal(keys, codec::encode(event), id).await
}

/// Encodes an event that a request made. Where the request came from goes into the sealed part, unless the event says
/// so itself or need not say it ([`codec::tells_where_from`]). It is sealed with the key of the person that the event
/// is about; if another user made the request, first with that user's key, so that erasing either of them erases it.
pub(crate) async fn encode_for(
    keys: &Sealer,
    event: &Event,
    id: Uuid,
    requested: &Requested<'_>,
) -> Result<NewEvent, StoreError> {
    let own = event.personal();
    let is_told = own.is_some_and(|own| own.ip.is_some() || own.user_agent.is_some());
    if is_told || *requested.client == Client::default() || !codec::tells_where_from(event) {
        return encode(keys, event, id).await;
    }
    let mut personal = own.cloned().unwrap_or_default();
    let another = requested.user().filter(|user| Some(*user) != event.person());
    if let Some(user) = another {
        let client = serde_json::to_vec(requested.client).expect("a plain struct");
        let sealed = keys.seal(user, &acting_aad(id, event.name(), user), &client).await?;
        personal.acting = Some(format!("{user}.{}", URL_SAFE_NO_PAD.encode(sealed)));
    } else {
        let Client { ip, user_agent } = requested.client.clone();
        personal = Personal { ip, user_agent, ..personal };
    }
    seal(keys, codec::encode_with(event, &personal), id).await
}

async fn seal(keys: &Sealer, encoded: codec::Encoded, id: Uuid) -> Result<NewEvent, StoreError> {
    let codec::Encoded { name, schema_version, data, person, personal } = encoded;
    let personal = match (person, personal) {
        (Some(person), Some(plaintext)) => {
            Some(keys.seal(person, &event_aad(id, name, person), &plaintext).await?)
        }
        (None, Some(plaintext)) => Some(keys.seal_of_nobody(&event_aad(id, name, NO_PERSON), &plaintext)),
        (_, None) => None,
    };
    Ok(NewEvent { id, name: name.into(), schema_version, data, person, personal })
}

/// Binds a sealed part to its event: id ‖ type ‖ person.
fn event_aad(id: Uuid, name: &str, person: UserId) -> Vec<u8> {
    [id.as_bytes(), name.as_bytes(), person.0.as_bytes()].concat()
}

/// Binds the origin of another user's request to the event.
fn acting_aad(id: Uuid, name: &str, person: UserId) -> Vec<u8> {
    [b"acting\0", event_aad(id, name, person).as_slice()].concat()
}

#[cfg(test)]
#[path = "personal_tests.rs"]
mod tests;
