-- Organizations of all apps. `sort_name` is the name as it is compared. `organization_words_v1` has the words of names and
-- slugs, each behind its app; `organization_counts_v1` how many organizations an app has. Times are microseconds.
CREATE TABLE IF NOT EXISTS organizations_v1 (
  organization_id BLOB PRIMARY KEY,
  app_id TEXT NOT NULL,
  name TEXT NOT NULL,
  sort_name TEXT NOT NULL,
  slug TEXT NOT NULL,
  member_count INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS organizations_v1_created ON organizations_v1 (app_id, created_at, organization_id);
CREATE INDEX IF NOT EXISTS organizations_v1_updated ON organizations_v1 (app_id, updated_at, organization_id);
CREATE INDEX IF NOT EXISTS organizations_v1_name ON organizations_v1 (app_id, sort_name, organization_id);
CREATE TABLE IF NOT EXISTS organization_words_v1 (
  word TEXT NOT NULL,
  organization_id BLOB NOT NULL,
  PRIMARY KEY (word, organization_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS organization_words_v1_organization ON organization_words_v1 (organization_id, word);
CREATE TABLE IF NOT EXISTS organization_counts_v1 (
  app_id TEXT PRIMARY KEY,
  organizations INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
