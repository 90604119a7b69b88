//! The texts of the pages, by language.

use domain::branding::Locale;
use effects::mailer::disown_title;
use schemas::problems::{self, ProblemType};

use crate::api::fields;
use crate::pages::page::Purpose;

/// The texts of a language. `{product}` and `{n}` are placeholders.
pub(crate) struct Texts {
    magic_link: PurposeTexts,
    email_verification: PurposeTexts,
    disown: PurposeTexts,
    email_change: PurposeTexts,
    password_reset: PurposeTexts,
    invitation: PurposeTexts,
    pub dead_title: &'static str,
    pub dead: &'static str,
    pub send_again: &'static str,
    pub sent_title: &'static str,
    pub sent: &'static str,
    pub refused_title: &'static str,
    pub password_label: &'static str,
    pub password_hint: &'static str,
    pub show_password: &'static str,
    too_short: &'static str,
    too_long: &'static str,
    too_common: &'static str,
    breached: &'static str,
    pub account: &'static str,
    pub address: &'static str,
    pub back: &'static str,
    pub already_title: &'static str,
    pub already: &'static str,
    pub request: &'static str,
    pub request_button: &'static str,
    pub email_label: &'static str,
    pub email_hint: &'static str,
    rate_limited: &'static str,
    registration_closed: &'static str,
    user_banned: &'static str,
    email_taken: &'static str,
    invalid_email: &'static str,
    otherwise: &'static str,
}

/// The texts of one purpose's pages.
pub(crate) struct PurposeTexts {
    pub title: &'static str,
    pub ask: &'static str,
    pub button: &'static str,
    pub done_title: &'static str,
    pub done: &'static str,
    pub again: &'static str,
}

/// The texts of a language.
pub(crate) fn texts(locale: Locale) -> &'static Texts {
    match locale {
        Locale::En => &ENGLISH,
        Locale::De => &GERMAN,
    }
}

impl Texts {
    pub fn of(&self, purpose: Purpose) -> &PurposeTexts {
        match purpose {
            Purpose::MagicLink => &self.magic_link,
            Purpose::EmailVerification => &self.email_verification,
            Purpose::Disown => &self.disown,
            Purpose::EmailChange => &self.email_change,
            Purpose::PasswordReset => &self.password_reset,
            Purpose::Invitation => &self.invitation,
        }
    }

    /// Why a password was refused.
    pub fn weak_password(&self, reason: &str) -> &'static str {
        match reason {
            fields::TOO_SHORT => self.too_short,
            fields::TOO_LONG => self.too_long,
            fields::BREACHED => self.breached,
            _ => self.too_common,
        }
    }

    /// What a refusal means to the person.
    pub fn refusal(&self, kind: &ProblemType) -> &'static str {
        match kind {
            problems::RATE_LIMITED
            | problems::OVERLOADED
            | problems::UNAVAILABLE
            | problems::STORAGE_FULL
            | problems::STORAGE_MISSING
            | problems::STORAGE_READ_ONLY => self.rate_limited,
            problems::REGISTRATION_CLOSED => self.registration_closed,
            problems::USER_BANNED | problems::APP_DISABLED => self.user_banned,
            problems::EMAIL_TAKEN => self.email_taken,
            problems::INVALID_EMAIL => self.invalid_email,
            _ => self.otherwise,
        }
    }
}

static ENGLISH: Texts = Texts {
    magic_link: PurposeTexts {
        title: "Log in",
        ask: "Press the button to log in to {product}.",
        button: "Log in",
        done_title: "You are logged in",
        done: "You can go back to {product}.",
        again: "You can get a new one at the same address.",
    },
    email_verification: PurposeTexts {
        title: "Confirm your email address",
        ask: "Press the button to confirm that this email address is yours, and that you created an account at {product}.",
        button: "Confirm the address",
        done_title: "Your email address is confirmed",
        done: "You can go back to {product}.",
        again: "Enter your email address to get a new one.",
    },
    disown: PurposeTexts {
        title: disown_title(Locale::En),
        ask: "If you did not create an account at {product}, press the button. The account and all its data are deleted.",
        button: "Delete the account",
        done_title: "The account is deleted",
        done: "Your email address is no longer registered with {product}.",
        again: "If the account still exists, request a new confirmation mail.",
    },
    email_change: PurposeTexts {
        title: "Confirm your new email address",
        ask: "Press the button to use this email address for your account at {product} from now on.",
        button: "Use this address",
        done_title: "Your email address was changed",
        done: "Use it from now on to log in to {product}. On other devices you have to log in again.",
        again: "Log in and request the change again.",
    },
    password_reset: PurposeTexts {
        title: "Choose a new password",
        ask: "This is for your account at {product}. You will be logged out everywhere.",
        button: "Save the password",
        done_title: "Your password was changed",
        done: "Log in to {product} with the new password.",
        again: "Enter your email address to get a new one.",
    },
    invitation: PurposeTexts {
        title: "You are invited to an organization",
        ask: "To accept the invitation, log in to {product} with the email address that it was sent to, or register with it \
              first. Then open the link of the mail there again.",
        button: "Accept",
        done_title: "You have joined the organization",
        done: "You can go back to {product}.",
        again: "Ask whoever invited you for a new invitation.",
    },
    dead_title: "This link is no longer valid",
    dead: "It has expired, was already used, or was not copied in full.",
    send_again: "Send a new link",
    sent_title: "Check your mail",
    sent: "If there is something to send to this address, it is on its way. Check your spam folder, too.",
    refused_title: "That did not work",
    password_label: "New password",
    password_hint: "At least {n} characters. A few words in a row make a good password.",
    show_password: "Show password",
    too_short: "This password is too short. It needs at least {n} characters.",
    too_long: "This password is too long. It can have at most 1024 bytes.",
    too_common: "This password is too common: attackers try it first. Choose another one.",
    breached: "This password is known from a breach of another service. Choose another one.",
    account: "Account: {email}",
    address: "New address: {email}",
    back: "Back to {product}",
    already_title: "Your email address is already confirmed",
    already: "There is nothing left to do. You can go back to {product} and log in.",
    request: "Enter the email address of your account at {product}. You will get a link to choose a new password.",
    request_button: "Send a link",
    email_label: "Email address",
    email_hint: "The address of your account.",
    rate_limited: "There were too many attempts. Wait a few minutes and try again.",
    registration_closed: "No account has this email address, and new accounts cannot be created.",
    user_banned: "This account cannot be used. Contact the people who run this service.",
    email_taken: "This email address belongs to another account.",
    invalid_email: "This is not an email address. Go back and enter it again.",
    otherwise: "Go back and try again.",
};

static GERMAN: Texts = Texts {
    magic_link: PurposeTexts {
        title: "Anmelden",
        ask: "Drücken Sie den Knopf, um sich bei {product} anzumelden.",
        button: "Anmelden",
        done_title: "Sie sind angemeldet",
        done: "Sie können zu {product} zurückkehren.",
        again: "Sie können sich einen neuen an dieselbe Adresse schicken lassen.",
    },
    email_verification: PurposeTexts {
        title: "E-Mail-Adresse bestätigen",
        ask: "Drücken Sie den Knopf, um zu bestätigen, dass diese E-Mail-Adresse Ihnen gehört und dass Sie ein Konto bei \
              {product} angelegt haben.",
        button: "Adresse bestätigen",
        done_title: "Ihre E-Mail-Adresse ist bestätigt",
        done: "Sie können zu {product} zurückkehren.",
        again: "Geben Sie Ihre E-Mail-Adresse ein, um einen neuen zu erhalten.",
    },
    disown: PurposeTexts {
        title: disown_title(Locale::De),
        ask: "Wenn Sie kein Konto bei {product} angelegt haben, drücken Sie den Knopf. Das Konto wird mit allem darin \
              gelöscht, und niemand kann es mehr benutzen.",
        button: "Konto löschen",
        done_title: "Das Konto ist gelöscht",
        done: "Niemand kann es mehr benutzen. Ihre E-Mail-Adresse ist bei {product} nicht registriert.",
        again: "Gibt es das Konto noch, fordern Sie auf der Seite zum Bestätigen der Adresse eine neue E-Mail an.",
    },
    email_change: PurposeTexts {
        title: "Neue E-Mail-Adresse bestätigen",
        ask: "Drücken Sie den Knopf, um diese E-Mail-Adresse von nun an für Ihr Konto bei {product} zu verwenden.",
        button: "Diese Adresse verwenden",
        done_title: "Ihre E-Mail-Adresse wurde geändert",
        done: "Melden Sie sich von nun an damit bei {product} an. Auf anderen Geräten müssen Sie sich neu anmelden.",
        again: "Melden Sie sich an und beantragen Sie die Änderung noch einmal.",
    },
    password_reset: PurposeTexts {
        title: "Neues Passwort wählen",
        ask: "Es gilt für Ihr Konto bei {product}. Sie werden überall abgemeldet.",
        button: "Passwort speichern",
        done_title: "Ihr Passwort wurde geändert",
        done: "Melden Sie sich damit bei {product} an.",
        again: "Geben Sie Ihre E-Mail-Adresse ein, um einen neuen zu erhalten.",
    },
    invitation: PurposeTexts {
        title: "Sie sind in eine Organisation eingeladen",
        ask: "Um die Einladung anzunehmen, melden Sie sich bei {product} mit der E-Mail-Adresse an, an die sie ging, oder \
              registrieren Sie sich zuerst mit ihr. Öffnen Sie dort den Link der E-Mail noch einmal.",
        button: "Annehmen",
        done_title: "Sie sind der Organisation beigetreten",
        done: "Sie können zu {product} zurückkehren.",
        again: "Bitten Sie, wer Sie eingeladen hat, um eine neue Einladung.",
    },
    dead_title: "Dieser Link ist nicht mehr gültig",
    dead: "Er ist abgelaufen, wurde schon benutzt oder nicht vollständig kopiert.",
    send_again: "Neuen Link schicken",
    sent_title: "Sehen Sie in Ihre E-Mails",
    sent: "Wenn es an diese Adresse etwas zu schicken gibt, ist es unterwegs. Sehen Sie auch im Spam-Ordner nach.",
    refused_title: "Das hat nicht geklappt",
    password_label: "Neues Passwort",
    password_hint: "Mindestens {n} Zeichen. Ein paar Wörter hintereinander sind ein gutes Passwort.",
    show_password: "Passwort anzeigen",
    too_short: "Dieses Passwort ist zu kurz. Es braucht mindestens {n} Zeichen.",
    too_long: "Dieses Passwort ist zu lang. Es darf höchstens 1024 Bytes haben.",
    too_common: "Dieses Passwort ist zu bekannt: Angreifer probieren es als Erstes. Wählen Sie ein anderes.",
    breached: "Dieses Passwort ist bei einem anderen Dienst gestohlen worden. Wählen Sie ein anderes.",
    account: "Konto: {email}",
    address: "Neue Adresse: {email}",
    back: "Zurück zu {product}",
    already_title: "Ihre E-Mail-Adresse ist schon bestätigt",
    already: "Dieser Link hat seinen Zweck erfüllt, und es ist nichts mehr zu tun. Sie können zu {product} zurückkehren und sich anmelden.",
    request: "Geben Sie die E-Mail-Adresse Ihres Kontos bei {product} ein. Sie erhalten einen Link, mit dem Sie ein neues Passwort wählen.",
    request_button: "Link schicken",
    email_label: "E-Mail-Adresse",
    email_hint: "Die Ihres Kontos.",
    rate_limited: "Das waren zu viele Versuche. Warten Sie ein paar Minuten und versuchen Sie es noch einmal.",
    registration_closed: "Zu dieser E-Mail-Adresse gibt es kein Konto, und neue können nicht angelegt werden.",
    user_banned: "Dieses Konto kann nicht benutzt werden. Fragen Sie die Betreiber.",
    email_taken: "Diese E-Mail-Adresse gehört zu einem anderen Konto.",
    invalid_email: "Das ist keine E-Mail-Adresse. Gehen Sie zurück und geben Sie sie noch einmal ein.",
    otherwise: "Gehen Sie zurück und versuchen Sie es noch einmal.",
};
