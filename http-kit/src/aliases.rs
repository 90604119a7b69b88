//! Aliases of routes: the default app's, which omit its id, and the second names of a few routes. The entrance to
//! the router rewrites such a path to that of the route. Logs, metrics and traces show the requested name.

use axum::extract::Request;
use http::Uri;

/// The prefix of an app's routes. The default app also answers without it.
pub const APP: &str = "/v1/apps/{app_id}";

const DEFAULT_APP: &str = "default";

/// Routes of an app that have a second name: the path within the app, the other path, and the id of its operation.
pub const SECOND_NAMES: &[(&str, &str, &str)] = &[
    ("/auth/register", "/auth/signup", "sign_up"),
    ("/auth/password-reset/request", "/auth/forgot-password", "recover_password"),
    ("/auth/password-reset/confirm", "/auth/reset-password", "reset_password"),
    ("/auth/email-verification/request", "/auth/email-verification/resend", "resend_email_verification"),
    ("/auth/email-verification/confirm", "/auth/verify-email", "verify_email"),
    ("/auth/introspect", "/oauth2/introspect", "introspect_client_token"),
    ("/auth/revoke", "/oauth2/revoke", "revoke_client_token"),
];

/// The default app's routes at the root (RFC 8615), also below `/auth` for proxies that forward only that.
const WELL_KNOWN: &[&str] = &["/.well-known/jwks.json", "/.well-known/change-password"];

/// The alias that a request used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// What replaces [`APP`].
    scope: &'static str,
    /// The second name of the rest.
    second: Option<&'static str>,
}

impl Alias {
    /// The route under the requested name: `/auth/sessions/{session_id}`.
    pub(crate) fn route(self, matched: &str) -> String {
        let within = self.second.unwrap_or_else(|| matched.strip_prefix(APP).unwrap_or(matched));
        format!("{}{within}", self.scope)
    }
}

/// The path of the route; `None` if the path is not an alias.
fn resolve(path: &str) -> Option<(String, Alias)> {
    let (scope, app, within) = if let Some(rest) = path.strip_prefix("/v1/apps/") {
        let (app, within) = rest.split_at(rest.find('/')?);
        (APP, app, within)
    } else if WELL_KNOWN.contains(&path) {
        ("", DEFAULT_APP, path)
    } else {
        let within = path.strip_prefix("/auth").filter(|within| within.starts_with('/'))?;
        if WELL_KNOWN.contains(&within) {
            ("/auth", DEFAULT_APP, within)
        } else if within.starts_with("/.well-known/") {
            return None;
        } else {
            ("", DEFAULT_APP, path)
        }
    };
    let second = SECOND_NAMES.iter().find(|(_, name, _)| *name == within);
    if scope == APP && second.is_none() {
        return None;
    }
    let path = format!("/v1/apps/{app}{}", second.map_or(within, |(path, ..)| path));
    Some((path, Alias { scope, second: second.map(|(_, name, _)| *name) }))
}

/// Every path at which a route answers, its own first.
pub fn names_of(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    let Some(within) = path.strip_prefix(APP) else { return names };
    let second = SECOND_NAMES.iter().find(|(path, ..)| *path == within).map(|(_, name, _)| *name);
    names.extend(second.map(|name| format!("{APP}{name}")));
    if within.starts_with("/auth/") {
        let at_root = second.filter(|name| name.starts_with("/auth/"));
        names.extend([Some(within), at_root].into_iter().flatten().map(str::to_owned));
    }
    if WELL_KNOWN.contains(&within) {
        names.extend([within.to_owned(), format!("/auth{within}")]);
    }
    names
}

/// Makes a request for an alias one for its route.
pub(crate) fn resolve_in(request: &mut Request) {
    let Some((path, alias)) = resolve(request.uri().path()) else { return };
    *request.uri_mut() = with_path(request.uri(), &path);
    request.extensions_mut().insert(alias);
}

/// The same with another path; an invalid one matches no route.
pub(crate) fn with_path(uri: &Uri, path: &str) -> Uri {
    let path_and_query = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    path_and_query.parse().unwrap_or_else(|_| Uri::from_static("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_taken_for_the_first() {
        assert_eq!(domain::AppId::default_app().as_str(), DEFAULT_APP);
        for (path, to, matched, route) in [
            ("/auth/login", "/v1/apps/default/auth/login", "/v1/apps/{app_id}/auth/login", "/auth/login"),
            (
                "/auth/sessions/7",
                "/v1/apps/default/auth/sessions/7",
                "/v1/apps/{app_id}/auth/sessions/{session_id}",
                "/auth/sessions/{session_id}",
            ),
            (
                "/auth/signup",
                "/v1/apps/default/auth/register",
                "/v1/apps/{app_id}/auth/register",
                "/auth/signup",
            ),
            (
                "/v1/apps/acme/auth/signup",
                "/v1/apps/acme/auth/register",
                "/v1/apps/{app_id}/auth/register",
                "/v1/apps/{app_id}/auth/signup",
            ),
            (
                "/.well-known/jwks.json",
                "/v1/apps/default/.well-known/jwks.json",
                "/v1/apps/{app_id}/.well-known/jwks.json",
                "/.well-known/jwks.json",
            ),
            (
                "/auth/.well-known/change-password",
                "/v1/apps/default/.well-known/change-password",
                "/v1/apps/{app_id}/.well-known/change-password",
                "/auth/.well-known/change-password",
            ),
        ] {
            let (resolved, alias) = resolve(path).expect(path);
            assert_eq!((resolved.as_str(), alias.route(matched).as_str()), (to, route), "{path}");
        }
        for path in [
            "/",
            "/auth",
            "/authx/login",
            "/AUTH/login",
            "/auth/.well-known/openid-configuration",
            "/.well-known/openid-configuration",
            "/.well-known/",
            "/v1/apps",
            "/v1/apps/acme",
            "/v1/apps/acme/auth/register",
            "/v1/apps/acme/auth/signup/x",
            "/v1/events",
            "//auth/login",
        ] {
            assert_eq!(resolve(path), None, "{path}");
        }
    }

    #[test]
    fn a_route_knows_all_its_names() {
        let names = |path: &str| names_of(&format!("{APP}{path}"));
        let all = [
            "/v1/apps/{app_id}/auth/register",
            "/v1/apps/{app_id}/auth/signup",
            "/auth/register",
            "/auth/signup",
        ];
        assert_eq!(names("/auth/register"), all);
        let of_clients = ["/v1/apps/{app_id}/auth/revoke", "/v1/apps/{app_id}/oauth2/revoke", "/auth/revoke"];
        assert_eq!(names("/auth/revoke"), of_clients);
        assert_eq!(names("/.well-known/jwks.json").len(), 3);
        assert_eq!(names("/.well-known/openid-configuration").len(), 1);
        assert_eq!(names("/admin/users").len(), 1);
        assert_eq!(names_of("/v1/events"), ["/v1/events"]);
        for name in ["/auth/me", "/auth/verify-email", "/auth/.well-known/jwks.json"] {
            let (path, _) = resolve(name).expect(name);
            let route = path.replace("/v1/apps/default", APP);
            assert!(names_of(&route).contains(&name.to_owned()), "{name}");
        }
    }
}
