-- The events that an auditor may search for. The events themselves are read from the journal. Addresses are keyed
-- hashes, which find rows and reveal nothing.
CREATE TABLE IF NOT EXISTS audit_log_v2 (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  app_id TEXT NOT NULL,
  type TEXT NOT NULL,
  person BLOB,
  actor_kind TEXT NOT NULL,
  actor_id TEXT,
  session BLOB,
  key_id BLOB,
  ip BLOB,
  email BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS audit_log_v2_type ON audit_log_v2 (app_id, type);
CREATE INDEX IF NOT EXISTS audit_log_v2_app ON audit_log_v2 (app_id);
CREATE INDEX IF NOT EXISTS audit_log_v2_person ON audit_log_v2 (person) WHERE person IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v2_erased ON audit_log_v2 (person) WHERE type = 'UserErased';
CREATE INDEX IF NOT EXISTS audit_log_v2_actor ON audit_log_v2 (actor_id) WHERE actor_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v2_session ON audit_log_v2 (session) WHERE session IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v2_key ON audit_log_v2 (key_id) WHERE key_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v2_ip ON audit_log_v2 (ip) WHERE ip IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v2_email ON audit_log_v2 (email) WHERE email IS NOT NULL;
