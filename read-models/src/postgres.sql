-- The checkpoint of each projector (the position and id of the last applied event), and the node it runs on. Times are
-- the server's, so that the nodes' clocks do not matter. The holder of a projector may write it until `until`; `epoch`
-- counts its holders, and a write names the epoch of its lease. `paused` is set by an operator; `state`,
-- `failed_position` and `error` by the holder.
CREATE TABLE IF NOT EXISTS checkpoints (
  projector TEXT COLLATE "C" PRIMARY KEY,
  position BIGINT NOT NULL,
  event BYTEA,
  epoch BIGINT NOT NULL DEFAULT 0,
  holder TEXT,
  until TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
  paused BOOLEAN NOT NULL DEFAULT false,
  state TEXT NOT NULL DEFAULT 'running',
  failed_position BIGINT,
  error TEXT
);
-- The nodes that run projectors. Each takes its share of them.
CREATE TABLE IF NOT EXISTS nodes (
  node TEXT COLLATE "C" PRIMARY KEY,
  until TIMESTAMPTZ NOT NULL
);
-- What proves that this instance filled a new build of a read model as far as its checkpoint says.
CREATE TABLE IF NOT EXISTS builds (
  projector TEXT COLLATE "C" PRIMARY KEY,
  mark BYTEA NOT NULL
);
-- Operators may read the first two, whatever role they log in as.
GRANT USAGE ON SCHEMA watchword_read TO PUBLIC;
GRANT SELECT ON checkpoints, nodes TO PUBLIC;
