-- Which account of an app has an address. The address is an HMAC.
CREATE TABLE IF NOT EXISTS login_checks_v1 (
  app_id TEXT NOT NULL,
  email BLOB NOT NULL,
  user_id BLOB NOT NULL,
  PRIMARY KEY (app_id, email)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS login_checks_v1_user ON login_checks_v1 (user_id);
