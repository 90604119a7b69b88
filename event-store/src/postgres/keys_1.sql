-- The key store. An erased person's row stays, with nothing in it: no new key must ever be made for them. So the service
-- may change rows, and delete none.

CREATE TABLE meta (key text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE data_keys (person uuid PRIMARY KEY, wrapped bytea);
CREATE TABLE signing_keys (
    app_id text NOT NULL,
    kid text NOT NULL,
    alg text NOT NULL,
    wrapped bytea NOT NULL,
    PRIMARY KEY (app_id, kid)
);
GRANT SELECT, INSERT ON meta TO watchword_service;
GRANT SELECT, INSERT, UPDATE ON data_keys, signing_keys TO watchword_service;
