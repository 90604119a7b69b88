-- Users of all apps. What identifies a person is sealed; `email` is an HMAC, and `user_words_v1` finds words of names and
-- addresses by keyed tokens. Times are microseconds.
CREATE TABLE IF NOT EXISTS users_v1 (
  user_id BLOB PRIMARY KEY,
  app_id TEXT NOT NULL,
  email BLOB,
  email_verified INTEGER NOT NULL,
  banned INTEGER NOT NULL,
  roles TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  sealed BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_v1_created ON users_v1 (app_id, created_at, user_id);
CREATE INDEX IF NOT EXISTS users_v1_updated ON users_v1 (app_id, updated_at, user_id);
CREATE INDEX IF NOT EXISTS users_v1_email ON users_v1 (app_id, email);
CREATE TABLE IF NOT EXISTS user_words_v1 (
  word BLOB NOT NULL,
  user_id BLOB NOT NULL,
  PRIMARY KEY (word, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS user_words_v1_user ON user_words_v1 (user_id);
