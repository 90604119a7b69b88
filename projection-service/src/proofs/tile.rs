//! Tiles: the hashes of the tree and its entries, in the files of C2SP tlog-tiles, up to the newest signed checkpoint.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_kit::cookies::Credentials;
use http_kit::extract::Segments;
use http_kit::{Problem, uncached};
use schemas::problems;
use serde::Deserialize;
use tlog::Hash;
use tlog::tile::{Content, TileId, TilePath, WIDTH, bundle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::signed_tree::SignedTree;
use crate::ProjectionService;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    // A number from 1000 on has several segments, and so has the width of a tile that is not full.
    OpenApiRouter::new()
        .routes(routes!(tile))
        .route("/v1/audit/tile/{level}/{number}/{*rest}", get(tile_of_several_segments))
}

/// The most bytes of an entry: as many as two bytes can tell.
const MAX_ENTRY: usize = u16::MAX as usize;

/// The bytes of a tile.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
struct Tile(Vec<u8>);

impl IntoResponse for Tile {
    fn into_response(self) -> Response {
        let mut response = uncached(Bytes::from(self.0).into_response());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}

#[derive(Deserialize)]
struct Named {
    level: String,
    number: String,
}

#[derive(Deserialize)]
struct NamedByMore {
    level: String,
    number: String,
    rest: String,
}

/// Get a tile of the tree.
///
/// As in C2SP tlog-tiles: 256 hashes of a level, or, with the level `entries`, 256 events, each behind its length in two bytes. A
/// number from 1000 on has several segments (`x001/067`); `.p/<width>` behind it names a tile that is not full. 404 for what the newest
/// checkpoint does not cover, and for the entries of a tile with an event of more than 65 535 bytes. Needs a platform key, or one with `audit:read`.
#[utoipa::path(get, path = "/v1/audit/tile/{level}/{number}", tag = "audit", operation_id = "get_tile",
    security(("api_key" = [])),
    params(("level" = String, Path, description = "The level, or `entries`", example = "0"),
        ("number" = String, Path, description = "The number of the tile", example = "000")),
    responses((status = 200, description = "The tile", body = Tile, content_type = "application/octet-stream"),
        (status = 404, description = "`not_found`, `entry_too_long`")))]
async fn tile(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    Segments(Named { level, number }): Segments<Named>,
) -> Result<Tile, Problem> {
    read(&service, &credentials, &format!("{level}/{number}")).await
}

async fn tile_of_several_segments(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    Segments(NamedByMore { level, number, rest }): Segments<NamedByMore>,
) -> Result<Tile, Problem> {
    read(&service, &credentials, &format!("{level}/{number}/{rest}")).await
}

async fn read(service: &ProjectionService, credentials: &Credentials, path: &str) -> Result<Tile, Problem> {
    service.authenticator.auditor(credentials).await?;
    let path: TilePath = path.parse().map_err(|error| Problem::not_found().detail(format!("{error}")))?;
    let tree = SignedTree::newest(service).await?;
    let TilePath { content, number, width } = path;
    let bytes = match content {
        Content::Hashes(level) => {
            let hashes = tree.tile(TileId { level, number }, width).await?;
            hashes.map(|hashes| Hash::bytes(&hashes))
        }
        Content::Entries => entries(service, number, width, tree.size()).await?,
    };
    let beyond = || {
        Problem::not_found()
            .detail(format!("the newest checkpoint covers {} events, and no such tile", tree.size()))
    };
    bytes.map(Tile).ok_or_else(beyond)
}

/// The events of a tile, if so many were signed.
async fn entries(
    service: &ProjectionService,
    number: u64,
    width: u64,
    size: u64,
) -> Result<Option<Vec<u8>>, Problem> {
    let Some(after) = number.checked_mul(WIDTH).filter(|after| after.saturating_add(width) <= size) else {
        return Ok(None);
    };
    let count = usize::try_from(width).unwrap_or(usize::MAX);
    let events = service.journal().read_all(after, count).await?;
    let texts: Vec<String> = events.iter().map(|event| event.to_canonical_json(&service.origin)).collect();
    if texts.len() != count {
        return Err(Problem::damaged(format!("the journal lacks events after {after}")));
    }
    let bundle = bundle(texts.iter().map(String::as_bytes));
    bundle.map(Some).ok_or_else(|| too_long(after, &texts))
}

/// One of these events is longer than an entry may be: from an import, or a version before there was a limit.
fn too_long(after: u64, texts: &[String]) -> Problem {
    let mut lengths = (after + 1..).zip(texts.iter().map(String::len));
    let (position, length) = lengths.find(|(_, length)| *length > MAX_ENTRY).unwrap_or_default();
    Problem::new(problems::ENTRY_TOO_LONG).detail(format!(
        "event {position} has {length} bytes, and an entry at most {MAX_ENTRY}: GET /v1/events?after={after} has the events of \
         this tile, and GET /v1/audit/receipt?position={position} proves that one"
    ))
}
