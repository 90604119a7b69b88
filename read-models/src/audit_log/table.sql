-- Which events an auditor may ask for. The events themselves are read from the journal.
CREATE TABLE IF NOT EXISTS audit_log_v1 (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  app_id TEXT NOT NULL,
  type TEXT NOT NULL,
  person BLOB,
  actor_kind TEXT NOT NULL,
  actor_id TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS audit_log_v1_type ON audit_log_v1 (app_id, type);
CREATE INDEX IF NOT EXISTS audit_log_v1_app ON audit_log_v1 (app_id);
CREATE INDEX IF NOT EXISTS audit_log_v1_person ON audit_log_v1 (person) WHERE person IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_log_v1_actor ON audit_log_v1 (actor_id) WHERE actor_id IS NOT NULL;
