//! Client authentication as OAuth libraries do it: the app id and an API key as client id and secret, by HTTP Basic or in
//! the form body (RFC 6749 section 2.3.1). Only introspection and revocation take it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use domain::{ApiKeyId, AppId};
use percent_encoding::percent_decode_str;
use schemas::field_codes::{self, FieldCode};
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};

use super::{AdminCaller, Authenticator, Caller, existing_app};
use crate::cookies::Credentials;
use crate::problem::Problem;
use tokens::{ApiKeyToken, DerivedTokens};

/// A client id and secret of an `Authorization` header.
pub struct BasicCredentials {
    id: String,
    secret: SecretString,
    /// The same without form decoding: many libraries leave the encoding out.
    raw: (String, SecretString),
}

impl BasicCredentials {
    /// Reads what follows `Basic `.
    fn parse(credentials: &str) -> Option<Self> {
        let bytes = STANDARD.decode(credentials).or_else(|_| STANDARD_NO_PAD.decode(credentials)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (id, secret) = text.split_once(':')?;
        let raw = (id.to_owned(), SecretString::from(secret));
        Some(Self { id: form_decoded(id)?, secret: form_decoded(secret)?.into(), raw })
    }

    /// The API key, if one of its two readings is a key of this instance.
    pub(crate) fn api_key(&self, keys: &DerivedTokens) -> Option<ApiKeyToken> {
        let read = |secret: &SecretString| ApiKeyToken::decode(keys, secret.expose_secret());
        read(&self.secret).or_else(|| read(&self.raw.1))
    }
}

/// RFC 6749 appendix B. `None` if it is not UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let spaces = text.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(Cow::into_owned)
}

/// The client id and secret in a body, as they were sent.
#[derive(Clone, Copy, Default)]
pub struct InBody<'a> {
    /// `client_id`.
    pub id: Option<&'a str>,
    /// `client_secret`.
    pub secret: Option<&'a SecretString>,
}

impl InBody<'_> {
    /// RFC 6749 section 2.3.1: an empty secret is none.
    fn secret(&self) -> Option<&SecretString> {
        self.secret.filter(|secret| !secret.expose_secret().is_empty())
    }
}

/// An authenticated client.
#[derive(Clone, Debug)]
pub struct ClientCaller {
    /// The holder of its API key.
    pub admin: AdminCaller,
    /// Whether the key was in the body, where the rate limit, which reads only headers, has not seen it.
    by_body: bool,
}

impl ClientCaller {
    /// The API key, if it was in the body.
    pub fn key_in_body(&self) -> Option<ApiKeyId> {
        match &self.admin.caller {
            Caller::ApiKey { key_id, .. } if self.by_body => Some(*key_id),
            _ => None,
        }
    }
}

impl Problem {
    /// A client id and secret that are not valid here (RFC 6749 section 5.2). It does not say which of the two is wrong.
    pub fn invalid_client() -> Self {
        Self::new(problems::UNAUTHENTICATED)
            .detail("the client id must be the id of the app, and the client secret an API key of it or of the platform")
            .as_oauth("invalid_client")
            .asking_for_basic()
    }

    /// Adds what OAuth libraries read: `error` and `error_description`.
    #[must_use]
    pub fn as_oauth(self, error: &str) -> Self {
        let description = self.text();
        self.member("error", error.into()).member("error_description", description.into())
    }
}

impl Authenticator {
    /// The client of a request: the holder of any active API key of the app or of the platform, sent as a bearer token, by
    /// HTTP Basic or in the body. `None` if the request has no such credentials. Two at once → 400 `invalid_request`; wrong
    /// ones → 401.
    pub async fn client(
        &self,
        app_id: &AppId,
        credentials: &Credentials,
        body: InBody<'_>,
    ) -> Result<Option<ClientCaller>, Problem> {
        let in_header = credentials.basic()?;
        let Some(in_header) = in_header else {
            return match body.secret() {
                Some(_) if credentials.has_authorization() => Err(two_methods()),
                Some(secret) => {
                    let id = body.id.ok_or_else(|| {
                        invalid_request(
                            "/client_id",
                            field_codes::MISSING,
                            "is needed with client_secret: the id of the app",
                        )
                    })?;
                    let admin = self.client_of_secret(app_id, &[(id, secret)]).await?;
                    Ok(Some(ClientCaller { admin, by_body: true }))
                }
                None => {
                    let server = self.server(app_id, credentials).await?;
                    Ok(server.map(|admin| ClientCaller { admin, by_body: false }))
                }
            };
        };
        if body.secret().is_some() {
            return Err(two_methods());
        }
        if body.id.is_some_and(|id| id != in_header.id && id != in_header.raw.0) {
            return Err(invalid_request(
                "/client_id",
                field_codes::INVALID,
                "is not the one of the Authorization header",
            ));
        }
        let readings =
            [(in_header.id.as_str(), &in_header.secret), (in_header.raw.0.as_str(), &in_header.raw.1)];
        let admin = self.client_of_secret(app_id, &readings).await?;
        Ok(Some(ClientCaller { admin, by_body: false }))
    }

    /// The client of one of these readings of a client id and secret.
    async fn client_of_secret(
        &self,
        app_id: &AppId,
        readings: &[(&str, &SecretString)],
    ) -> Result<AdminCaller, Problem> {
        let reads = self.repository.reads();
        loop {
            let decided = async {
                let app = existing_app(&reads, app_id).await?;
                // Only the secret is one: the id is in the path, too.
                let key = readings.iter().find(|(id, secret)| {
                    *id == app_id.as_str()
                        && ApiKeyToken::decode(&self.tokens, secret.expose_secret()).is_some()
                });
                let (_, secret) = key.ok_or_else(Problem::invalid_client)?;
                self.key_for(&reads, app_id, &app.state, secret.expose_secret()).await.map_err(|problem| {
                    match problem.status().as_u16() {
                        // A key of another app, or one that has ended.
                        401 | 404 => Problem::invalid_client(),
                        _ => problem,
                    }
                })
            }
            .await;
            if reads.are_current().await? {
                return decided;
            }
        }
    }
}

fn two_methods() -> Problem {
    let detail =
        "the client authenticates twice: send its secret either in the Authorization header or in the body";
    invalid_request("/client_secret", field_codes::INVALID, detail)
}

/// A request that no OAuth server takes (RFC 6749 section 5.2).
fn invalid_request(pointer: &str, code: FieldCode, detail: &str) -> Problem {
    Problem::malformed_member(pointer, code, detail).as_oauth("invalid_request")
}

impl Credentials {
    /// The client id and secret of the one `Authorization` header, if that is of HTTP Basic (RFC 7617).
    pub(crate) fn basic(&self) -> Result<Option<BasicCredentials>, Problem> {
        let mut values = self.authorization();
        let (Some(value), rest) = (values.next(), values.next()) else { return Ok(None) };
        if rest.is_some() {
            return Err(Problem::malformed_header("Authorization", "there is more than one: send it once")
                .as_oauth("invalid_request"));
        }
        let value = value.to_str().unwrap_or_default();
        let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("basic") {
            return Ok(None);
        }
        BasicCredentials::parse(credentials.trim_matches(' ')).map(Some).ok_or_else(Problem::invalid_client)
    }

    /// The API key of the `Authorization` header, in whichever way it is sent: for counting, as nothing else is checked.
    pub(crate) fn api_key(&self, keys: &DerivedTokens) -> Option<ApiKeyToken> {
        match self.basic() {
            Ok(Some(basic)) => basic.api_key(keys),
            _ => ApiKeyToken::decode(keys, self.bearer().ok()?),
        }
    }

    fn has_authorization(&self) -> bool {
        self.authorization().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String)> {
        let basic = BasicCredentials::parse(&STANDARD.encode(text))?;
        Some((basic.id, basic.secret.expose_secret().to_owned()))
    }

    fn pair(id: &str, secret: &str) -> (String, String) {
        (id.to_owned(), secret.to_owned())
    }

    /// RFC 6749 section 2.3.1 and appendix B.
    #[test]
    fn credentials_are_form_encoded_before_base64() {
        assert_eq!(parsed("acme:wwk_AB-_"), Some(pair("acme", "wwk_AB-_")));
        assert_eq!(parsed("a%63me:x%3Ay%2Bz+1%25"), Some(pair("acme", "x:y+z 1%")));
        assert_eq!(parsed("acme:x:y"), Some(pair("acme", "x:y")), "the first colon separates");
        assert_eq!(parsed("acme:"), Some(pair("acme", "")));
        assert_eq!(parsed(":"), Some(pair("", "")));
        assert_eq!(parsed("acme"), None);
        assert_eq!(parsed("acme:%ff"), None);
        assert!(BasicCredentials::parse("?").is_none() && BasicCredentials::parse("").is_none());
        let unpadded = STANDARD_NO_PAD.encode("acme:x");
        assert!(BasicCredentials::parse(&unpadded).is_some());
        let plain = BasicCredentials::parse(&STANDARD.encode("acme:a+b%25")).expect("valid");
        assert_eq!(plain.raw.1.expose_secret(), "a+b%25", "as a library that does not encode means it");
    }
}
