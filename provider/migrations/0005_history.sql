-- How much of the past is kept.
--
--  * Snapshots: the newest `keep` or all of `age`, whichever is more; of these at most max_bytes of bodies, the least
--    recently used first. The pinned, the withheld and the newest served stay, whatever their age and size.
--  * History of rows: from the oldest snapshot on that is kept, and all of `age`: history_floor() says from where.

DROP FUNCTION prune_snapshots(int, interval);

CREATE FUNCTION prune_snapshots(keep int DEFAULT 100, age interval DEFAULT '30 days', max_bytes bigint DEFAULT 2147483648,
                                OUT snapshots bigint, OUT bytes bigint)
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    running bigint := (SELECT max(s.id) FROM snapshots s WHERE s.state IN ('served', 'approved'));
    c bigint;
BEGIN
    DELETE FROM snapshots s
     WHERE NOT s.pinned AND s.state <> 'withheld' AND s.id IS DISTINCT FROM running
       AND s.created_at < now() - age
       AND s.id NOT IN (SELECT n.id FROM snapshots n ORDER BY n.id DESC LIMIT keep);
    GET DIAGNOSTICS snapshots = ROW_COUNT;

    -- by body, since one that a kept snapshot needs too would free nothing
    DELETE FROM snapshots s
     USING (SELECT u.digest, u.stays, sum(octet_length(b.body)) OVER (ORDER BY u.stays DESC, u.last DESC) AS total
              FROM (SELECT n.digest, max(n.id) AS last,
                           bool_or(n.pinned OR n.state = 'withheld' OR n.id IS NOT DISTINCT FROM running) AS stays
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

-- The newest revision that row history may begin with: none is forgotten that a snapshot is kept of, nor one of `age`,
-- nor the one that those of `age` began with.
CREATE FUNCTION history_floor(age interval) RETURNS bigint
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT greatest(v.floor, least((SELECT min(s.revision) FROM snapshots s),
                                   coalesce((SELECT min(r.revision) - 1 FROM revisions r WHERE r.at >= now() - age), v.n)))
      FROM revision v
$$;
