-- Appends no longer depend on room in the server's queue of notifications. All databases of a server share it, and anybody who
-- may connect can fill it, by listening in a transaction that is left open: then each commit with a notification failed.
-- Without one, nodes see new events when they next look by themselves.
DO $$
DECLARE
    notifies CONSTANT text := 'PERFORM pg_notify(''watchword_head'', head::text);';
    made CONSTANT text := pg_get_functiondef('append'::regproc);
BEGIN
    IF strpos(made, notifies) = 0 THEN
        RAISE EXCEPTION 'the function append is not the one of format 5';
    END IF;
    EXECUTE replace(made, notifies, 'IF pg_notification_queue_usage() < 0.5 THEN ' || notifies || ' END IF;');
END $$;
