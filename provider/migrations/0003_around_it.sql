-- What surrounds the source of truth: tokens, what was served, who polls, what happened. None of it makes a revision.
--
--  * Tokens: their SHA-256 only; 256 random bits need no slow hash. A change is told on channel charliehub_tokens.
--  * Snapshots: the newest 100, all of 30 days, the pinned and the newest served are kept; bodies once for each digest.
--    A decision about a withheld one is told on channel charliehub_decision, with its id.

CREATE TABLE tokens (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name          text NOT NULL,
    role          text NOT NULL,
    subject       text COLLATE "C",  -- the one agent or instance that it may speak for
    hash          bytea NOT NULL UNIQUE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL DEFAULT session_user,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz,

    CONSTRAINT tokens_name_valid     CHECK (ch_text(name, 200)),
    CONSTRAINT tokens_role_valid     CHECK (role IN ('traefik', 'agent', 'reader', 'editor', 'admin')),
    CONSTRAINT tokens_hash_valid     CHECK (octet_length(hash) = 32),
    CONSTRAINT tokens_agent_subject  CHECK (role <> 'agent' OR subject IS NOT NULL)
);

CREATE FUNCTION ch_tokens_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('charliehub_tokens', '');
    RETURN NULL;
END $$;

-- not for last_used_at: it decides nothing
CREATE TRIGGER changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, name, role, subject, hash, expires_at, revoked_at ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION ch_tokens_changed();
ALTER TABLE tokens ENABLE ALWAYS TRIGGER changed;

CREATE TABLE snapshot_bodies (
    digest  text   PRIMARY KEY,
    body    bytea  NOT NULL,  -- gzip of the exact bytes
    bytes   bigint NOT NULL
);

CREATE TABLE snapshots (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision     bigint  NOT NULL,
    token        uuid    NOT NULL,  -- which branch, after a fork
    digest       text    NOT NULL REFERENCES snapshot_bodies,
    state        text    NOT NULL,
    reason       text    NOT NULL,  -- change, start, rollback, deploy-all, guard:empty, guard:shrink ..
    routes       int     NOT NULL,
    quarantined  int     NOT NULL DEFAULT 0,
    compiler     text    NOT NULL,
    pinned       boolean NOT NULL DEFAULT false,
    decided_by   text,
    decided_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT snapshots_state_valid CHECK (state IN ('served', 'withheld', 'approved', 'discarded'))
);

CREATE INDEX snapshots_revision ON snapshots (revision);
CREATE INDEX snapshots_digest ON snapshots (digest);

CREATE FUNCTION ch_decided() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('charliehub_decision', NEW.id::text);
    RETURN NULL;
END $$;

CREATE TRIGGER decided
    AFTER UPDATE OF state ON snapshots
    FOR EACH ROW WHEN (NEW.state IN ('approved', 'discarded') AND NEW.state <> OLD.state)
    EXECUTE FUNCTION ch_decided();
ALTER TABLE snapshots ENABLE ALWAYS TRIGGER decided;

CREATE FUNCTION prune_snapshots(keep int DEFAULT 100, age interval DEFAULT '30 days') RETURNS bigint
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    c bigint;
BEGIN
    DELETE FROM snapshots
     WHERE NOT pinned
       AND created_at < now() - age
       AND id NOT IN (SELECT id FROM snapshots ORDER BY id DESC LIMIT keep)
       AND id IS DISTINCT FROM (SELECT max(id) FROM snapshots WHERE state IN ('served', 'approved'));
    GET DIAGNOSTICS c = ROW_COUNT;
    DELETE FROM snapshot_bodies b WHERE NOT EXISTS (SELECT FROM snapshots s WHERE s.digest = b.digest);
    RETURN c;
END $$;

CREATE TABLE instances (  -- written on change, once a second at most
    name            text COLLATE "C" PRIMARY KEY,
    first_seen      timestamptz NOT NULL DEFAULT now(),
    last_poll_at    timestamptz,
    sent_digest     text,
    sent_revision   bigint,
    running_digest  text,
    running_since   timestamptz,
    state           text   NOT NULL DEFAULT 'unknown',
    refused         jsonb  NOT NULL DEFAULT '[]',
    advice          text[] NOT NULL DEFAULT '{}',  -- lines of Traefik's static configuration to change
    version         text,

    CONSTRAINT instances_name_valid  CHECK (ch_name(name)),
    CONSTRAINT instances_state_valid CHECK (state IN ('current', 'behind', 'refused', 'gone', 'unknown', 'unverified'))
);

CREATE TABLE audit_events (  -- what changes no row of domains: token, approval, refused login, rollback asked
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text  NOT NULL,
    source   text  NOT NULL,
    address  text,
    kind     text  NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
