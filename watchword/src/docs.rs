//! `/docs`: Swagger UI, served from the binary. Every URL on it is relative, so it works below any path.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use http_kit::{Problem, Unchanging};
use utoipa_swagger_ui::{Config, serve};

/// Swagger UI needs only its own files, except for `style` attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Swagger UI's own page has another title and logo.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Watchword</title>
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. See <a href="../openapi.json">the OpenAPI document</a>.</noscript>
<script src="swagger-ui-bundle.js"></script>
<script src="swagger-ui-standalone-preset.js"></script>
<script src="swagger-initializer.js"></script>
</body>
</html>
"#;

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../openapi.json")
        .doc_expansion("none")
        .default_models_expand_depth(0)
        .try_it_out_enabled(true)
        .display_request_duration(true);
    Arc::new(config)
});

pub fn routes() -> Router {
    Router::new()
        .route("/docs", get(async || Redirect::permanent("docs/")))
        .route("/docs/", get(async || Html(PAGE)))
        .route("/docs/{*path}", get(file))
        .layer(middleware::map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        }))
}

/// Each file of Swagger UI that was asked for. There are a few of them, and the largest has more than a megabyte.
static FILES: Mutex<BTreeMap<String, Unchanging>> = Mutex::new(BTreeMap::new());

async fn file(Path(path): Path<String>) -> Response {
    if path == "index.html" {
        return Html(PAGE).into_response();
    }
    match serve(&path, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
            let unchanging = files.entry(path).or_default().clone();
            (Extension(unchanging), [(header::CONTENT_TYPE, file.content_type)], file.bytes).into_response()
        }
        Ok(None) => Problem::not_found().into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}
