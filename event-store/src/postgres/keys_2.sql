-- The instance key, which was the master key until now, is put into `meta` when the store is opened. Earlier programs would
-- take a new master key for a wrong one.

COMMENT ON TABLE meta IS 'check: sealed by the instance key; instance: the instance key, wrapped by the master key';
