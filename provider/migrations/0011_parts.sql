-- What only some instances are given: of which part a snapshot is, as the selector of its rows. NULL: of all rows.

ALTER TABLE snapshots ADD COLUMN part jsonb;

CREATE OR REPLACE FUNCTION prune_snapshots(keep int DEFAULT 100, age interval DEFAULT '30 days',
                                           max_bytes bigint DEFAULT 2147483648,
                                           OUT snapshots bigint, OUT bytes bigint)
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    -- of all, and of each part
    running bigint[] := ARRAY(SELECT max(s.id) FROM snapshots s WHERE s.state IN ('served', 'approved') GROUP BY s.part);
    c bigint;
BEGIN
    DELETE FROM snapshots s
     WHERE NOT s.pinned AND s.state <> 'withheld' AND s.id <> ALL (running)
       AND s.created_at < now() - age
       AND s.id NOT IN (SELECT n.id FROM snapshots n ORDER BY n.id DESC LIMIT keep);
    GET DIAGNOSTICS snapshots = ROW_COUNT;

    -- by body, since one that a kept snapshot needs too would free nothing
    DELETE FROM snapshots s
     USING (SELECT u.digest, u.stays, sum(octet_length(b.body)) OVER (ORDER BY u.stays DESC, u.last DESC) AS total
              FROM (SELECT n.digest, max(n.id) AS last,
                           bool_or(n.pinned OR n.state = 'withheld' OR n.id = ANY (running)) AS stays
                      FROM snapshots n GROUP BY n.digest) u
              JOIN snapshot_bodies b USING (digest)) x
     WHERE s.digest = x.digest AND x.total > max_bytes AND NOT x.stays
       AND NOT s.pinned;  -- once more: somebody may be pinning it at this moment
    GET DIAGNOSTICS c = ROW_COUNT;
    snapshots := snapshots + c;

    WITH gone AS (
        DELETE FROM snapshot_bodies b WHERE NOT EXISTS (SELECT FROM snapshots s WHERE s.digest = b.digest)
        RETURNING octet_length(b.body) AS size)
    SELECT coalesce(sum(size), 0) INTO bytes FROM gone;
END $$;
