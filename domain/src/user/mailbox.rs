//! What a token from a mail can do to an account: verify its address, give it another, or choose a new password; and what
//! ends when somebody proves that they read the mail.
//!
//! Two rules hold throughout. Whatever ends sessions also ends what could undo it: tokens for a new password, and a change
//! of address that is under way. And an account whose address nobody has proven may have been made by anybody: the one who
//! proves it, other than by confirming that registration, gets it without the password and the sessions of before.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    EmailChangeRequested, EmailChanged, EmailVerificationRequested, EmailVerified, MailboxCommand,
    MailboxProof, PasswordChanged, PasswordReset, PasswordResetRequested, ResetReason, User, UserError,
    UserEvent,
};
use crate::email::Email;
use crate::ids::{SessionId, UserId};
use crate::password::PasswordHash;
use crate::personal::Personal;
use crate::settings::Delivery;

/// What a token that changes the address is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailChange {
    /// The new address; absent once the person is erased.
    pub email: Option<Email>,
    /// The session that asked, which goes on.
    pub session_id: SessionId,
}

/// What a token for a new password is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetToken {
    /// Why it was made.
    pub reason: ResetReason,
}

impl ResetToken {
    /// Whether whoever has it reads the mail of the account's address.
    pub fn proves_mailbox(self) -> bool {
        match self.reason {
            ResetReason::Forgotten | ResetReason::AddressTaken => true,
            ResetReason::Admin => false,
        }
    }
}

/// The event of a proof.
pub(super) fn verified(
    user_id: UserId,
    email: &Email,
    proof: MailboxProof,
    earlier_access_ended: bool,
    at: Timestamp,
) -> UserEvent {
    let personal = Personal { email: Some(email.clone()), ..Personal::default() };
    UserEvent::EmailVerified(EmailVerified { user_id, proof, earlier_access_ended, at, personal })
}

fn end_of(ttl: u32, at: Timestamp) -> Timestamp {
    at + SignedDuration::from_secs(ttl.into())
}

impl User {
    pub(super) fn decide_on_mailbox(
        &self,
        user_id: UserId,
        command: MailboxCommand,
    ) -> Result<Vec<UserEvent>, UserError> {
        if self.banned {
            return Err(UserError::Banned);
        }
        // Without an address they are erased.
        let email = self.email.as_ref().ok_or(UserError::Absent)?;
        match command {
            MailboxCommand::RequestEmailVerification { delivery, ttl, at } => {
                if self.email_verified {
                    return Ok(vec![]);
                }
                let personal = Personal { email: Some(email.clone()), ..Personal::default() };
                let (generation, expires_at) = self.verification.offer(end_of(ttl, at), at, |()| true);
                let requested =
                    EmailVerificationRequested { user_id, generation, delivery, expires_at, at, personal };
                Ok(vec![UserEvent::EmailVerificationRequested(requested)])
            }
            MailboxCommand::VerifyEmail { generation, at } => {
                self.verification.get(generation, at).ok_or(UserError::InvalidToken)?;
                Ok(vec![verified(user_id, email, MailboxProof::Verification, false, at)])
            }
            MailboxCommand::ProveEmail { email: proven, .. } if proven != *email => {
                Err(UserError::OtherEmail)
            }
            MailboxCommand::ProveEmail { .. } if self.email_verified => Ok(vec![]),
            // Confirming a registration is the one proof that says that its password is one's own.
            MailboxCommand::ProveEmail { proof, at, .. } => {
                Ok(vec![verified(user_id, email, proof, proof != MailboxProof::Verification, at)])
            }
            MailboxCommand::RequestEmailChange {
                new_email,
                checked,
                session_id,
                delivery,
                ttl,
                client,
                at,
            } => {
                self.require_password(&checked)?;
                if new_email == *email {
                    return Ok(vec![]);
                }
                let personal = Personal {
                    email: Some(new_email),
                    previous_email: Some(email.clone()),
                    ..Personal::of(client)
                };
                let (generation, expires_at) = (self.email_change.next(), end_of(ttl, at));
                Ok(vec![UserEvent::EmailChangeRequested(EmailChangeRequested {
                    user_id,
                    generation,
                    session_id,
                    delivery,
                    expires_at,
                    at,
                    personal,
                })])
            }
            MailboxCommand::ConfirmEmailChange { generation, at } => {
                let change = self.email_change.get(generation, at).ok_or(UserError::InvalidToken)?;
                let new_email = change.email.clone().ok_or(UserError::InvalidToken)?;
                let personal = Personal {
                    email: Some(new_email),
                    previous_email: Some(email.clone()),
                    ..Personal::default()
                };
                let session_id = change.session_id;
                Ok(vec![UserEvent::EmailChanged(EmailChanged { user_id, session_id, at, personal })])
            }
            MailboxCommand::RequestPasswordReset { reason, delivery, ttl, client, at } => {
                let personal = Personal { email: Some(email.clone()), ..Personal::of(client) };
                // What an admin asks for is theirs to hand on.
                let delivery = if reason == ResetReason::Admin { Delivery::App } else { delivery };
                let token = ResetToken { reason };
                let is_of_kind = |other: &ResetToken| other.proves_mailbox() == token.proves_mailbox();
                let (generation, expires_at) = self.password_reset.offer(end_of(ttl, at), at, is_of_kind);
                Ok(vec![UserEvent::PasswordResetRequested(PasswordResetRequested {
                    user_id,
                    generation,
                    reason,
                    delivery,
                    expires_at,
                    at,
                    personal,
                })])
            }
            MailboxCommand::ResetPassword { generation, password_hash, client, at } => {
                let token = self.password_reset.get(generation, at).ok_or(UserError::InvalidToken)?;
                let personal = Personal { password_hash: Some(password_hash), ..Personal::of(client) };
                let reset = UserEvent::PasswordReset(PasswordReset { user_id, at, personal });
                // The reset has ended everything of before by itself.
                let proven = token.proves_mailbox() && !self.email_verified;
                let proven = proven.then(|| verified(user_id, email, MailboxProof::PasswordReset, false, at));
                Ok([reset].into_iter().chain(proven).collect())
            }
            MailboxCommand::ChangePassword { checked, new, session_id, at } => {
                self.require_password(&checked)?;
                let personal = Personal { password_hash: Some(new), ..Personal::default() };
                let changed = PasswordChanged { user_id, session_id, at, personal };
                Ok(vec![UserEvent::PasswordChanged(changed)])
            }
        }
    }

    fn require_password(&self, checked: &PasswordHash) -> Result<(), UserError> {
        if self.password_hash.as_ref() == Some(checked) { Ok(()) } else { Err(UserError::OtherPassword) }
    }

    pub(super) fn apply_email_verification_requested(&mut self, event: &EmailVerificationRequested) {
        self.verification.issue(event.generation, event.expires_at, (), event.at, |()| true);
    }

    pub(super) fn apply_email_verified(&mut self, event: &EmailVerified) {
        self.email_verified = true;
        self.verification.end();
        if event.earlier_access_ended {
            self.password_hash = None;
            self.end_sessions(None);
        }
        self.updated_at = event.at;
    }

    pub(super) fn apply_email_change_requested(&mut self, event: EmailChangeRequested) {
        let EmailChangeRequested { generation, session_id, expires_at, at, personal, .. } = event;
        let change = EmailChange { email: personal.email, session_id };
        self.email_change.end();
        self.email_change.issue(generation, expires_at, change, at, |_| true);
    }

    pub(super) fn apply_email_changed(&mut self, event: EmailChanged) {
        self.email = event.personal.email;
        self.email_verified = true;
        self.verification.end();
        self.end_sessions(Some(event.session_id));
        self.updated_at = event.at;
    }

    pub(super) fn apply_password_reset_requested(&mut self, event: &PasswordResetRequested) {
        let PasswordResetRequested { generation, reason, expires_at, at, .. } = *event;
        let token = ResetToken { reason };
        let is_of_kind = |other: &ResetToken| other.proves_mailbox() == token.proves_mailbox();
        self.password_reset.issue(generation, expires_at, token, at, is_of_kind);
    }

    pub(super) fn apply_password_set(
        &mut self,
        hash: Option<PasswordHash>,
        kept: Option<SessionId>,
        at: Timestamp,
    ) {
        self.password_hash = hash;
        self.end_sessions(kept);
        self.updated_at = at;
    }

    /// Every session but one is over, and with them what could undo that.
    fn end_sessions(&mut self, kept: Option<SessionId>) {
        self.epoch += 1;
        self.kept_session = kept;
        self.password_reset.end();
        self.email_change.end();
    }
}

#[cfg(test)]
mod tests;
