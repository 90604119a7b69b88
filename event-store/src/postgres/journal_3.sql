-- Where effects stand, such as the sending of mail: which events they are done with, and which node does them. Times are the
-- server's, so that the nodes' clocks do not matter. `epoch` counts the holders, and a move tells the one it was taken in: a
-- node that slept past `until` and wakes up moves nothing.
CREATE TABLE effects (
    name text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    epoch bigint NOT NULL,
    holder text,
    until timestamptz NOT NULL
);
-- It is no event: the service may change it.
GRANT SELECT, INSERT, UPDATE ON effects TO watchword_service;
