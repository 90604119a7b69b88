-- Counts by quarter of an hour (quarters since 1970), of an app, or of the members of an organization at the time (organization_id is
-- empty for all of the app). Every time zone of today begins its hours and days with such a quarter.
CREATE TABLE IF NOT EXISTS stats_v2 (
  app_id TEXT NOT NULL,
  organization_id BLOB NOT NULL,
  quarter INTEGER NOT NULL,
  metric TEXT NOT NULL,
  method TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (app_id, organization_id, quarter, metric, method)
) STRICT, WITHOUT ROWID;
-- Who was active on a day (days since 1970, of UTC), and in which of its quarters: a bit for each, the first 48 in early.
CREATE TABLE IF NOT EXISTS active_users_v2 (
  app_id TEXT NOT NULL,
  organization_id BLOB NOT NULL,
  day INTEGER NOT NULL,
  person_key BLOB NOT NULL,
  early INTEGER NOT NULL,
  late INTEGER NOT NULL,
  PRIMARY KEY (app_id, organization_id, day, person_key)
) STRICT, WITHOUT ROWID;
-- How far each account came. Times are microseconds.
CREATE TABLE IF NOT EXISTS accounts_v2 (
  person_key BLOB PRIMARY KEY,
  app_id TEXT NOT NULL,
  registered_at INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  logged_in INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_v2_registered ON accounts_v2 (app_id, registered_at);
-- Who is a member of what now. A person who is erased is none any more.
CREATE TABLE IF NOT EXISTS stats_members_v2 (
  organization_id BLOB NOT NULL,
  user_id BLOB NOT NULL,
  PRIMARY KEY (organization_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stats_members_v2_user ON stats_members_v2 (user_id);
