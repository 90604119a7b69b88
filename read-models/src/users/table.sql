-- Users of all apps. What identifies a person is sealed; `email` is an HMAC, and `words` the keyed tokens of the beginnings of the
-- words of name and address. `user_words_v2` finds users by those, and by tokens of their status and roles, in the order in
-- which their accounts were made. `user_counts_v2` counts an app's users. Times are microseconds.
CREATE TABLE IF NOT EXISTS users_v2 (
  user_id BLOB PRIMARY KEY,
  app_id TEXT NOT NULL,
  email BLOB,
  email_verified INTEGER NOT NULL,
  banned INTEGER NOT NULL,
  roles TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  words BLOB NOT NULL,
  sealed BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_v2_created ON users_v2 (app_id, created_at, user_id);
CREATE INDEX IF NOT EXISTS users_v2_updated ON users_v2 (app_id, updated_at, user_id);
CREATE INDEX IF NOT EXISTS users_v2_email ON users_v2 (app_id, email);
CREATE TABLE IF NOT EXISTS user_words_v2 (
  word BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  owner_id BLOB NOT NULL,
  PRIMARY KEY (word, created_at, owner_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_counts_v2 (
  app_id TEXT NOT NULL,
  banned INTEGER NOT NULL,
  email_verified INTEGER NOT NULL,
  users INTEGER NOT NULL,
  PRIMARY KEY (app_id, banned, email_verified)
) STRICT, WITHOUT ROWID;
