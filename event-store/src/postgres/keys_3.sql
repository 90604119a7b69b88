-- With the instance key may be sealed that the journal carries MACs, which `watchword migrate` says once it does. Earlier programs
-- would take that for a key of another master key.

COMMENT ON TABLE meta IS 'check: sealed by the instance key; instance: the instance key and what its journal is, wrapped by the master key';
