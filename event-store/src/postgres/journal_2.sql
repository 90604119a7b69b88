-- Idempotency keys are kept for a while, not for ever. The service cannot delete rows by itself: it can only have old ones
-- forgotten, and none that a request may still come back for.

-- Looks at up to `count` keys behind `after`, and forgets those of before `before` (microseconds since 1970), but none of
-- the last hour. Answers with the last key it looked at; NULL at the end.
CREATE FUNCTION forget_idempotency(after bytea, before bigint, count integer) RETURNS bytea
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = watchword, pg_temp
AS $$
DECLARE
    seen bytea;
BEGIN
    SELECT k.key INTO seen
    FROM (SELECT i.key FROM idempotency i WHERE i.key > after ORDER BY i.key LIMIT count) k
    ORDER BY k.key DESC LIMIT 1;
    DELETE FROM idempotency i
    WHERE i.key > after AND i.key <= seen
        AND i.at < least(before, ((extract(epoch FROM now()) - 3600) * 1000000)::bigint);
    RETURN seen;
END $$;

REVOKE EXECUTE ON FUNCTION forget_idempotency FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_idempotency TO watchword_service;
