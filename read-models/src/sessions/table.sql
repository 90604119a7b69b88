-- Sessions with the address and program they came from, sealed. Times are microseconds.
CREATE TABLE IF NOT EXISTS sessions_v1 (
  session_id BLOB PRIMARY KEY,
  user_id BLOB NOT NULL,
  app_id TEXT NOT NULL,
  method TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  refreshed_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  idle_expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  reason TEXT,
  sealed BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_v1_user ON sessions_v1 (user_id);
CREATE INDEX IF NOT EXISTS sessions_v1_live ON sessions_v1 (user_id, session_id) WHERE revoked_at IS NULL;
CREATE INDEX IF NOT EXISTS sessions_v1_lasting ON sessions_v1 (app_id, expires_at, idle_expires_at, revoked_at) WHERE revoked_at IS NULL;
