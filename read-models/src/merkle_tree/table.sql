-- Up to 256 hashes, one after the other: see the crate tlog.
CREATE TABLE IF NOT EXISTS merkle_tiles_v1 (
  level INTEGER NOT NULL,
  number INTEGER NOT NULL,
  hashes BLOB NOT NULL,
  PRIMARY KEY (level, number)
) STRICT;
-- One row: what the tree grows from, and a MAC.
CREATE TABLE IF NOT EXISTS merkle_head_v1 (
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  event BLOB NOT NULL,
  hashes BLOB NOT NULL,
  mac BLOB NOT NULL
) STRICT;
