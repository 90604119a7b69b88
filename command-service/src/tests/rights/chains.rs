//! Random chains of calls by limited callers.

use super::*;

/// splitmix64: the same chain for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("less than n")
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A caller: initial credentials and permissions.
#[derive(Clone, Debug)]
enum Who {
    Nobody,
    User,
    Key(Vec<Permission>),
    /// Expires in an hour.
    ExpiringKey(Vec<Permission>),
    /// May do everything in the app, and nothing outside.
    AppAdmin,
}

const EVIL: &str = "evil@evil.example";
const EVIL_PASSWORD: &str = "evil horse battery";

/// One caller's chain of calls.
struct Chain {
    world: World,
    random: Random,
    who: Who,
    end: Timestamp,
    admin: UserId,
    admin_token: String,
    victim: UserId,
    /// Whether the victim is currently an admin.
    promoted: bool,
    before: App,
    platform_keys: usize,
    /// The credentials they have obtained.
    bearers: Vec<String>,
    mailed: Vec<String>,
    codes: Vec<String>,
    refresh: Vec<String>,
    ids: Vec<String>,
    done: Vec<String>,
    read: u64,
}

impl Chain {
    async fn begin(who: Who, seed: u64) -> Self {
        let world = World::start().await;
        let mut random = Random(seed);
        let delivery = *random.pick(&["app", "platform"]);
        world.set(json!({"delivery": delivery, "redirect_uris": [CALLBACK]})).await;
        let end = world.clock.now() + SignedDuration::from_hours(1);
        let admin = user_id(&world.register(ADMIN).await);
        let admin_token = world.make_admin("default", &admin.to_string(), ADMIN).await;
        let victim = user_id(&world.register(ADA).await);
        world.key_of(&Permission::OF_AN_APP).await;
        let other = json!({"app_id": "other", "name": "Other"});
        assert_eq!(world.by_platform("POST", "/v1/apps", Some(other)).await.status, 201);
        let mut bearers = Vec::new();
        match &who {
            Who::Nobody => {}
            Who::User => bearers.push(world.register(EVIL).await.text("access_token")),
            Who::Key(permissions) => bearers.push(world.key_of(permissions).await),
            Who::ExpiringKey(permissions) => bearers.push(world.key_until(permissions, Some(end)).await),
            Who::AppAdmin => {
                let evil = user_id(&world.register(EVIL).await);
                bearers.push(world.make_admin("default", &evil.to_string(), EVIL).await);
            }
        }
        let before = world.app().await;
        let platform_keys = platform_keys(&world).await;
        let read = world.journal.head().await.expect("reads");
        let ids = before.api_keys.keys().map(ToString::to_string).collect();
        Self {
            world,
            random,
            who,
            end,
            admin,
            admin_token,
            victim,
            promoted: false,
            before,
            platform_keys,
            bearers,
            mailed: vec![],
            codes: vec![],
            refresh: vec![],
            ids,
            done: vec![],
            read,
        }
    }

    async fn run(mut self, steps: usize) {
        for _ in 0..steps {
            if self.random.one_in(10) {
                self.others_act().await;
            } else {
                self.act().await;
            }
            self.collect_mail().await;
            self.check().await;
        }
    }

    /// What full admins do meanwhile, which the caller might exploit.
    async fn others_act(&mut self) {
        let role = of(self.victim, "/roles/admin");
        let what = match self.random.below(4) {
            0 | 1 if !self.promoted => {
                if self.world.user(self.victim).await.banned {
                    self.world.by_platform("POST", &of(self.victim, "/unban"), None).await;
                }
                // The address may have changed; the reader of its mail confirms it.
                let user = self.world.user(self.victim).await;
                if let Some(email) = user.email.filter(|_| !user.email_verified) {
                    self.world.verify("default", email.as_str()).await;
                }
                let granted = self.world.by_platform("PUT", &role, None).await;
                self.promoted = granted.status == 200;
                "the victim becomes an admin"
            }
            0 | 1 => {
                self.world.by_platform("DELETE", &role, None).await;
                self.promoted = false;
                "the victim is no longer an admin"
            }
            2 => {
                self.world.by_platform("POST", &of(self.victim, "/ban"), None).await;
                self.world.by_platform("POST", &of(self.victim, "/unban"), None).await;
                "the victim is banned and unbanned"
            }
            _ => {
                self.world.login(ADA, PASSWORD).await;
                "the victim logs in"
            }
        };
        self.done.push(what.to_owned());
    }

    fn email(&mut self) -> &'static str {
        self.random.pick::<&str>(&[ADA, ADMIN, EVIL, "fresh@evil.example"])
    }

    fn password(&mut self) -> &'static str {
        self.random.pick::<&str>(&[EVIL_PASSWORD, EVIL_PASSWORD, "wrong horse battery"])
    }

    fn text(of: &[String], random: &mut Random) -> String {
        if of.is_empty() { "none".to_owned() } else { random.pick(of).clone() }
    }

    fn settings(&mut self) -> Value {
        self.random
            .pick(&[
                json!({"links": {"password_reset": "https://evil.example/r"}}),
                json!({"redirect_uris": ["https://evil.example/"]}),
                json!({"origins": ["https://evil.example"]}),
                json!({"delivery": "app"}),
                json!({"require_verified_email": true}),
                json!({"registration": "closed"}),
                json!({"branding": {"reply_to": EVIL}}),
                json!({"token_algorithm": "EdDSA"}),
                json!({"access_token_ttl": 7}),
                json!({"locale": "de"}),
            ])
            .clone()
    }

    fn on_user(&mut self) -> (&'static str, String, Option<Value>) {
        let user = *self.random.pick(&[self.admin, self.victim]);
        let route = |route: &str| of(user, route);
        match self.random.below(12) {
            0 => ("PATCH", route(""), Some(json!({"name": "Eve"}))),
            1 => ("POST", route("/ban"), None),
            2 => ("POST", route("/unban"), None),
            3 => ("POST", route("/unlock"), None),
            4 => ("PUT", route("/roles/admin"), None),
            5 => ("DELETE", route("/roles/admin"), None),
            6 => ("PUT", route("/roles/editor"), None),
            7 => ("POST", route("/sessions/revoke-all"), None),
            8 | 9 => ("POST", route("/access-tokens"), Some(json!({"duration_minutes": 30}))),
            _ => ("POST", route("/password-reset"), None),
        }
    }

    fn on_app(&mut self) -> (&'static str, String, Option<Value>) {
        let keys = format!("{DEFAULT}/admin/api-keys");
        match self.random.below(7) {
            0 | 1 => ("PATCH", DEFAULT.to_owned(), Some(json!({"settings": self.settings()}))),
            2 | 3 => {
                let permissions: Vec<_> = (0..2).map(|_| *self.random.pick(&Permission::OF_AN_APP)).collect();
                let mut body = json!({"name": "more", "permissions": permissions});
                if self.random.one_in(2) {
                    let hours = i64::try_from(self.random.below(3)).expect("small");
                    body["expires_at"] = json!(self.world.clock.now() + SignedDuration::from_hours(hours));
                }
                ("POST", keys, Some(body))
            }
            4 => ("DELETE", format!("{keys}/{}", Self::text(&self.ids, &mut self.random)), None),
            5 => {
                let roles = if self.random.one_in(2) { json!(["admin"]) } else { json!([]) };
                let body = json!({"email": self.email(), "password": EVIL_PASSWORD, "roles": roles});
                ("POST", format!("{DEFAULT}/admin/users"), Some(body))
            }
            _ => {
                let path = self.random.pick(&[
                    "/v1/apps/platform/admin/api-keys",
                    "/v1/apps/other/admin/api-keys",
                    "/v1/apps",
                ]);
                ("POST", (*path).to_owned(), Some(json!({"name": "x", "permissions": ["platform"]})))
            }
        }
    }

    fn as_anybody(&mut self) -> (&'static str, String, Option<Value>) {
        let auth = |route: &str| format!("{DEFAULT}/auth/{route}");
        let (email, password) = (self.email(), self.password());
        let mailed = Self::text(&self.mailed, &mut self.random);
        let (route, body) = match self.random.below(16) {
            0 => ("register", json!({"email": email, "password": EVIL_PASSWORD})),
            1 | 2 => ("login", json!({"email": email, "password": password})),
            3 => ("password-reset/request", json!({ "email": email })),
            4 | 5 => ("password-reset/confirm", json!({"token": mailed, "new_password": EVIL_PASSWORD})),
            6 => ("email-verification/request", json!({ "email": email })),
            7 => ("email-verification/confirm", json!({ "token": mailed })),
            8 => ("email-verification/disown", json!({ "token": mailed })),
            9 => ("magic-link", json!({"email": email, "redirect_uri": CALLBACK})),
            10 => ("magic-link/verify", json!({ "token": mailed })),
            11 => ("exchange", json!({"code": Self::text(&self.codes, &mut self.random)})),
            12 => ("refresh", json!({"refresh_token": Self::text(&self.refresh, &mut self.random)})),
            13 => ("email/change", json!({"new_email": "other@evil.example", "password": password})),
            14 => ("email/change/confirm", json!({ "token": mailed })),
            _ => ("password/change", json!({"old_password": password, "new_password": EVIL_PASSWORD})),
        };
        ("POST", auth(route), Some(body))
    }

    async fn act(&mut self) {
        let (method, path, body) = match self.random.below(10) {
            0..3 => self.on_user(),
            3..5 => self.on_app(),
            _ => self.as_anybody(),
        };
        // Mostly the initial credentials; otherwise obtained ones, or none.
        let bearer = match self.random.below(4) {
            0 if !self.bearers.is_empty() => Some(self.random.pick(&self.bearers).clone()),
            1 => None,
            _ => self.bearers.first().cloned(),
        };
        let key = self.random.one_in(3).then(|| format!("k{}", self.random.below(3)));
        let answer =
            self.world.call_with(method, &path, bearer.as_deref(), body.clone(), key.as_deref()).await;
        let status = answer.status.as_u16();
        self.done.push(format!(
            "{method} {path} {} as {} -> {status} {}",
            body.unwrap_or_default(),
            bearer.map_or_else(|| "nobody".to_owned(), |it| it.chars().take(12).collect()),
            answer.code()
        ));
        assert!(status < 500, "{}: {}", self.story(), answer.body);
        let text = |member: &str| answer.body[member].as_str().map(str::to_owned);
        self.bearers.extend(text("access_token"));
        self.bearers.extend(text("key"));
        self.mailed.extend(text("token"));
        self.refresh.extend(text("refresh_token"));
        self.ids.extend(text("key").and(text("id")));
        self.codes.extend(code_of(&answer));
    }

    /// They read mail at their own addresses.
    async fn collect_mail(&mut self) {
        for recorded in self.world.journal.read_all(self.read, 1000).await.expect("reads") {
            self.read = recorded.position;
            let event = self.world.service.repository.decode(&recorded).await.expect("decodes");
            let is_theirs = |mail: &domain::mail::Mail| mail.to.as_str().ends_with("@evil.example");
            if domain::mail::mails_of(&event).iter().any(is_theirs) {
                self.mailed.extend(self.world.service.tokens.of_event(&event));
            }
        }
    }

    fn story(&self) -> String {
        format!("{:?}\n{}", self.who, self.done.join("\n"))
    }

    fn permissions(&self) -> &[Permission] {
        match &self.who {
            Who::Key(permissions) | Who::ExpiringKey(permissions) => permissions,
            Who::AppAdmin => &Permission::OF_AN_APP,
            Who::Nobody | Who::User => &[],
        }
    }

    async fn check(&mut self) {
        let app = self.world.app().await;
        assert_eq!(platform_keys(&self.world).await, self.platform_keys, "{}", self.story());
        let other = AppId::parse("other").expect("valid");
        let other = self.world.service.repository.load::<App>(&other).await.expect("loads");
        assert!(other.state.api_keys.is_empty() && !other.state.disabled, "{}", self.story());
        if matches!(self.who, Who::AppAdmin) {
            return;
        }
        assert_eq!(strong_changes(&self.before.settings, &app.settings), [""; 0], "{}", self.story());
        for (id, key) in &app.api_keys {
            if self.before.api_keys.contains_key(id) {
                continue;
            }
            let narrow = key.permissions.iter().all(|permission| self.permissions().contains(permission));
            let brief =
                !matches!(self.who, Who::ExpiringKey(_)) || key.expires_at.is_some_and(|end| end <= self.end);
            assert!(narrow && brief, "a wider key: {key:?}\n{}", self.story());
        }
        for (id, key) in &self.before.api_keys {
            let wider = key.permissions.iter().any(|permission| !self.permissions().contains(permission));
            assert!(!wider || app.api_keys.contains_key(id), "a wider key is gone\n{}", self.story());
        }
        let admin = self.world.user(self.admin).await;
        assert!(
            app.is_admin(&admin) && !admin.banned && admin.name.as_deref() == Some("Ada"),
            "{}",
            self.story()
        );
        assert_eq!(self.world.me(&self.admin_token).await.status, 200, "{}", self.story());
        assert_eq!(app.is_admin(&self.world.user(self.victim).await), self.promoted, "{}", self.story());
        // Keys with these permissions can log in as a non-admin user: that is their purpose.
        let may_enter = self
            .permissions()
            .iter()
            .any(|it| matches!(it, Permission::TokensCreate | Permission::UsersWrite));
        for bearer in self.bearers.iter().rev().filter(|it| !it.starts_with("wwk_")).take(8) {
            let me = self.world.me(bearer).await;
            if me.status != 200 {
                continue;
            }
            let roles = me.body["roles"].as_array().expect("roles");
            assert!(!roles.contains(&json!("admin")), "a token of an admin\n{}", self.story());
            let is_victims = me.body["id"] == json!(self.victim.0);
            assert!(!is_victims || may_enter, "a session of somebody else\n{}", self.story());
        }
    }
}

async fn platform_keys(world: &World) -> usize {
    let platform = AppId::platform();
    world.service.repository.load::<App>(&platform).await.expect("loads").state.api_keys.len()
}

/// Random chains of calls never end in something the caller may not do directly: a token of an admin, a wider or
/// longer-lived key, another person's session, a strong setting. `INV_V_SEED` repeats a run, `INV_V_STEPS` makes it
/// longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_v_a_right_never_grows_by_a_detour() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("INV_V_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    let steps = usize::try_from(number("INV_V_STEPS").unwrap_or(40)).expect("a number of steps");
    println!("INV_V_SEED={seed}");
    let mut callers = vec![Who::Nobody, Who::User, Who::AppAdmin];
    callers.extend(Permission::OF_AN_APP.map(|permission| Who::Key(vec![permission])));
    callers.push(Who::Key(Permission::OF_AN_APP.into()));
    callers.push(Who::ExpiringKey(vec![Permission::KeysWrite, Permission::UsersWrite]));
    callers.push(Who::ExpiringKey(Permission::OF_AN_APP.into()));
    let chains = callers
        .into_iter()
        .zip(seed..)
        .map(|(who, seed)| tokio::spawn(async move { Chain::begin(who, seed).await.run(steps).await }));
    for chain in futures::future::join_all(chains.collect::<Vec<_>>()).await {
        chain.expect("INV_V_SEED above repeats it");
    }
}
