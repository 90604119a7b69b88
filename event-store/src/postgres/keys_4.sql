-- The checkpoint of the journal's tree that was signed last, in a single row, and the newest signature of each witness. Nodes
-- replace them, and delete none.

CREATE TABLE checkpoints (
    id integer PRIMARY KEY CHECK (id = 0),
    size bigint NOT NULL,
    root bytea NOT NULL,
    event uuid NOT NULL,
    note text NOT NULL,
    epochs bytea NOT NULL,
    signed_at bigint NOT NULL,
    mac bytea NOT NULL
);
CREATE TABLE cosignatures (witness text PRIMARY KEY, size bigint NOT NULL, root bytea NOT NULL, line text NOT NULL);
GRANT SELECT, INSERT, UPDATE ON checkpoints, cosignatures TO watchword_service;
