-- A snapshot carries a MAC of the instance, without which no node believes it. So that whoever has got hold of the service's
-- password can spoil even fewer of them, the service keeps them through a function: none beyond the end of its stream,
-- and none in the place of a newer one.

REVOKE INSERT, UPDATE ON snapshots FROM watchword_service;

CREATE FUNCTION keep_snapshot(of_stream text, at_version bigint, of_state bytea) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = watchword, pg_temp
AS $$
BEGIN
    PERFORM 1 FROM events e WHERE e.stream = of_stream AND e.version = at_version;
    IF FOUND THEN
        INSERT INTO snapshots AS s VALUES (of_stream, at_version, of_state)
        ON CONFLICT ON CONSTRAINT snapshots_pkey DO UPDATE SET version = excluded.version, state = excluded.state
        WHERE excluded.version > s.version;
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION keep_snapshot FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keep_snapshot TO watchword_service;
