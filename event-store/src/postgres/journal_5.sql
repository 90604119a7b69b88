-- Events and idempotency keys carry MACs of the instance. Those that are there get theirs from `watchword migrate`, which has the
-- key; until it says in the key store that this is done, no node opens the journal. A node of before cannot append any more.

DROP FUNCTION append;
ALTER TABLE events RENAME COLUMN checksum TO mac;
COMMENT ON COLUMN events.mac IS 'of all of the row, by a key that is not in this database';
ALTER TABLE idempotency ADD COLUMN mac bytea;

-- Decides a group of appends, one after the other in their order, and writes those that are not refused. Each sees what
-- the ones before it did; a refused one changes nothing for its neighbours.
--
-- Streams, claims and idempotency keys come once each, and are referred to by place (1 is the first). The touches, ops
-- and events of all appends follow each other; the *_ends say, for each append, which of them are its last ones.
--   before    The version that each stream has if nothing of the group is to be refused. Empty where versions alone do not
--             tell: there are claims or keys, or two appends that cannot both be written.
--   as_of     As long as this is the head, only the streams in open_* have to be looked up for that: the caller knows the
--             others by what it has written itself.
--   touch_*   The streams of an append: those it writes, in order, with the number of events; then its guards, with 0.
--             touch_before: how many events this same append has written to the stream before this touch.
--   op_*      The claims of an append: those it gives back, with an empty op_owner; then those it takes. op_holder: who
--             holds the claim by what this same append did to it before; NULL if it did nothing.
--   key_of    For each append the place of its idempotency key, 0 for none; key_mac_key: see below.
--   event_*   The events of all writes. event_mac_key: a key for this event alone, which is a MAC of all of it but the
--             position, by a key that only nodes have. It is not kept: what is, is a hash of it and the position, so that
--             whoever reads the row can make no other. key_mac_key is the same for the row of an idempotency key.
-- Answers with the new head and, unless all was written in order right behind the old one, by append with outcome, one,
-- two and holder:
--   0 written                       first position, last position
--   1 written before, by the key    first position, last position
--   2 the key was another request's
--   3 version conflict              place of the touch, actual version
--   4 claim taken                   place of the op; holder
--
-- An append that comes again because the answer to the first was lost is answered as the first was: its events are
-- known by their ids.
--
-- Everything is read after the lock is held and in statements of its own: in a VOLATILE function each of them sees what
-- was committed when it began, while a statement that locks and reads at once reads as of before its wait.
CREATE FUNCTION append(
    touch_ends integer[], op_ends integer[], event_ends integer[], key_of integer[],
    fingerprints bytea[], key_mac_key bytea[], ats bigint[],
    streams text[], before bigint[], as_of bigint, open_streams text[], open_before bigint[],
    touch_stream integer[], touch_expected bigint[], touch_before bigint[], touch_events integer[],
    claim_kinds text[], claim_keys text[], op_claim integer[], op_owner text[], op_holder text[],
    keys bytea[],
    event_id uuid[], event_stream text[], event_version bigint[], event_type text[], event_schema_version integer[],
    event_at bigint[], event_app text[], event_metadata text[], event_data text[], event_person uuid[], event_personal bytea[],
    event_mac_key bytea[],
    OUT head bigint, OUT outcome integer[], OUT one bigint[], OUT two bigint[], OUT holder text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
-- Plans are made while the tables are small, and kept: they must not count on that.
SET search_path = watchword, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    head_before bigint;
    is_plain boolean := false;
    versions bigint[];
    holders text[];
    changed boolean[] := array_fill(false, ARRAY[cardinality(claim_kinds)]);
    known_fingerprints bytea[];
    known_firsts bigint[];
    known_lasts bigint[];
    known_mac_keys bytea[] := array_fill(NULL::bytea, ARRAY[cardinality(keys)]);
    new_keys boolean[] := array_fill(false, ARRAY[cardinality(keys)]);
    key_ats bigint[] := array_fill(0::bigint, ARRAY[cardinality(keys)]);
    positions bigint[];
    first_touch integer := 1;
    first_op integer := 1;
    first_event integer := 1;
    e integer;
    k integer;
    c integer;
    found_at bigint;
    actual bigint;
    held_by text;
    count integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'appends need the isolation level READ COMMITTED';
    END IF;
    PERFORM 1 FROM turn FOR UPDATE;
    head := coalesce((SELECT v.position FROM events v ORDER BY v.position DESC LIMIT 1), 0);
    head_before := head;
    -- Most groups are of this kind, and the one question costs a fraction of deciding append after append: every stream
    -- that there should be has its version, and none has the next.
    IF cardinality(before) > 0 THEN
        IF head <> as_of THEN
            open_streams := streams;
            open_before := before;
        END IF;
        SELECT count(*) = cardinality(array_remove(open_before, 0)) AND coalesce(bool_and(v.version = s.has), true)
        INTO is_plain
        FROM unnest(open_streams, open_before) s (name, has)
        JOIN events v ON v.stream = s.name AND v.version BETWEEN s.has AND s.has + 1;
    END IF;
    IF is_plain THEN
        head := head_before + cardinality(event_id);
        positions := ARRAY(SELECT generate_series(head_before + 1, head));
    ELSE
        positions := array_fill(0::bigint, ARRAY[cardinality(event_id)]);
        versions := ARRAY(
            SELECT coalesce((SELECT v.version FROM events v WHERE v.stream = s.name ORDER BY v.version DESC LIMIT 1), 0)
            FROM unnest(streams) WITH ORDINALITY s (name, place) ORDER BY s.place
        );
        IF cardinality(claim_kinds) > 0 THEN
            holders := ARRAY(
                SELECT coalesce((SELECT h.owner FROM claims h WHERE h.kind = n.kind AND h.key = n.key LIMIT 1), '')
                FROM unnest(claim_kinds, claim_keys) WITH ORDINALITY n (kind, key, place) ORDER BY n.place
            );
        END IF;
        IF cardinality(keys) > 0 THEN
            SELECT array_agg(i.fingerprint ORDER BY n.place), array_agg(coalesce(i.first, 0) ORDER BY n.place),
                array_agg(coalesce(i.last, 0) ORDER BY n.place)
            INTO known_fingerprints, known_firsts, known_lasts
            FROM unnest(keys) WITH ORDINALITY n (key, place)
            LEFT JOIN LATERAL (SELECT * FROM idempotency x WHERE x.key = n.key LIMIT 1) i ON true;
        END IF;

        <<each_append>>
        FOR a IN 1..cardinality(key_of) LOOP
            IF a > 1 THEN
                first_touch := touch_ends[a - 1] + 1;
                first_op := op_ends[a - 1] + 1;
                first_event := event_ends[a - 1] + 1;
            END IF;
            count := event_ends[a] - first_event + 1;
            holder[a] := '';

            k := key_of[a];
            IF k > 0 AND known_firsts[k] > 0 THEN
                one[a] := known_firsts[k];
                two[a] := known_lasts[k];
                IF known_fingerprints[k] <> fingerprints[a] THEN
                    outcome[a] := 2;
                ELSE
                    PERFORM 1 FROM events v WHERE v.position = known_firsts[k] AND v.id = event_id[first_event];
                    outcome[a] := CASE WHEN FOUND THEN 0 ELSE 1 END;
                END IF;
                CONTINUE each_append;
            END IF;

            FOR t IN first_touch..touch_ends[a] LOOP
                actual := versions[touch_stream[t]] + touch_before[t];
                IF actual <> touch_expected[t] THEN
                    -- The first touch is a write: versions only grow, so what was written before always conflicts here.
                    SELECT v.position INTO found_at FROM events v
                    WHERE v.stream = event_stream[first_event] AND v.version = touch_expected[first_touch] + 1
                        AND v.id = event_id[first_event];
                    IF FOUND THEN
                        outcome[a] := 0;
                        one[a] := found_at;
                        two[a] := found_at + count - 1;
                    ELSE
                        outcome[a] := 3;
                        one[a] := t;
                        two[a] := actual;
                    END IF;
                    CONTINUE each_append;
                END IF;
            END LOOP;
            FOR o IN first_op..op_ends[a] LOOP
                held_by := coalesce(op_holder[o], holders[op_claim[o]]);
                IF op_owner[o] <> '' AND held_by <> '' AND held_by <> op_owner[o] THEN
                    outcome[a] := 4;
                    one[a] := o;
                    two[a] := 0;
                    holder[a] := held_by;
                    CONTINUE each_append;
                END IF;
            END LOOP;

            -- Nothing can refuse it any more.
            outcome[a] := 0;
            one[a] := head + 1;
            two[a] := head + count;
            e := first_event;
            FOR t IN first_touch..touch_ends[a] LOOP
                FOR i IN 1..touch_events[t] LOOP
                    head := head + 1;
                    positions[e] := head;
                    e := e + 1;
                END LOOP;
                versions[touch_stream[t]] := versions[touch_stream[t]] + touch_events[t];
            END LOOP;
            FOR o IN first_op..op_ends[a] LOOP
                c := op_claim[o];
                holders[c] := op_owner[o];
                changed[c] := true;
            END LOOP;
            IF k > 0 THEN
                known_fingerprints[k] := fingerprints[a];
                known_mac_keys[k] := key_mac_key[a];
                known_firsts[k] := one[a];
                known_lasts[k] := two[a];
                key_ats[k] := ats[a];
                new_keys[k] := true;
            END IF;
        END LOOP;
    END IF;

    IF head = head_before THEN
        RETURN;
    END IF;
    INSERT INTO events
    SELECT n.position, n.id, n.stream, n.version, n.type, n.schema_version, n.at, n.app_id, n.metadata, n.data, n.person,
        n.personal, substring(sha256(n.mac_key || int8send(n.position)) FOR 16)
    FROM unnest(
        positions, event_id, event_stream, event_version, event_type, event_schema_version, event_at, event_app,
        event_metadata, event_data, event_person, event_personal, event_mac_key
    ) n (position, id, stream, version, type, schema_version, at, app_id, metadata, data, person, personal, mac_key)
    WHERE n.position > 0;
    IF true = ANY (changed) THEN
        DELETE FROM claims h USING unnest(claim_kinds, claim_keys, holders, changed) n (kind, key, owner, is_changed)
        WHERE n.is_changed AND n.owner = '' AND h.kind = n.kind AND h.key = n.key;
        INSERT INTO claims
        SELECT n.kind, n.key, n.owner
        FROM unnest(claim_kinds, claim_keys, holders, changed) n (kind, key, owner, is_changed)
        WHERE n.is_changed AND n.owner <> ''
        ON CONFLICT ON CONSTRAINT claims_pkey DO UPDATE SET owner = excluded.owner;
    END IF;
    IF true = ANY (new_keys) THEN
        INSERT INTO idempotency
        SELECT n.key, n.fingerprint, n.first, n.last, n.at,
            substring(sha256(n.mac_key || int8send(n.first) || int8send(n.last)) FOR 16)
        FROM unnest(keys, known_fingerprints, known_firsts, known_lasts, key_ats, known_mac_keys, new_keys)
            n (key, fingerprint, first, last, at, mac_key, is_new)
        WHERE n.is_new;
    END IF;
    PERFORM pg_notify('watchword_head', head::text);
END $$;

REVOKE EXECUTE ON FUNCTION append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append TO watchword_service;
