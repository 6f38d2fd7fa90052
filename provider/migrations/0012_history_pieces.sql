-- Bodies of many megabytes differ in little from one revision to the next: what they have in common is stored once.
--
-- A body is whole, or it is a list of the hashes of its pieces; snapshot_body() gives the bytes of either. Who writes a
-- list holds pieces_lock() shared until its commit, and who forgets pieces holds it alone: so no piece goes that a list is
-- about to name. Of a body in pieces the list is what counts against max_bytes: nearly all else it shares.

CREATE TABLE snapshot_pieces (
    hash   bytea PRIMARY KEY,  -- SHA-256 of the bytes
    bytes  bytea NOT NULL
);
ALTER TABLE snapshot_pieces ALTER COLUMN bytes SET STORAGE EXTERNAL;  -- they are compressed already

ALTER TABLE snapshot_bodies ADD COLUMN in_pieces boolean NOT NULL DEFAULT false;

CREATE FUNCTION pieces_lock() RETURNS bigint IMMUTABLE
RETURN hashtext('charliehub pieces');

CREATE FUNCTION pieces_of(list bytea) RETURNS TABLE (hash bytea, place bigint)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT decode(m.hex[1], 'hex'), m.place FROM regexp_matches(encode(list, 'hex'), '.{64}', 'g') WITH ORDINALITY m(hex, place)
$$;

CREATE FUNCTION snapshot_body(b snapshot_bodies) RETURNS bytea
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT CASE WHEN b.in_pieces
                THEN (SELECT string_agg(p.bytes, ''::bytea ORDER BY u.place)
                        FROM pieces_of(b.body) u JOIN snapshot_pieces p USING (hash))
                ELSE b.body END
$$;

ALTER FUNCTION prune_snapshots(int, interval, bigint) RENAME TO prune_bodies;

CREATE FUNCTION prune_snapshots(keep int DEFAULT 100, age interval DEFAULT '30 days', max_bytes bigint DEFAULT 2147483648,
                                OUT snapshots bigint, OUT bytes bigint)
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    c bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(pieces_lock());
    SELECT p.snapshots, p.bytes INTO snapshots, bytes FROM prune_bodies(keep, age, max_bytes) p;
    WITH used AS MATERIALIZED (
        SELECT DISTINCT u.hash FROM snapshot_bodies b, pieces_of(b.body) u WHERE b.in_pieces),
    gone AS (
        DELETE FROM snapshot_pieces p WHERE NOT EXISTS (SELECT FROM used u WHERE u.hash = p.hash)
        RETURNING octet_length(p.bytes) AS size)
    SELECT coalesce(sum(size), 0) INTO c FROM gone;
    bytes := bytes + c;
END $$;

ALTER FUNCTION grant_rights() RENAME TO grant_rights_until_11;
REVOKE ALL ON FUNCTION grant_rights_until_11() FROM PUBLIC;

CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
BEGIN
    PERFORM grant_rights_until_11();
    IF to_regrole('charliehub_app') IS NOT NULL THEN
        GRANT SELECT, INSERT, DELETE ON snapshot_pieces TO charliehub_app;
    END IF;
END $$;

REVOKE ALL ON FUNCTION grant_rights() FROM PUBLIC;

SELECT grant_rights();
