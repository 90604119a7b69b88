//! What a mailed token can do to an account: verify its address, change it, or set a new password; and what ends when
//! control of the mailbox is proven.
//!
//! Three rules hold throughout. Whatever ends all sessions also ends what would bring them back: links and codes,
//! tokens for a new password or to verify the address, and a pending change of address ([`User::end_access`] is the
//! only place). An account with an unproven address may have been created by anybody: a person who proves the address,
//! other than by confirming that registration, gets the account without its earlier password, sessions and profile, and
//! may have it erased instead. And a password is the person's own only if no admin set it and no holder of a restricted
//! key had the token that set it, or that verified the address of its registration: granting the admin role drops any
//! other password.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    EmailChangeRequested, EmailChanged, EmailVerificationRequested, EmailVerified, ErasureReason,
    MailboxCommand, MailboxProof, PasswordChanged, PasswordReset, PasswordResetRequested, RegistrationMethod,
    ResetReason, User, UserErased, UserError, UserEvent,
};
use crate::email::Email;
use crate::ids::{SessionId, UserId};
use crate::password::PasswordHash;
use crate::personal::Personal;
use crate::settings::SentBy;
use crate::time::after;

/// What a token that changes the address is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailChange {
    /// The new address; absent once the person is erased.
    pub email: Option<Email>,
    /// The requesting session, which is kept.
    pub session_id: SessionId,
}

/// What a token for a new password is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ResetToken {
    pub reason: ResetReason,
    /// Whether it went to the holder of a key without full rights in the app. Assumed to be so unless known
    /// otherwise.
    #[serde(default = "handed_out")]
    pub handed_out: bool,
}

fn handed_out() -> bool {
    true
}

/// What a proof ends of an account that was set up earlier without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Password, sessions, links and the like.
    pub access: bool,
    /// Name, telephone number and picture.
    pub profile: bool,
}

impl ResetToken {
    fn new(reason: ResetReason, delivery: SentBy, full_admin: bool) -> Self {
        let is_mailed = delivery == SentBy::Platform && reason != ResetReason::Admin;
        Self { reason, handed_out: !is_mailed && !full_admin }
    }

    /// Whether one can be sent in place of the other: both prove the same, and no key gets a token that was mailed.
    fn is_like(self, other: Self) -> bool {
        self.proves_mailbox() == other.proves_mailbox() && self.handed_out == other.handed_out
    }

    /// Whether having the token proves access to the account's mailbox.
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
    ended: Ended,
    at: Timestamp,
) -> UserEvent {
    let personal = Personal { email: Some(email.clone()), ..Personal::default() };
    let Ended { access: earlier_access_ended, profile: profile_cleared } = ended;
    UserEvent::EmailVerified(EmailVerified {
        user_id,
        proof,
        earlier_access_ended,
        profile_cleared,
        at,
        personal,
    })
}

fn end_of(ttl: u32, at: Timestamp) -> Timestamp {
    after(at, SignedDuration::from_secs(ttl.into()))
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
        // A user without an address is erased.
        let email = self.email.as_ref().ok_or(UserError::Absent)?;
        match command {
            MailboxCommand::RequestEmailVerification { delivery, full_admin, ttl, at } => {
                let offered = self.verification.offer(end_of(ttl, at), at, |()| true);
                Ok(self.request_verification(user_id, email, delivery, full_admin, offered, at))
            }
            MailboxCommand::VerifyEmail { generation, at } => {
                if self.was_verified_by(generation) {
                    return Err(UserError::AlreadyVerified);
                }
                self.verification.get(generation, at).ok_or(UserError::InvalidToken)?;
                Ok(vec![verified(user_id, email, MailboxProof::Verification, Ended::default(), at)])
            }
            MailboxCommand::Disown { generation, at } => self.disown(user_id, generation, at),
            MailboxCommand::ProveEmail { email: proven, .. } if proven != *email => {
                Err(UserError::OtherEmail)
            }
            MailboxCommand::ProveEmail { .. } if self.email_verified => Ok(vec![]),
            // Only a proof that confirms the registration also confirms its password.
            MailboxCommand::ProveEmail { proof, at, .. } => {
                let is_takeover = proof != MailboxProof::Verification;
                let profile = is_takeover && self.has_doubtful_profile();
                Ok(vec![verified(user_id, email, proof, Ended { access: is_takeover, profile }, at)])
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
            MailboxCommand::RequestPasswordReset { reason, delivery, full_admin, ttl, client, at } => {
                let personal = Personal { email: Some(email.clone()), ..Personal::of(client) };
                // A token that an admin requests goes to the admin, who hands it on.
                let delivery = if reason == ResetReason::Admin { SentBy::App } else { delivery };
                let token = ResetToken::new(reason, delivery, full_admin);
                let is_of_kind = |other: &ResetToken| other.is_like(token);
                let (generation, expires_at) = self.password_reset.offer(end_of(ttl, at), at, is_of_kind);
                Ok(vec![UserEvent::PasswordResetRequested(PasswordResetRequested {
                    user_id,
                    generation,
                    reason,
                    delivery,
                    expires_at,
                    full_admin: full_admin && delivery == SentBy::App,
                    at,
                    personal,
                })])
            }
            MailboxCommand::ResetPassword { generation, password_hash, client, at } => {
                let token = self.password_reset.get(generation, at).ok_or(UserError::InvalidToken)?;
                let personal = Personal { password_hash: Some(password_hash), ..Personal::of(client) };
                let reset = UserEvent::PasswordReset(PasswordReset { user_id, at, personal });
                let proven =
                    token.proves_mailbox().then(|| self.proven_by_reset(user_id, email, at)).flatten();
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

    fn request_verification(
        &self,
        user_id: UserId,
        email: &Email,
        delivery: SentBy,
        full_admin: bool,
        (generation, expires_at): (u32, Timestamp),
        at: Timestamp,
    ) -> Vec<UserEvent> {
        if self.email_verified {
            return vec![];
        }
        vec![UserEvent::EmailVerificationRequested(EmailVerificationRequested {
            user_id,
            generation,
            delivery,
            expires_at,
            full_admin: full_admin && delivery == SentBy::App,
            at,
            personal: Personal { email: Some(email.clone()), ..Personal::default() },
        })]
    }

    fn disown(&self, user_id: UserId, generation: u32, at: Timestamp) -> Result<Vec<UserEvent>, UserError> {
        self.verification.get(generation, at).ok_or(UserError::InvalidToken)?;
        // An admin without a proof dates from before the role needed one: their granter knew the person.
        if self.email_verified || !self.promotions.is_empty() || self.admin_since.is_some() {
            return Err(UserError::InvalidToken);
        }
        let reason = ErasureReason::Disowned;
        Ok(vec![UserEvent::UserErased(UserErased { user_id, reason, at })])
    }

    /// The reset itself has ended everything earlier except the profile.
    fn proven_by_reset(&self, user_id: UserId, email: &Email, at: Timestamp) -> Option<UserEvent> {
        let ended = Ended { access: false, profile: self.has_doubtful_profile() };
        let proof = MailboxProof::PasswordReset;
        (!self.email_verified).then(|| verified(user_id, email, proof, ended, at))
    }

    fn require_password(&self, checked: &PasswordHash) -> Result<(), UserError> {
        if self.password_hash.as_ref() == Some(checked) { Ok(()) } else { Err(UserError::OtherPassword) }
    }

    /// Whether the token of this number could have verified the present address, which is verified: the token is void,
    /// but nothing is left to do either.
    pub fn was_verified_by(&self, generation: u32) -> bool {
        self.email_verified && (1..=self.verified_up_to).contains(&generation)
    }

    /// Whether the profile may come from somebody who proved nothing. A profile from an admin stays.
    fn has_doubtful_profile(&self) -> bool {
        let has_profile = self.name.is_some() || self.phone.is_some() || self.avatar_url.is_some();
        has_profile && !self.email_verified && self.made_by != Some(RegistrationMethod::Admin)
    }

    pub(super) fn apply_email_verification_requested(&mut self, event: &EmailVerificationRequested) {
        if event.delivery == SentBy::App && !event.full_admin {
            // Its recipient can pass off any registration as the person's own.
            self.password_is_own = false;
        }
        self.verification.issue(event.generation, event.expires_at, (), event.at, |()| true);
    }

    pub(super) fn apply_email_verified(&mut self, event: &EmailVerified) {
        self.email_verified = true;
        self.verified_up_to = self.verification.last();
        self.made_from = None;
        self.verification.end();
        // It was requested without proof and would take the account from its owner again.
        self.email_change.end();
        if event.earlier_access_ended {
            self.password_hash = None;
            self.end_access(None, event.at);
        }
        if event.profile_cleared {
            (self.name, self.phone, self.avatar_url) = (None, None, None);
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
        // Earlier tokens were for another address.
        self.verified_up_to = 0;
        self.made_from = None;
        self.end_access(Some(event.session_id), event.at);
        self.updated_at = event.at;
    }

    pub(super) fn apply_password_reset_requested(&mut self, event: &PasswordResetRequested) {
        let PasswordResetRequested { generation, reason, delivery, full_admin, expires_at, at, .. } = *event;
        let token = ResetToken::new(reason, delivery, full_admin);
        self.password_reset.issue(generation, expires_at, token, at, |other| other.is_like(token));
    }

    /// The event does not say which token was used, so a single valid token that was handed out makes the password
    /// doubtful.
    pub(super) fn apply_password_reset(&mut self, event: PasswordReset) {
        self.password_is_own = !self.password_reset.live(event.at).any(|token| token.handed_out);
        self.apply_password_set(event.personal.password_hash, None, event.at);
    }

    /// Drops a password that somebody else may know, or that was never the person's.
    pub(super) fn drop_foreign_password(&mut self) {
        if !self.password_is_own {
            self.password_hash = None;
        }
    }

    pub(super) fn apply_password_set(
        &mut self,
        hash: Option<PasswordHash>,
        kept: Option<SessionId>,
        at: Timestamp,
    ) {
        self.password_hash = hash;
        self.end_access(kept, at);
        self.updated_at = at;
    }

    /// Ends all sessions but one, and all that would bring them back. Links and codes carry their epoch; the tokens are
    /// kept here.
    pub(super) fn end_access(&mut self, kept: Option<SessionId>, at: Timestamp) {
        self.epoch += 1;
        self.kept_session = kept;
        self.access_ended_at = Some(at);
        self.password_reset.end();
        self.email_change.end();
        self.verification.end();
    }
}

#[cfg(test)]
mod tests;
