//! `openapi`, `asyncapi` and `schemas`: the generated documents.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use event_store::sqlite::private;
use schemas::event_schemas::Document;
use serde_json::Value;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, ServerBuilder};

use crate::config::Config;
use crate::instance::Instance;
use crate::{openapi, openapi_examples};

/// An SPDX expression.
const LICENSE: &str = "Apache-2.0 OR MIT";

/// Prints the API's document. It is derived from the routes of an instance in a temporary folder.
pub async fn openapi() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", Box::pin(openapi_document()).await?)?;
    Ok(ExitCode::SUCCESS)
}

async fn openapi_document() -> anyhow::Result<String> {
    let folder =
        tempfile::tempdir().context("cannot create a temporary folder. Set TMPDIR to a writable folder")?;
    let config = Config::in_folder(&folder.path().join("data"));
    let instance = Instance::open(&config, config.listen).await?;
    let document = serde_json::to_value(instance.api()).context("cannot write the document as JSON");
    instance.close().await;
    let mut document = document?;
    openapi::add_types(&mut document);
    openapi_examples::add(&mut document);
    Ok(serde_json::to_string_pretty(&document)?)
}

/// Prints the document of the events on the bus.
pub fn asyncapi() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&asyncapi_document())?)?;
    Ok(ExitCode::SUCCESS)
}

/// The document of the events on the bus.
pub fn asyncapi_document() -> Value {
    schemas::asyncapi::document(env!("CARGO_PKG_VERSION"))
}

/// Adds the title, and to each operation what all have in common.
pub fn complete(mut api: OpenApi) -> OpenApi {
    api.info = InfoBuilder::new()
        .title("Watchword")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Logins, sessions and users as events in an append-only log. Refusals are \
             `application/problem+json`; each `type` has a page that explains it.\n\n\
             On a deployment with an app `default`, what is below `/v1/apps/{app_id}/auth/` answers for it below `/auth/`, too, \
             and its keys are at `/.well-known/jwks.json`.",
        ))
        .license(Some(LicenseBuilder::new().name(LICENSE).identifier(Some(LICENSE)).build()))
        .build();
    let server =
        ServerBuilder::new().url("http://127.0.0.1:8080").description(Some("A deployment on this machine"));
    api.servers = Some(vec![server.build()]);
    http_kit::openapi::complete(&mut api);
    api
}

/// Prints the JSON Schemas of all events as one object by path, or writes each to its file.
pub fn schemas(folder: Option<&Path>) -> anyhow::Result<ExitCode> {
    let all = schemas::event_schemas::all();
    let Some(folder) = folder else {
        let all: BTreeMap<&String, Document<'_>> =
            all.iter().map(|(path, schema)| (path, Document::new(schema, None))).collect();
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    for (path, schema) in &all {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        let was_there = [parent.exists(), path.exists()];
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create the folder {}", parent.display()))?;
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&Document::new(schema, None))?))
            .with_context(|| format!("cannot write {}", path.display()))?;
        for made in [parent, &path].into_iter().zip(was_there).filter(|(_, was_there)| !was_there) {
            private::adopt(&std::fs::File::open(made.0)?, made.0);
        }
    }
    writeln!(std::io::stderr(), "wrote {} schemas to {}", all.len(), folder.display())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `UPDATE=1` writes it.
    #[tokio::test]
    async fn the_committed_openapi_document_is_the_generated_one() {
        let generated = Box::pin(super::openapi_document()).await.expect("a document") + "\n";
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/openapi.json");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            std::fs::write(&file, generated).expect("writable");
        } else {
            let committed = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == generated,
                "schemas/openapi.json is out of date: run the tests with UPDATE=1 and commit it"
            );
        }
    }
}
