//! Links, codes and reset tokens in any order: each is used at most once, and ended access stays ended. The aggregates
//! are combined as a command of the service does it: all of a decision, or nothing of it.

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use domain::magic_link::{Account, MagicLink, MagicLinkCommand, MagicLinkError, MagicLinkEvent};
use domain::password::PasswordHash;
use domain::pkce::CodeChallenge;
use domain::redirect_uri::RedirectUri;
use domain::session::{LoginMethod, RevocationReason, Session, SessionCommand};
use domain::settings::{AppSettings, Registration, SentBy};
use domain::user::{
    Client, MailboxCommand, MailboxProof, Origin, Profile, RegistrationMethod, ResetReason, User,
    UserCommand, UserEvent,
};
use domain::{AppId, Email, MagicLinkId, SessionId, Timestamp, UserId};
use proptest::prelude::*;

/// A possible step, with a choice of its target.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u8),
    Issue { with_challenge: bool },
    Supersede(u8),
    Redeem(u8),
    Exchange { code: u8, right_verifier: bool },
    Login,
    RequestReset,
    Reset(u8),
    ChangePassword,
    OpenOrClose,
    ListOrUnlist,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..20_u8).prop_map(Step::Wait),
        3 => any::<bool>().prop_map(|with_challenge| Step::Issue { with_challenge }),
        1 => (0..4_u8).prop_map(Step::Supersede),
        6 => (0..4_u8).prop_map(Step::Redeem),
        6 => (0..4_u8, prop::bool::weighted(0.8))
            .prop_map(|(code, right_verifier)| Step::Exchange { code, right_verifier }),
        1 => Just(Step::Login),
        2 => Just(Step::RequestReset),
        3 => (0..6_u8).prop_map(Step::Reset),
        1 => Just(Step::ChangePassword),
        1 => Just(Step::OpenOrClose),
        1 => Just(Step::ListOrUnlist),
    ]
}

/// Lets an aggregate decide and apply its decision. A refusal leaves it unchanged.
fn run<A: Aggregate<Services = ()> + Clone>(
    aggregate: &mut A,
    command: A::Command,
) -> Result<Vec<A::Event>, A::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
    runtime.block_on(async {
        let mut decided = aggregate.clone();
        let sink = EventSink::default();
        decided.handle(command, &(), &sink).await?;
        *aggregate = decided;
        Ok(sink.collect().await)
    })
}

fn challenge(first: char) -> CodeChallenge {
    CodeChallenge::parse(format!("{first}{}", "A".repeat(42))).expect("valid")
}

fn email() -> Email {
    Email::parse("ada@example.com").expect("valid")
}

fn redirect_uri() -> RedirectUri {
    RedirectUri::parse("https://app.example/callback").expect("valid")
}

/// One address of one app, and everything that was ever issued for it.
#[derive(Clone)]
struct World {
    now: i64,
    ids: u128,
    settings: AppSettings,
    /// The user with the address, once there is one.
    user: Option<User>,
    links: Vec<MagicLink>,
    sessions: Vec<Session>,
    /// What the rules are checked against: facts that are recorded as they happen, and taken from nowhere else.
    redeemed: BTreeSet<usize>,
    exchanged: BTreeSet<usize>,
    resets: Vec<u32>,
    used_resets: BTreeSet<u32>,
    /// Sessions that were ended.
    put_out: BTreeSet<SessionId>,
    /// Links whose code was issued but not exchanged when all sessions were ended.
    ended_codes: BTreeSet<usize>,
}

impl World {
    fn new(known: bool) -> Self {
        let mut world = Self {
            now: 0,
            ids: 0,
            settings: AppSettings {
                redirect_uris: vec![redirect_uri()],
                magic_link_ttl: 60,
                exchange_code_ttl: 20,
                password_reset_ttl: 60,
                ..AppSettings::default()
            },
            user: None,
            links: vec![],
            sessions: vec![],
            redeemed: BTreeSet::new(),
            exchanged: BTreeSet::new(),
            resets: vec![],
            used_resets: BTreeSet::new(),
            put_out: BTreeSet::new(),
            ended_codes: BTreeSet::new(),
        };
        if known {
            let user_id = UserId(world.id());
            let password_hash = Some(PasswordHash("first".to_owned()));
            world.register(user_id, RegistrationMethod::Password, None, password_hash);
        }
        world
    }

    fn id(&mut self) -> uuid::Uuid {
        self.ids += 1;
        uuid::Uuid::from_u128(self.ids)
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.now).expect("in range")
    }

    fn register(
        &mut self,
        user_id: UserId,
        method: RegistrationMethod,
        proof: Option<MailboxProof>,
        password_hash: Option<PasswordHash>,
    ) {
        let mut user = User::default();
        let register = UserCommand::Register {
            user_id,
            app_id: AppId::default_app(),
            method,
            email: email(),
            proof,
            password_hash,
            profile: Profile::default(),
            origin: Origin::default(),
            client: Client::default(),
            at: self.at(),
        };
        run(&mut user, register).expect("the id is free");
        self.user = Some(user);
    }

    fn is_live(&self, session: &Session) -> bool {
        let user = self.user.as_ref().expect("a session is somebody's");
        session.require_live(self.at()).is_ok() && user.keeps(session)
    }

    fn start(&mut self, session_id: SessionId, method: LoginMethod) {
        let user = self.user.as_ref().expect("somebody logs in");
        let start = SessionCommand::Start {
            session_id,
            user_id: user.id.expect("it is registered"),
            app_id: AppId::default_app(),
            method,
            epoch: user.epoch,
            ttl: 100_000,
            idle_ttl: 100_000,
            client: Client::default(),
            at: self.at(),
            latest: self.at(),
        };
        let mut session = Session::default();
        run(&mut session, start).expect("the id is free");
        self.sessions.push(session);
    }

    fn put_out_all_but(&mut self, kept: Option<SessionId>) {
        let ids = self.sessions.iter().map(|session| session.owner.as_ref().expect("it started").session_id);
        let ids: Vec<_> = ids.filter(|id| Some(*id) != kept).collect();
        self.put_out.extend(ids);
        self.ended_codes.extend(self.redeemed.difference(&self.exchanged));
    }

    fn issue(&mut self, with_challenge: bool) {
        let (user_id, epoch) = match &self.user {
            Some(user) => (user.id.expect("it is registered"), Some(user.epoch)),
            None => (UserId(self.id()), None),
        };
        let issue = MagicLinkCommand::Issue {
            link_id: MagicLinkId(self.id()),
            user_id,
            epoch,
            app_id: AppId::default_app(),
            settings: Box::new(self.settings.clone()),
            email: email(),
            redirect_uri: redirect_uri(),
            state: None,
            code_challenge: with_challenge.then(|| challenge('A')),
            client: Client::default(),
            at: self.at(),
        };
        let mut link = MagicLink::default();
        match run(&mut link, issue) {
            Ok(_) => self.links.push(link),
            Err(error) => {
                assert_eq!(error, MagicLinkError::RedirectNotAllowed);
                assert!(self.settings.redirect_uris.is_empty());
            }
        }
    }

    fn redeem(&mut self, index: usize) {
        let before = self.clone();
        let (at, settings) = (self.at(), Box::new(self.settings.clone()));
        let Ok(issued) = self.links[index].require_live(at).cloned() else { return };
        let account = if let Some(user) = &mut self.user {
            let (was_verified, access) = (user.email_verified, user.access());
            let proof = MailboxProof::MagicLink;
            let prove = MailboxCommand::ProveEmail { email: email(), proof, at };
            run(user, prove.into()).expect("it is their address");
            let (user_id, epoch) = (user.id.expect("it is registered"), user.epoch);
            if !was_verified {
                self.put_out_all_but(None);
            }
            Account::Existing { user_id, epoch, before: access, admin_since: None }
        } else {
            let proof = Some(MailboxProof::MagicLink);
            self.register(issued.user_id, RegistrationMethod::MagicLink, proof, None);
            Account::New
        };
        let redeem = MagicLinkCommand::Redeem { account, settings, client: Client::default(), at };
        // Links without a user are void from the time that access was ended.
        let ended = before.user.as_ref().is_some_and(|user| {
            let access = user.access();
            match issued.epoch {
                Some(epoch) => epoch != access.epoch,
                None => access.ended_at.is_some_and(|ended| issued.at <= ended),
            }
        });
        let unlisted = before.settings.redirect_uris.is_empty();
        let closed = before.user.is_none() && before.settings.registration != Registration::Open;
        if let Err(error) = run(&mut self.links[index], redeem) {
            let reasons = [
                (MagicLinkError::RedirectNotAllowed, unlisted),
                (MagicLinkError::RegistrationClosed, closed),
                (MagicLinkError::Superseded, ended),
            ];
            assert!(reasons.contains(&(error, true)), "{error}");
            // If one refuses, all refuse.
            *self = before;
            return;
        }
        assert!(!unlisted && !closed && !ended, "link {index} should have been refused");
        assert!(self.redeemed.insert(index), "inv_g: link {index} was redeemed twice");
    }

    fn exchange(&mut self, index: usize, right_verifier: bool) {
        let at = self.at();
        let Some((_, begun)) = self.links[index].holder() else { return };
        let with_challenge = self.links[index].issued.as_ref().expect("it is").code_challenge.is_some();
        let presented = match (with_challenge, right_verifier) {
            (true, true) => Some(challenge('A')),
            (false, true) => None,
            (_, false) => Some(challenge('B')),
        };
        let session_id = SessionId(self.id());
        let epoch = self.user.as_ref().expect("a code is for somebody").epoch;
        let client = Client::default();
        let redeem =
            MagicLinkCommand::RedeemCode { presented, epoch, admin_since: None, session_id, client, at };
        match run(&mut self.links[index], redeem).as_deref() {
            Ok([MagicLinkEvent::ExchangeCodeRedeemed(event)]) => {
                assert!(right_verifier, "a wrong verifier got in");
                assert!(
                    !self.ended_codes.contains(&index),
                    "inv_d: code {index} came after the end of all sessions"
                );
                assert!(self.exchanged.insert(index), "inv_g: code {index} was exchanged twice");
                self.start(event.session_id, LoginMethod::MagicLink);
            }
            Ok([MagicLinkEvent::ExchangeCodeReplayed(event)]) => {
                assert_eq!(Some(event.session_id), begun);
                let id = event.session_id;
                let of_it =
                    |session: &&mut Session| session.owner.as_ref().is_some_and(|it| it.session_id == id);
                let session = self.sessions.iter_mut().find(of_it).expect("the code has begun it");
                let reason = RevocationReason::ExchangeCodeReplayed;
                run(session, SessionCommand::Revoke { reason, at }).expect("it was started");
                self.put_out.insert(id);
            }
            Ok(events) => panic!("{events:?}"),
            Err(error) => assert_eq!(*error, MagicLinkError::InvalidCode),
        }
    }

    fn request_reset(&mut self) {
        let at = self.at();
        let Some(user) = &mut self.user else { return };
        let request = MailboxCommand::RequestPasswordReset {
            reason: ResetReason::Forgotten,
            delivery: SentBy::Platform,
            full_admin: false,
            ttl: self.settings.password_reset_ttl,
            client: Client::default(),
            at,
        };
        // The event says which token it is: if many are valid, the newest of them again.
        let requested = run(user, request.into()).expect("they are active");
        let [UserEvent::PasswordResetRequested(requested)] = requested.as_slice() else {
            panic!("{requested:?}");
        };
        self.resets.push(requested.generation);
    }

    fn reset(&mut self, index: usize) {
        let Some(&generation) = self.resets.get(index) else { return };
        let at = self.at();
        let user = self.user.as_mut().expect("a reset is somebody's");
        let password_hash = PasswordHash(format!("reset {}", self.now));
        let client = Client::default();
        let reset = MailboxCommand::ResetPassword { generation, password_hash, client, at };
        if run(user, reset.into()).is_ok() {
            assert!(self.used_resets.insert(generation), "inv_g: reset {generation} was used twice");
            assert!(user.email_verified, "the token came by mail");
            // All earlier tokens are used up with it.
            self.used_resets.extend(self.resets.iter().copied());
            self.put_out_all_but(None);
        }
    }

    fn change_password(&mut self) {
        let at = self.at();
        let Some(asks) = self.sessions.iter().find(|session| self.is_live(session)) else { return };
        let session_id = asks.owner.as_ref().expect("it started").session_id;
        let user = self.user.as_mut().expect("the session is somebody's");
        let Some(checked) = user.password_hash.clone() else { return };
        let new = PasswordHash(format!("changed {}", self.now));
        let change = MailboxCommand::ChangePassword { checked, new, session_id, at };
        run(user, change.into()).expect("the password is right");
        self.put_out_all_but(Some(session_id));
        self.used_resets.extend(self.resets.iter().copied());
    }

    fn step(&mut self, step: Step) {
        let link = |n: u8| usize::from(n) % self.links.len().max(1);
        match step {
            Step::Wait(seconds) => self.now += i64::from(seconds),
            Step::Issue { with_challenge } => self.issue(with_challenge),
            Step::Supersede(_) | Step::Redeem(_) | Step::Exchange { .. } if self.links.is_empty() => {}
            Step::Supersede(n) => {
                let (index, at) = (link(n), self.at());
                run(&mut self.links[index], MagicLinkCommand::Supersede { at }).expect("it was made");
            }
            Step::Redeem(n) => self.redeem(link(n)),
            Step::Exchange { code, right_verifier } => self.exchange(link(code), right_verifier),
            Step::Login => {
                if self.user.as_ref().is_some_and(|user| user.password_hash.is_some()) {
                    let session_id = SessionId(self.id());
                    self.start(session_id, LoginMethod::Password);
                }
            }
            Step::RequestReset => self.request_reset(),
            Step::Reset(n) => self.reset(usize::from(n)),
            Step::ChangePassword => self.change_password(),
            Step::OpenOrClose => {
                let closed = self.settings.registration == Registration::Closed;
                self.settings.registration = if closed { Registration::Open } else { Registration::Closed };
            }
            Step::ListOrUnlist => {
                let listed = self.settings.redirect_uris.pop();
                if listed.is_none() {
                    self.settings.redirect_uris.push(redirect_uri());
                }
            }
        }
    }

    fn check(&self) {
        for session in &self.sessions {
            let id = session.owner.as_ref().expect("it started").session_id;
            assert_eq!(self.is_live(session), !self.put_out.contains(&id), "inv_d: session {id}");
        }
        let proven = !self.redeemed.is_empty() || !self.used_resets.is_empty();
        assert!(proven || self.user.as_ref().is_none_or(|user| !user.email_verified), "inv_q");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn inv_g_links_codes_and_reset_tokens_are_used_once(
        known in any::<bool>(), steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(known);
        for step in steps {
            world.step(step);
            world.check();
        }
    }
}
