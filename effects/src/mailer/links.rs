//! The link in a mail: to a page of Watchword, or to the app's own page if it has one.
//!
//! The origin is the configured public URL, never a request header: a client that triggers a mail must not choose where
//! its reader is sent.

use domain::mail::MailKind;
use domain::settings::Links;

/// The link of a mail. `issuer` is the app's base URL as access tokens name it
/// ([`AccessTokens::issuer`](tokens::AccessTokens::issuer)), `links` are the app's own pages, and `token` is
/// what [`DerivedTokens::of_event`](tokens::DerivedTokens::of_event) made of the event. None for a mail without one.
pub fn link_of(kind: MailKind, token: &str, issuer: &str, links: &Links) -> Option<String> {
    let (page, own) = match kind {
        MailKind::MagicLink => ("magic-link/verify", None),
        MailKind::EmailVerification => ("email-verification", links.email_verification.as_ref()),
        MailKind::EmailChange => ("email/change", links.email_change.as_ref()),
        MailKind::PasswordReset | MailKind::AddressTaken => ("password-reset", links.password_reset.as_ref()),
        MailKind::Invitation => ("invitations/accept", links.invitation.as_ref()),
        MailKind::EmailChangeNotice | MailKind::WebhookDisabled => return None,
    };
    // A token is base64url, which needs no escaping in a query.
    Some(own.map_or_else(
        || format!("{issuer}/auth/{page}?token={token}"),
        |page| page.with_query(&[("token", token)]),
    ))
}

/// The page on which a mail's reader declares that they did not create the account: always one of Watchword's.
pub fn disown_link(token: &str, issuer: &str) -> String {
    format!("{issuer}/auth/email-verification/disown?token={token}")
}

#[cfg(test)]
mod tests {
    use domain::redirect_uri::RedirectUri;

    use super::*;

    const ISSUER: &str = "https://auth.example/v1/apps/acme";

    fn uri(text: &str) -> RedirectUri {
        RedirectUri::parse(text).expect("valid")
    }

    #[test]
    fn links_lead_to_our_pages_or_to_those_of_the_app() {
        let none = Links::default();
        for (kind, path) in [
            (MailKind::MagicLink, "magic-link/verify"),
            (MailKind::EmailVerification, "email-verification"),
            (MailKind::EmailChange, "email/change"),
            (MailKind::PasswordReset, "password-reset"),
            (MailKind::AddressTaken, "password-reset"),
            (MailKind::Invitation, "invitations/accept"),
        ] {
            let expected = format!("{ISSUER}/auth/{path}?token=wwx_1");
            assert_eq!(link_of(kind, "wwx_1", ISSUER, &none), Some(expected));
        }
        assert_eq!(link_of(MailKind::EmailChangeNotice, "wwx_1", ISSUER, &none), None);
        let own =
            Links { password_reset: Some(uri("https://app.example/reset?from=mail")), ..Links::default() };
        assert_eq!(
            link_of(MailKind::PasswordReset, "wwp_1", ISSUER, &own).as_deref(),
            Some("https://app.example/reset?from=mail&token=wwp_1")
        );
    }
}
