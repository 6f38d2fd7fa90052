-- What a token may touch, and an audit in which a changed, moved or missing row is found.
--
--  * tokens.scope: {"domains": ["*.a.org"], "owners": [..], "sites": [..]}; what is not given does not limit.
--  * audit_events is one chain: each row's hash covers its text and the hash of the row before. Its id is its place, given
--    under the lock of audit_head, which also knows the last one: a row missing at the end is found too.
--  * A revision is sealed: seals.hash covers its row, its rows of history (rows_hash, folded in their order) and the seal of
--    the revision before. It is written by each statement that adds to history, under the revision lock that orders them.
--  * Legal pruning leaves an anchor: an audit event history.prune with the floor and the hash of what is left up to it.
--    Above the floor every revision is verified by its own rows, up to it by the anchor, made by a trigger on history, so
--    that whatever function prunes leaves one.
--  * The texts are canonical: jsonb orders its keys, times are in UTC, nothing depends on the session.

-- ---- tokens -------------------------------------------------------------------------------------------------------

-- lists of texts, none empty: an empty list would be a scope that nobody can mean
CREATE FUNCTION ch_scope(v jsonb) RETURNS boolean IMMUTABLE
RETURN CASE
    WHEN NOT ch_keys(v, '{domains,owners,sites}') THEN false
    WHEN v = '{}' THEN true
    ELSE (SELECT bool_and(CASE WHEN jsonb_typeof(l.value) <> 'array' THEN false ELSE
                 jsonb_array_length(l.value) BETWEEN 1 AND 100
             AND NOT EXISTS (SELECT FROM jsonb_array_elements(l.value) e
                              WHERE (jsonb_typeof(e) = 'string' AND ch_text(e #>> '{}', 253) AND e <> '""'
                                     AND (l.key <> 'domains' OR ch_dns(e #>> '{}'))) IS NOT TRUE) END)
            FROM jsonb_each(v) l)
END;

ALTER TABLE tokens
    ADD COLUMN scope jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT tokens_scope_valid CHECK (ch_scope(scope)),
    -- an admin makes tokens, so a scope would not hold it
    ADD CONSTRAINT tokens_scope_role CHECK (scope = '{}' OR role IN ('reader', 'editor'));

DROP TRIGGER changed ON tokens;
CREATE TRIGGER changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, name, role, subject, hash, expires_at, revoked_at, scope ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION ch_tokens_changed();
ALTER TABLE tokens ENABLE ALWAYS TRIGGER changed;

-- ---- canonical texts ----------------------------------------------------------------------------------------------

CREATE FUNCTION ch_utc(v timestamptz) RETURNS text STABLE
RETURN to_char(v AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- what a row is called in Traefik, of a row as history has it
CREATE FUNCTION ch_row_name(t text, v jsonb) RETURNS text IMMUTABLE
RETURN CASE t
    WHEN 'domains' THEN (v ->> 'domain') || CASE v ->> 'path_prefix' WHEN '/' THEN '' ELSE v ->> 'path_prefix' END
    ELSE (v ->> 'kind') || '/' || (v ->> 'name')
END;

CREATE FUNCTION ch_event_text(e audit_events) RETURNS text STABLE
RETURN jsonb_build_array(e.id, ch_utc(e.at), e.actor, e.source, e.address, e.kind, e.detail)::text;

CREATE FUNCTION ch_revision_text(r revisions) RETURNS text STABLE
RETURN jsonb_build_array(r.revision, r.token, ch_utc(r.at), r.actor, r.source, r.address, r.request_id, r.reason, r.db_user,
                         host(r.db_address), r.application, r.backend_pid)::text;

CREATE FUNCTION ch_history_text(h history) RETURNS text STABLE
RETURN jsonb_build_array(h.revision, h.seq, h.tbl, h.key, h.op, h.old, h.new)::text;

CREATE FUNCTION ch_link(before bytea, line text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = charliehub, pg_temp AS $$
BEGIN
    RETURN sha256(before || convert_to(line, 'UTF8'));
END $$;

-- as an aggregate: ch_fold(before, line ORDER BY ..) goes on from `before`, which is the same in each row
CREATE FUNCTION ch_fold_step(state bytea, before bytea, line text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN sha256(coalesce(state, before) || convert_to(line, 'UTF8'));
END $$;

CREATE AGGREGATE ch_fold(bytea, text) (SFUNC = ch_fold_step, STYPE = bytea);

-- ---- the chain of events ------------------------------------------------------------------------------------------

CREATE TABLE audit_head (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    id    bigint  NOT NULL DEFAULT 0,
    hash  bytea   NOT NULL DEFAULT ''
) WITH (fillfactor = 10);

INSERT INTO audit_head DEFAULT VALUES;

ALTER TABLE audit_events ADD COLUMN hash bytea;
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX revisions_at ON revisions (at);

-- The head is locked from here to the end of the transaction: who writes events does it last. Domains are written without.
CREATE FUNCTION ch_chain() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    head audit_head;
BEGIN
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    NEW.id := head.id + 1;
    NEW.at := clock_timestamp();
    NEW.hash := ch_link(head.hash, ch_event_text(NEW));
    UPDATE audit_head SET id = NEW.id, hash = NEW.hash;
    RETURN NEW;
END $$;

-- what was there before there was a chain is sealed as it is
DO $$
DECLARE
    e audit_events;
    place bigint := 0;
    link bytea := '';
BEGIN
    FOR e IN SELECT * FROM audit_events ORDER BY id LOOP
        place := place + 1;
        DELETE FROM audit_events WHERE id = e.id;
        e.id := place;
        link := ch_link(link, ch_event_text(e));
        e.hash := link;
        INSERT INTO audit_events OVERRIDING SYSTEM VALUE SELECT e.*;
    END LOOP;
    UPDATE audit_head SET id = place, hash = link;
END $$;

ALTER TABLE audit_events ALTER COLUMN hash SET NOT NULL;

CREATE TRIGGER chain BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION ch_chain();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION ch_append_only();
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER chain;
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER append_only;

-- ---- the chain of revisions ---------------------------------------------------------------------------------------

CREATE TABLE seals (
    revision   bigint PRIMARY KEY,
    rows_hash  bytea NOT NULL,
    hash       bytea NOT NULL
) WITH (fillfactor = 90);

-- Adds lines of history to the seal of revision r, which is the newest.
CREATE FUNCTION ch_seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    r bigint;
    before bytea;
    folded bytea;
    whole bytea;
BEGIN
    FOR r IN SELECT DISTINCT revision FROM new_rows ORDER BY 1 LOOP
        before := coalesce((SELECT rows_hash FROM seals WHERE revision = r), '');
        -- no join with history: a plan cached from small changes would be a nested loop
        SELECT ch_fold(before, ch_history_text((n.revision, n.seq, n.tbl, n.key, n.op, n.old, n.new)::history) ORDER BY n.seq)
          INTO folded
          FROM new_rows n WHERE n.revision = r;
        SELECT ch_link(coalesce((SELECT hash FROM seals WHERE revision = r - 1), '') || folded, ch_revision_text(v))
          INTO STRICT whole
          FROM revisions v WHERE v.revision = r;
        INSERT INTO seals VALUES (r, folded, whole)
            ON CONFLICT (revision) DO UPDATE SET rows_hash = excluded.rows_hash, hash = excluded.hash;
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER seal AFTER INSERT ON history REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ch_seal();
ALTER TABLE history ENABLE ALWAYS TRIGGER seal;

INSERT INTO seals
WITH RECURSIVE sealed AS (
    SELECT 0::bigint AS revision, ''::bytea AS rows_hash, ''::bytea AS hash
    UNION ALL
    SELECT v.revision, f.folded, ch_link(s.hash || f.folded, ch_revision_text(v))
      FROM sealed s
      JOIN revisions v ON v.revision = s.revision + 1
      CROSS JOIN LATERAL (SELECT coalesce(ch_fold('', ch_history_text(h) ORDER BY h.seq), '') AS folded
                            FROM history h WHERE h.revision = v.revision) f)
SELECT * FROM sealed WHERE revision > 0;

-- ---- the anchor of what was pruned --------------------------------------------------------------------------------

CREATE FUNCTION ch_kept(r bigint) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
    SELECT coalesce(ch_fold('', ch_history_text(h) ORDER BY h.revision, h.seq), '') FROM history h WHERE h.revision <= r
$$;

CREATE FUNCTION ch_anchor() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    forgotten bigint := (SELECT count(*) FROM old_rows);
    r bigint := (SELECT floor FROM revision);
BEGIN
    IF forgotten > 0 THEN
        INSERT INTO audit_events (actor, source, kind, detail)
        VALUES (coalesce(ch_setting('actor', 200), session_user), coalesce(ch_setting('source', 50), 'sql'), 'history.prune',
                jsonb_build_object('floor', r, 'rows', forgotten, 'kept', encode(ch_kept(r), 'hex')));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER anchor AFTER DELETE ON history REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ch_anchor();
ALTER TABLE history ENABLE ALWAYS TRIGGER anchor;

-- A database that was pruned before has no anchor yet. Without one up to the floor nothing could be verified.
INSERT INTO audit_events (actor, source, kind, detail)
SELECT session_user, 'migration', 'history.prune',
       jsonb_build_object('floor', floor, 'rows', 0, 'kept', encode(ch_kept(floor), 'hex'))
  FROM revision WHERE floor > 0;

-- ---- is it all there? ---------------------------------------------------------------------------------------------

-- The first thing that is not as it was written, of each chain: what it is, and where.
CREATE FUNCTION audit_breaks() RETURNS TABLE (chain text, place bigint, why text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
    WITH anchor AS (
        SELECT (detail ->> 'floor')::bigint AS floor, detail ->> 'kept' AS kept
          FROM audit_events WHERE kind = 'history.prune' ORDER BY id DESC LIMIT 1),
    base AS (SELECT coalesce((SELECT floor FROM anchor), 0) AS floor),
    events AS (
        SELECT e.id, e.hash IS DISTINCT FROM ch_link(lag(e.hash, 1, '') OVER w, ch_event_text(e)) AS broken,
               lag(e.id, 1, 0::bigint) OVER w AS before
          FROM audit_events e WINDOW w AS (ORDER BY e.id)),
    sealed AS (
        SELECT s.revision, lag(s.revision, 1, 0::bigint) OVER w AS before, v.revision IS NULL AS missing,
               s.hash IS DISTINCT FROM ch_link(lag(s.hash, 1, '') OVER w || s.rows_hash, ch_revision_text(v)) AS broken
          FROM seals s LEFT JOIN revisions v USING (revision) WINDOW w AS (ORDER BY s.revision)),
    rows AS (
        SELECT h.revision, ch_fold('', ch_history_text(h) ORDER BY h.seq) AS folded
          FROM history h WHERE h.revision > (SELECT floor FROM base) GROUP BY h.revision),
    found AS (
        SELECT 'audit_events' AS chain, before + 1 AS place, 'the event is missing' AS why FROM events WHERE id <> before + 1
        UNION ALL
        SELECT 'audit_events', id, 'the event was changed, or the one before it' FROM events WHERE broken
        UNION ALL
        SELECT 'audit_events', least(h.id, coalesce(m.id, 0)) + 1, 'events are missing at the end, or were added behind it'
          FROM audit_head h LEFT JOIN (SELECT id, hash FROM audit_events ORDER BY id DESC LIMIT 1) m ON true
         WHERE (h.id, h.hash) IS DISTINCT FROM (coalesce(m.id, 0), coalesce(m.hash, ''))
        UNION ALL
        SELECT 'audit_events', 1, 'the head of the chain is missing' WHERE NOT EXISTS (SELECT FROM audit_head)
        UNION ALL
        SELECT 'revisions', before + 1, 'the seal of the revision is missing' FROM sealed WHERE revision <> before + 1
        UNION ALL
        SELECT 'revisions', revision, 'the revision is missing' FROM sealed WHERE missing
        UNION ALL
        SELECT 'revisions', revision, 'the revision was changed, or its seal' FROM sealed WHERE broken AND NOT missing
        UNION ALL
        SELECT 'revisions', coalesce((SELECT max(revision) FROM seals), 0) + 1, 'revisions are missing at the end'
          FROM revision WHERE n <> coalesce((SELECT max(revision) FROM seals), 0)
        UNION ALL
        SELECT 'revisions', revision, 'the revision has no seal' FROM revisions v
         WHERE NOT EXISTS (SELECT FROM seals s WHERE s.revision = v.revision)
        UNION ALL
        SELECT 'history', coalesce(s.revision, r.revision), 'its rows were changed, added or removed'
          FROM (SELECT * FROM seals WHERE revision > (SELECT floor FROM base)) s FULL JOIN rows r USING (revision)
         WHERE s.rows_hash IS DISTINCT FROM r.folded
        UNION ALL
        SELECT 'history', floor, 'rows up to the last pruning were changed, added or removed'
          FROM anchor WHERE kept IS DISTINCT FROM encode(ch_kept(floor), 'hex')
        UNION ALL
        SELECT 'history', 0, 'it was pruned without an anchor' FROM revision, base WHERE revision.floor < base.floor)
    SELECT DISTINCT ON (chain) chain, place, why FROM found ORDER BY chain, place
$$;

REVOKE ALL ON FUNCTION ch_chain(), ch_seal(), ch_anchor(), ch_kept(bigint), audit_breaks() FROM PUBLIC;
