-- Counts by hour (hours since 1970), and who was active on a day (days since 1970).
CREATE TABLE IF NOT EXISTS stats_v1 (
  app_id TEXT NOT NULL,
  hour INTEGER NOT NULL,
  metric TEXT NOT NULL,
  method TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (app_id, hour, metric, method)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS active_users_v1 (
  app_id TEXT NOT NULL,
  day INTEGER NOT NULL,
  user_id BLOB NOT NULL,
  PRIMARY KEY (app_id, day, user_id)
) STRICT, WITHOUT ROWID;
