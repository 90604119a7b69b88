//! `/problems/<code>`: a page for people on each problem.

use std::fmt::Write;

use axum::extract::Path;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use http_kit::Problem;
use schemas::problems::{ProblemType, REGISTRY, problem_type};

/// The only style sheet, in a file of its own, so that the policy can forbid inline styles.
pub const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.6 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.6rem;line-height:1.25}\
code{font:0.95em ui-monospace,monospace}\
dt{font-weight:600}dd{margin:0 0 .6rem}\
a{color:inherit}\
";

const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/problems/style.css`
pub async fn style() -> Response {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=3600")],
        STYLE,
    )
        .into_response()
}

/// `/problems`
pub async fn index() -> Response {
    let mut list = String::from(
        "<p>Every refusal of the API is a <code>problem+json</code> document whose <code>type</code> is one of these.</p><ul>",
    );
    for problem in REGISTRY {
        let ProblemType { code, status, title, .. } = problem;
        let _ = write!(
            list,
            r#"<li><a href="problems/{code}"><code>{code}</code></a> ({status}): {}</li>"#,
            escape(title)
        );
    }
    list.push_str("</ul>");
    page("Problems", &list, "problems/style.css")
}

/// `/problems/{code}`
pub async fn one(Path(code): Path<String>) -> Response {
    match problem_type(&code) {
        Some(problem) => {
            let ProblemType { code, status, title, explanation } = problem;
            let body = format!(
                "<dl><dt>Code</dt><dd><code>{code}</code></dd><dt>HTTP status</dt><dd>{status}</dd></dl><p>{}</p>{ALL}",
                escape(explanation)
            );
            page(title, &body, "style.css")
        }
        None => Problem::not_found().into_response(),
    }
}

const ALL: &str = r#"<p><a href="../problems">All problems</a></p>"#;

/// URLs are relative, so that the pages work below any path.
fn page(title: &str, body: &str, style: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · Watchword</title><link rel=\"stylesheet\" href=\"{style}\"></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>\n"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(html)).into_response()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
