-- Who is in which organization: ids and roles, nothing else about a person. Times are microseconds.
CREATE TABLE IF NOT EXISTS members_v1 (
  organization_id BLOB NOT NULL,
  user_id BLOB NOT NULL,
  app_id TEXT NOT NULL,
  role TEXT NOT NULL,
  joined_at INTEGER NOT NULL,
  PRIMARY KEY (organization_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_v1_joined ON members_v1 (organization_id, joined_at, user_id);
CREATE INDEX IF NOT EXISTS members_v1_user ON members_v1 (user_id);
