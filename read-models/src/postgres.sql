-- Where each projector stands (the position and id of the last event that is applied), and which node it runs on. Times are the server's, so that the nodes' clocks do not matter.
-- Who holds a projector may write it until `until`; `epoch` counts its holders, and a write tells the one it was leased
-- in. `paused` is an operator's wish; `state`, `failed_position` and `error` are what the holder says.
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
-- Operators may look at both, whatever role they log in as.
GRANT USAGE ON SCHEMA watchword_read TO PUBLIC;
GRANT SELECT ON checkpoints, nodes TO PUBLIC;
