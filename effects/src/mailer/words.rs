//! The texts of mails, by language.

use domain::Timestamp;
use domain::branding::Locale;
use domain::mail::MailKind;
use jiff::SignedDuration;

/// The texts of one mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// The subject, also used as heading.
    pub subject: String,
    /// The first paragraph.
    pub lead: String,
    /// The label of the button; absent without one.
    pub button: Option<&'static str>,
    /// How long the link is valid.
    pub lasts: Option<String>,
    /// What to do if somebody else requested it.
    pub otherwise: &'static str,
    /// The text above the plain link.
    pub by_hand: &'static str,
}

/// The texts of a mail. `product` is the app's name, `lasts` the lifetime of its link.
pub(super) fn words(kind: MailKind, locale: Locale, product: &str, lasts: Option<SignedDuration>) -> Words {
    match locale {
        Locale::En => english(kind, product, lasts),
        Locale::De => german(kind, product, lasts),
    }
}

/// When an account was created, and from where if known, for its mails and their page.
pub fn account_made(locale: Locale, at: Timestamp, from: Option<&str>) -> String {
    let at = at.strftime("%Y-%m-%d %H:%M");
    match (locale, from) {
        (Locale::En, None) => format!("The account was created on {at} UTC."),
        (Locale::En, Some(from)) => format!("The account was created on {at} UTC, from the address {from}."),
        (Locale::De, None) => format!("Das Konto wurde am {at} UTC angelegt."),
        (Locale::De, Some(from)) => {
            format!("Das Konto wurde am {at} UTC von der Adresse {from} aus angelegt.")
        }
    }
}

/// The title of disowning an account: of the link in the mail, and of its page.
pub const fn disown_title(locale: Locale) -> &'static str {
    match locale {
        Locale::En => "This wasn't me",
        Locale::De => "Das war ich nicht",
    }
}

fn english(kind: MailKind, product: &str, lasts: Option<SignedDuration>) -> Words {
    let (subject, lead, button, otherwise) = match kind {
        MailKind::MagicLink => (
            format!("Log in to {product}"),
            format!("With this link you log in to {product}."),
            Some("Log in"),
            "If you did not request this mail, you can ignore it: nobody can log in without it.",
        ),
        MailKind::EmailVerification => (
            format!("Confirm your email address for {product}"),
            format!(
                "Somebody has registered with {product} and gave this address. If it was you, please confirm it."
            ),
            Some("Confirm address"),
            "If it was not you, have the account deleted:",
        ),
        MailKind::EmailChange => (
            format!("Confirm your new email address for {product}"),
            format!(
                "Somebody wants to use this address for their account with {product}. If it was you, please confirm it."
            ),
            Some("Confirm new address"),
            "If it was not you, ignore this mail: nothing changes.",
        ),
        MailKind::EmailChangeNotice => (
            format!("Your email address for {product} is about to change"),
            format!(
                "Somebody who is logged in to your account with {product} wants to replace this address by another one. \
                 That happens as soon as the other address is confirmed."
            ),
            None,
            "If it was not you, change your password at once: that ends the change, and all other sessions.",
        ),
        MailKind::PasswordReset => (
            format!("Choose a new password for {product}"),
            format!("With this link you choose a new password for your account with {product}."),
            Some("Choose a new password"),
            "If you did not request this mail, you can ignore it: your password stays as it is.",
        ),
        MailKind::AddressTaken => (
            format!("You already have an account with {product}"),
            format!(
                "Somebody tried to register with {product} and gave this address, which already has an account. If it \
                 was you, log in instead, or choose a new password if you have forgotten yours."
            ),
            Some("Choose a new password"),
            "If it was not you, ignore this mail: nothing has changed.",
        ),
        // Whoever made the organization chose its name: in a mail to a stranger it could say anything.
        MailKind::Invitation => (
            format!("You are invited to an organization at {product}"),
            format!(
                "A member of an organization at {product} invites you to join it. To accept, log in with this address, or \
                 register with it first."
            ),
            Some("Open the invitation"),
            "If you do not expect an invitation, you can ignore it: nothing changes.",
        ),
        MailKind::WebhookDisabled => (
            format!("A webhook of {product} was disabled"),
            format!(
                "A webhook of {product} has accepted no event for a long time, so it was disabled: it is sent nothing any more. \
                 The list of webhooks says which one it is and what its receiver answered. Once it is enabled again, the \
                 events since can be sent by a replay."
            ),
            None,
            "You get this mail because you are an admin of the app.",
        ),
    };
    Words {
        subject,
        lead,
        button,
        lasts: lasts.map(|lasts| {
            let (n, unit) = rounded(lasts);
            let unit = ["minute", "hour", "day"][unit];
            let plural = if n == 1 { "" } else { "s" };
            format!("The link works once, for {n} {unit}{plural}.")
        }),
        otherwise,
        by_hand: "If the button does not work, open this address in your browser:",
    }
}

fn german(kind: MailKind, product: &str, lasts: Option<SignedDuration>) -> Words {
    let (subject, lead, button, otherwise) = match kind {
        MailKind::MagicLink => (
            format!("Anmelden bei {product}"),
            format!("Mit diesem Link melden Sie sich bei {product} an."),
            Some("Anmelden"),
            "Sie haben diese Mail nicht angefordert? Dann brauchen Sie nichts zu tun: Ohne sie kommt niemand hinein.",
        ),
        MailKind::EmailVerification => (
            format!("Bestätigen Sie Ihre E-Mail-Adresse für {product}"),
            format!(
                "Jemand hat sich bei {product} mit dieser Adresse registriert. Waren Sie das, bestätigen Sie sie bitte."
            ),
            Some("Adresse bestätigen"),
            "Waren Sie es nicht, lassen Sie das Konto löschen:",
        ),
        MailKind::EmailChange => (
            format!("Bestätigen Sie Ihre neue E-Mail-Adresse für {product}"),
            format!(
                "Jemand möchte diese Adresse für ein Konto bei {product} verwenden. Waren Sie das, bestätigen Sie sie bitte."
            ),
            Some("Neue Adresse bestätigen"),
            "Waren Sie es nicht, brauchen Sie nichts zu tun: Es ändert sich nichts.",
        ),
        MailKind::EmailChangeNotice => (
            format!("Ihre E-Mail-Adresse bei {product} soll sich ändern"),
            format!(
                "Jemand, der in Ihrem Konto bei {product} angemeldet ist, möchte diese Adresse durch eine andere ersetzen. \
                 Das geschieht, sobald die andere Adresse bestätigt ist."
            ),
            None,
            "Waren Sie es nicht, dann ändern Sie sofort Ihr Passwort: Das beendet die Änderung und alle anderen Sitzungen.",
        ),
        MailKind::PasswordReset => (
            format!("Neues Passwort für {product}"),
            format!("Mit diesem Link wählen Sie ein neues Passwort für Ihr Konto bei {product}."),
            Some("Neues Passwort wählen"),
            "Sie haben diese Mail nicht angefordert? Dann brauchen Sie nichts zu tun: Ihr Passwort bleibt, wie es ist.",
        ),
        MailKind::AddressTaken => (
            format!("Sie haben schon ein Konto bei {product}"),
            format!(
                "Jemand wollte sich bei {product} mit dieser Adresse registrieren, die schon ein Konto hat. Waren Sie das, \
                 melden Sie sich stattdessen an, oder wählen Sie ein neues Passwort, wenn Sie Ihres vergessen haben."
            ),
            Some("Neues Passwort wählen"),
            "Waren Sie es nicht, brauchen Sie nichts zu tun: Es hat sich nichts geändert.",
        ),
        MailKind::Invitation => (
            format!("Einladung in eine Organisation bei {product}"),
            format!(
                "Ein Mitglied einer Organisation bei {product} lädt Sie ein, ihr beizutreten. Um anzunehmen, melden Sie sich mit \
                 dieser Adresse an, oder registrieren Sie sich zuerst mit ihr."
            ),
            Some("Einladung öffnen"),
            "Sie erwarten keine Einladung? Dann brauchen Sie nichts zu tun: Es ändert sich nichts.",
        ),
        MailKind::WebhookDisabled => (
            format!("Ein Webhook von {product} wurde abgeschaltet"),
            format!(
                "Ein Webhook von {product} hat lange kein Ereignis angenommen und wurde deshalb abgeschaltet: Er bekommt \
                 nichts mehr. Die Liste der Webhooks sagt, welcher es ist und was sein Empfänger \
                 geantwortet hat. Ist er wieder eingeschaltet, können die Ereignisse seither nachgeliefert werden."
            ),
            None,
            "Sie bekommen diese Mail, weil Sie Admin der App sind.",
        ),
    };
    Words {
        subject,
        lead,
        button,
        lasts: lasts.map(|lasts| {
            let (n, unit) = rounded(lasts);
            let unit = match (unit, n) {
                (0, 1) => "Minute",
                (0, _) => "Minuten",
                (1, 1) => "Stunde",
                (1, _) => "Stunden",
                (_, 1) => "Tag",
                (_, _) => "Tage",
            };
            format!("Der Link gilt einmal, {n} {unit} lang.")
        }),
        otherwise,
        by_hand: "Falls der Knopf nicht geht, öffnen Sie diese Adresse im Browser:",
    }
}

/// A number of minutes (0), hours (1) or days (2), never 0.
fn rounded(lasts: SignedDuration) -> (i64, usize) {
    match (lasts.as_secs() + 30) / 60 {
        minutes if minutes >= 48 * 60 => (minutes / (24 * 60), 2),
        minutes if minutes >= 120 || minutes == 60 => (minutes / 60, 1),
        minutes => (minutes.max(1), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_the_unit_that_fits() {
        let told = |seconds, locale| {
            words(MailKind::MagicLink, locale, "Acme", Some(SignedDuration::from_secs(seconds))).lasts
        };
        for (seconds, english, german) in [
            (1, "1 minute", "1 Minute"),
            (599, "10 minutes", "10 Minuten"),
            (3600, "1 hour", "1 Stunde"),
            (5400, "90 minutes", "90 Minuten"),
            (86_400, "24 hours", "24 Stunden"),
            (604_800, "7 days", "7 Tage"),
        ] {
            assert_eq!(told(seconds, Locale::En), Some(format!("The link works once, for {english}.")));
            assert_eq!(told(seconds, Locale::De), Some(format!("Der Link gilt einmal, {german} lang.")));
        }
    }
}
