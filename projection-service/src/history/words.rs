//! What happened, in words. Every event has its own: the compiler names those that have none.

use domain::access::{AccessEvent, ExportForm, HistoryExported, PersonalDataRead, PersonalDataSource};
use domain::app::AppEvent;
use domain::delivery::{DeliveryEvent, FailureReason, MailFailed, WebhookFailed, WebhookFailure};
use domain::journal::JournalEvent;
use domain::lockout::LockoutEvent;
use domain::magic_link::MagicLinkEvent;
use domain::mail::MailKind;
use domain::memberships::MembershipsEvent;
use domain::organization::{OrganizationEvent, RemovalReason};
use domain::role_templates::RoleTemplatesEvent;
use domain::session::{LoginMethod, RevocationReason, SessionEvent};
use domain::settings::SentBy;
use domain::user::{ErasureReason, MailboxProof, ProfileField, RegistrationMethod, ResetReason, UserEvent};
use domain::webhook::WebhookEvent;
use domain::{Email, Event, Personal};

/// A sentence about the person whose history it is, without its subject and its full stop.
pub(super) fn words(event: &Event) -> String {
    match event {
        Event::User(event) => user(event),
        Event::Session(event) => session(event),
        Event::Lockout(event) => lockout(event),
        Event::MagicLink(event) => magic_link(event),
        Event::Delivery(event) => delivery(event),
        Event::Access(event) => access(event),
        Event::App(event) => app(event),
        Event::Webhook(event) => webhook(event),
        Event::Journal(event) => journal(event),
        Event::Organization(event) => organization(event),
        Event::Memberships(event) => memberships(event),
        Event::RoleTemplates(event) => role_templates(event),
    }
}

fn user(event: &UserEvent) -> String {
    match event {
        UserEvent::UserRegistered(event) => {
            let how = match event.method {
                RegistrationMethod::Password => "Registered with a password",
                RegistrationMethod::Admin => "Account created by an admin",
                RegistrationMethod::MagicLink => "Registered with a magic link",
                RegistrationMethod::Import => "Account imported from another system",
            };
            format!("{how}, as {}", address(event.personal.email.as_ref()))
        }
        UserEvent::EmailVerificationRequested(event) => {
            format!(
                "Verification of {} requested{}",
                address(event.personal.email.as_ref()),
                by(event.delivery)
            )
        }
        UserEvent::EmailVerified(event) => {
            let proof = match event.proof {
                MailboxProof::Verification => "the token of a mail",
                MailboxProof::MagicLink => "a magic link",
                MailboxProof::PasswordReset => "a password reset",
                MailboxProof::Import => "the system that it was imported from",
            };
            let mut text = format!("Address {} verified by {proof}", address(event.personal.email.as_ref()));
            if event.earlier_access_ended {
                text.push_str("; what had been set up without proof was ended");
            }
            if event.profile_cleared {
                text.push_str("; the profile was cleared");
            }
            text
        }
        UserEvent::EmailChangeRequested(event) => {
            let new = address(event.personal.email.as_ref());
            format!("Change of the address to {new} requested{}", by(event.delivery))
        }
        UserEvent::EmailChanged(event) => {
            let Personal { email, previous_email, .. } = &event.personal;
            let (old, new) = (address(previous_email.as_ref()), address(email.as_ref()));
            format!("Address changed from {old} to {new}; all other sessions ended")
        }
        UserEvent::PasswordResetRequested(event) => {
            let why = match event.reason {
                ResetReason::Forgotten => "Password reset requested",
                ResetReason::AddressTaken => {
                    "Somebody tried to register with this address: password reset offered"
                }
                ResetReason::Admin => "Password reset requested by an admin",
            };
            format!("{why}{}", by(event.delivery))
        }
        UserEvent::PasswordReset(_) => "Password reset; all sessions ended".to_owned(),
        UserEvent::PasswordChanged(_) => "Password changed; all other sessions ended".to_owned(),
        UserEvent::PasswordRehashed(_) => "Password hash renewed at a login".to_owned(),
        UserEvent::ProfileUpdated(event) => {
            let Personal { name, phone, avatar_url, .. } = &event.personal;
            let field = |field, value: &Option<String>, label: &str| match value {
                Some(value) => Some(format!("{label} {value}")),
                None => event.cleared.contains(&field).then(|| format!("no {label}")),
            };
            let fields = [
                field(ProfileField::Name, name, "name"),
                field(ProfileField::Phone, phone, "phone"),
                field(ProfileField::AvatarUrl, avatar_url, "picture"),
            ];
            let fields: Vec<String> = fields.into_iter().flatten().collect();
            if fields.is_empty() {
                "Profile changed".to_owned()
            } else {
                format!("Profile changed: {}", fields.join(", "))
            }
        }
        UserEvent::RoleGranted(event) => {
            let ended = if event.access_ended { "; all earlier access ended" } else { "" };
            format!("Role {} granted{ended}", event.role)
        }
        UserEvent::RoleRevoked(event) => format!("Role {} revoked", event.role),
        UserEvent::UserBanned(event) => match &event.personal.reason {
            Some(reason) => format!("Banned: {reason}"),
            None => "Banned".to_owned(),
        },
        UserEvent::UserUnbanned(_) => "Ban lifted".to_owned(),
        UserEvent::WebhookNoticeRequested(event) => {
            format!("Told that webhook {} was disabled{}", event.webhook_id, by(event.delivery))
        }
        UserEvent::AccessEnded(event) => {
            let which = if event.kept_session.is_some() { "All other sessions" } else { "All sessions" };
            format!("{which} ended: {}", ended_by(event.reason))
        }
        UserEvent::UserErased(event) => {
            let why = match event.reason {
                ErasureReason::Disowned => "the owner of the mailbox did not create the account",
                ErasureReason::Requested => "at their own request",
                ErasureReason::Admin => "by an admin",
            };
            format!("Erased: {why}")
        }
    }
}

fn session(event: &SessionEvent) -> String {
    match event {
        SessionEvent::SessionStarted(event) => {
            let how = match event.method {
                LoginMethod::Password => "Logged in with a password",
                LoginMethod::Registration => "Logged in by registering",
                LoginMethod::Admin => "Test token made by an admin",
                LoginMethod::MagicLink => "Logged in with a magic link",
            };
            format!("{how}: session {}", event.session_id)
        }
        SessionEvent::SessionRefreshed(event) => {
            format!("Session {} refreshed", event.session_id)
        }
        SessionEvent::RefreshTokenReused(event) => {
            format!("A used refresh token of session {} came again: it may be stolen", event.session_id)
        }
        SessionEvent::ActiveOrganizationChosen(event) => match event.organization_id {
            Some(organization_id) => {
                format!("Session {} acts for the organization {organization_id}", event.session_id)
            }
            None => format!("Session {} acts for no organization", event.session_id),
        },
        SessionEvent::SessionRevoked(event) => {
            format!("Session {} ended: {}", event.session_id, ended_by(event.reason))
        }
    }
}

fn lockout(event: &LockoutEvent) -> String {
    let whom = |is_known: bool| if is_known { "on a known device" } else { "on an unknown device" };
    match event {
        LockoutEvent::LoginFailed(event) => {
            let whom = whom(event.device_id.is_some());
            format!("Wrong password {whom}, {} in this window", event.failures)
        }
        LockoutEvent::AccountLocked(event) => match event.device_id {
            Some(_) => format!("Logins from one known device locked until {}", event.until),
            None => format!("Logins from unknown devices locked until {}", event.until),
        },
        LockoutEvent::AccountUnlocked(_) => "Locks lifted, failed logins forgotten".to_owned(),
    }
}

fn magic_link(event: &MagicLinkEvent) -> String {
    match event {
        MagicLinkEvent::MagicLinkIssued(event) => {
            let to = address(event.personal.email.as_ref());
            format!("Magic link for {to} requested{}", by(event.delivery))
        }
        MagicLinkEvent::MagicLinkSuperseded(_) => "Magic link replaced by a newer one".to_owned(),
        MagicLinkEvent::MagicLinkRedeemed(event) => {
            let new = if event.registered { ", which created the account" } else { "" };
            format!("Magic link used{new}")
        }
        MagicLinkEvent::ExchangeCodeRedeemed(event) => {
            format!("Code of a magic link exchanged for session {}", event.session_id)
        }
        MagicLinkEvent::ExchangeCodeReplayed(event) => {
            format!("The code of session {} came again: it may be stolen", event.session_id)
        }
    }
}

fn delivery(event: &DeliveryEvent) -> String {
    match event {
        DeliveryEvent::MailSent(event) => format!("Mail sent: {}", mail(event.mail)),
        DeliveryEvent::MailFailed(event) => {
            let MailFailed { mail: kind, reason, smtp_code, retry_at, asked_again, .. } = event;
            if *asked_again {
                return format!("Mail to be tried again: {}", mail(*kind));
            }
            let why = match reason {
                FailureReason::Unreachable => "the mail server could not be reached",
                FailureReason::Deferred => "the mail server deferred it",
                FailureReason::Rejected => "the mail server rejected it",
                FailureReason::NotMade => "it could not be composed",
                FailureReason::Expired => "its link had expired",
            };
            let code = smtp_code.map(|code| format!(" ({code})")).unwrap_or_default();
            let next = match retry_at {
                Some(at) => format!("next attempt at {at}"),
                None => "given up".to_owned(),
            };
            format!("Mail not sent: {}; {why}{code}; {next}", mail(*kind))
        }
        DeliveryEvent::WebhookDelivered(event) => {
            format!("{} events delivered to a webhook, up to event {}", event.count, event.position)
        }
        DeliveryEvent::WebhookFailed(event) => webhook_failed(event),
    }
}

fn webhook_failed(event: &WebhookFailed) -> String {
    let WebhookFailed { position, reason, status, retry_at, asked_again, .. } = event;
    if *asked_again {
        return format!("Event {position} to be sent to a webhook again");
    }
    let why = match reason {
        WebhookFailure::Unreachable => "it could not be reached",
        WebhookFailure::Timeout => "it did not answer in time",
        WebhookFailure::Status => "it refused it",
        WebhookFailure::Forbidden => "its address is not allowed",
        WebhookFailure::NotMade => "the message could not be made",
        WebhookFailure::Blocked => "an earlier event of its stream was not delivered",
    };
    let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
    let next = match retry_at {
        Some(at) => format!("next attempt at {at}"),
        None => "given up".to_owned(),
    };
    format!("Event {position} not delivered to a webhook; {why}{status}; {next}")
}

fn access(event: &AccessEvent) -> String {
    match event {
        AccessEvent::PersonalDataRead(PersonalDataRead { source, .. }) => {
            let what = match source {
                PersonalDataSource::User => "the account",
                PersonalDataSource::UserList => "the account in a list of users",
                PersonalDataSource::Sessions => "the sessions",
                PersonalDataSource::Audit => "the history",
            };
            format!("Personal data read: {what}")
        }
        AccessEvent::HistoryExported(HistoryExported { form, opened, .. }) => {
            let form = match form {
                ExportForm::Ndjson => "lines of JSON",
                ExportForm::Csv => "a table",
                ExportForm::Person => "all that is held about a person",
                ExportForm::Users => "the users as they are, one per line",
                ExportForm::UsersWithHashes => "the users as they are, one per line, with password hashes",
            };
            let sealed = if *opened { "personal data opened" } else { "personal data sealed" };
            format!("History exported as {form}, {sealed}")
        }
    }
}

/// An app's events are about no person; they are here so that nothing is left out.
fn app(event: &AppEvent) -> String {
    match event {
        AppEvent::AppCreated(event) => format!("App {} created", event.app_id),
        AppEvent::AppSettingsChanged(_) => "Settings of the app changed".to_owned(),
        AppEvent::AppDisabled(_) => "App disabled".to_owned(),
        AppEvent::AppEnabled(_) => "App enabled".to_owned(),
        AppEvent::SigningKeyCreated(_) => "Signing key created".to_owned(),
        AppEvent::SigningKeyActivated(event) => format!("Signing key {} activated", event.kid),
        AppEvent::SigningKeyRetired(event) => format!("Signing key {} retired", event.kid),
        AppEvent::ApiKeyIssued(event) => format!("API key {} issued", event.name),
        AppEvent::ApiKeyRevoked(event) => format!("API key {} revoked", event.key_id),
    }
}

fn organization(event: &OrganizationEvent) -> String {
    match event {
        OrganizationEvent::OrganizationCreated(event) => format!("Organization {} created", event.slug),
        OrganizationEvent::OrganizationRenamed(event) => format!("Organization renamed to {}", event.slug),
        OrganizationEvent::OrganizationDeleted(event) => {
            format!("Organization {} deleted", event.organization_id)
        }
        OrganizationEvent::MemberAdded(event) => {
            format!("Made {} of the organization {}", event.role, event.organization_id)
        }
        OrganizationEvent::MemberInvited(event) => format!(
            "Invitation of {} as {} of the organization {}{}",
            address(event.personal.email.as_ref()),
            event.role,
            event.organization_id,
            by(event.delivery)
        ),
        OrganizationEvent::InvitationRevoked(event) => {
            format!(
                "Invitation {} to the organization {} revoked",
                event.invitation_id, event.organization_id
            )
        }
        OrganizationEvent::InvitationAccepted(event) => {
            format!("Invitation accepted: {} of the organization {}", event.role, event.organization_id)
        }
        OrganizationEvent::OrganizationKeyIssued(event) => {
            format!(
                "API key {} ({}) of the organization {} made",
                event.name, event.key_id, event.organization_id
            )
        }
        OrganizationEvent::OrganizationKeyRevoked(event) => {
            format!("API key {} of the organization {} revoked", event.key_id, event.organization_id)
        }
        OrganizationEvent::MemberRoleChanged(event) => {
            format!("Role in the organization {} changed to {}", event.organization_id, event.role)
        }
        OrganizationEvent::OrganizationRoleSet(event) => {
            format!("Role {} of the organization {} set", event.role, event.organization_id)
        }
        OrganizationEvent::OrganizationRoleDeleted(event) => {
            format!("Role {} of the organization {} deleted", event.role, event.organization_id)
        }
        OrganizationEvent::MemberRemoved(event) => {
            let why = match event.reason {
                RemovalReason::Left => "they left",
                RemovalReason::Removed => "they were removed",
                RemovalReason::Erased => "the person was erased",
            };
            format!("No longer a member of the organization {}: {why}", event.organization_id)
        }
    }
}

/// An app's roles are about no person.
fn role_templates(event: &RoleTemplatesEvent) -> String {
    match event {
        RoleTemplatesEvent::RoleTemplateSet(event) => format!("Role {} of organizations set", event.role),
        RoleTemplatesEvent::RoleTemplateDeleted(event) => {
            format!("Role {} of organizations deleted", event.role)
        }
    }
}

fn memberships(event: &MembershipsEvent) -> String {
    match event {
        MembershipsEvent::OrganizationJoined(event) => {
            format!("Organization {} entered in the person's list", event.organization_id)
        }
        MembershipsEvent::OrganizationLeft(event) => {
            format!("Organization {} taken from the person's list", event.organization_id)
        }
    }
}

fn webhook(event: &WebhookEvent) -> String {
    match event {
        WebhookEvent::WebhookCreated(event) => format!("Webhook to {} created", event.url),
        WebhookEvent::WebhookChanged(event) => format!("Webhook to {} changed", event.url),
        WebhookEvent::WebhookDisabled(event) => {
            format!("Webhook disabled, as it had accepted nothing since {}", event.failing_since)
        }
        WebhookEvent::WebhookReplayRequested(event) => {
            format!("Webhook to be sent the events from position {} on", event.from_position)
        }
        WebhookEvent::WebhookDeleted(_) => "Webhook deleted".to_owned(),
    }
}

fn journal(event: &JournalEvent) -> String {
    match event {
        JournalEvent::JournalCreated(_) => "Journal created".to_owned(),
        JournalEvent::JournalWentBack(_) => "The journal lost its newest events".to_owned(),
        JournalEvent::CheckpointKeyAdded(event) => format!("Checkpoint key {} added", event.key_id),
        JournalEvent::CheckpointKeyRetired(event) => format!("Checkpoint key {} retired", event.key_id),
    }
}

fn ended_by(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Logout => "logged out",
        RevocationReason::User => "by the person",
        RevocationReason::Admin => "by an admin",
        RevocationReason::Ban => "banned",
        RevocationReason::RefreshTokenReused => "a refresh token was used twice",
        RevocationReason::Limit => "too many sessions",
        RevocationReason::ExchangeCodeReplayed => "an exchange code was used twice",
        RevocationReason::PasswordChanged => "the password was changed",
        RevocationReason::PasswordReset => "the password was reset",
        RevocationReason::EmailChanged => "the address was changed",
        RevocationReason::EmailVerified => "the address was verified by its owner",
        RevocationReason::Erased => "the person was erased",
    }
}

fn mail(kind: MailKind) -> &'static str {
    match kind {
        MailKind::MagicLink => "a magic link",
        MailKind::EmailVerification => "verification of the address",
        MailKind::EmailChange => "confirmation of the new address",
        MailKind::EmailChangeNotice => "notice of a change of the address",
        MailKind::PasswordReset => "password reset",
        MailKind::AddressTaken => "notice of an attempt to register",
        MailKind::Invitation => "an invitation to an organization",
        MailKind::WebhookDisabled => "notice of a disabled webhook",
    }
}

fn by(sender: SentBy) -> &'static str {
    match sender {
        SentBy::Platform => "",
        SentBy::App => ", to be delivered by the app",
    }
}

/// An address, or what is left of it once the person is erased.
fn address(email: Option<&Email>) -> &str {
    email.map_or("an address that cannot be read", Email::as_str)
}
