-- Rotations of the tunnels' keys: how far each is, as both ends say through us.
--
-- Like agents they make no revision; what a committed one changes in sites and policies does, in the same transaction.
-- Who waits for a change hears of it: NOTIFY charliehub_rotations.

CREATE TABLE rotations (
    id          uuid PRIMARY KEY,  -- the agent's
    agent       text COLLATE "C" NOT NULL,  -- whose key it is, and who decides
    site        text NOT NULL,
    interface   text COLLATE "C" NOT NULL,
    old_key     text NOT NULL,
    new_key     text NOT NULL,
    phase       text NOT NULL DEFAULT 'offered',
    follower    text COLLATE "C",  -- the agent at the other end; none: there is none
    why         text,              -- it was undone
    begun_at    timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rotations_agent_valid
        CHECK (ch_name(agent) AND agent !~ '@'),
    CONSTRAINT rotations_site_valid
        CHECK (ch_name(site)),
    CONSTRAINT rotations_interface_valid
        CHECK (interface ~ '^[A-Za-z0-9_=+-][A-Za-z0-9_=+.-]{0,14}$'),
    CONSTRAINT rotations_keys_valid
        CHECK (ch_wireguard_key(old_key) AND ch_wireguard_key(new_key) AND old_key <> new_key),
    CONSTRAINT rotations_phase_valid
        CHECK (phase IN ('offered', 'ready', 'switching', 'going', 'committed', 'undone')),
    CONSTRAINT rotations_follower_valid
        CHECK (follower IS NULL OR (ch_name(follower) AND follower !~ '@' AND follower <> agent)),
    CONSTRAINT rotations_followed
        CHECK (phase NOT IN ('ready', 'going') OR follower IS NOT NULL),
    CONSTRAINT rotations_why_valid
        CHECK (why IS NULL OR (phase = 'undone' AND octet_length(why) <= 2000))
);

CREATE UNIQUE INDEX rotations_one_open ON rotations (agent, interface) WHERE phase NOT IN ('committed', 'undone');
CREATE INDEX rotations_followed_open ON rotations (follower) WHERE phase NOT IN ('committed', 'undone');

CREATE FUNCTION ch_rotations_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('charliehub_rotations', '');
    RETURN NULL;
END $$;

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rotations
    FOR EACH STATEMENT EXECUTE FUNCTION ch_rotations_changed();
ALTER TABLE rotations ENABLE ALWAYS TRIGGER changed;

ALTER FUNCTION grant_rights() RENAME TO grant_rights_until_15;
REVOKE ALL ON FUNCTION grant_rights_until_15() FROM PUBLIC;

CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    r text;
BEGIN
    PERFORM grant_rights_until_15();
    FOREACH r IN ARRAY '{charliehub_reader,charliehub_editor,charliehub_app}'::text[] LOOP
        CONTINUE WHEN to_regrole(r) IS NULL;
        EXECUTE format('GRANT SELECT ON rotations TO %I', r);
    END LOOP;
    IF to_regrole('charliehub_app') IS NOT NULL THEN
        GRANT INSERT, UPDATE, DELETE ON rotations TO charliehub_app;
    END IF;
END $$;

REVOKE ALL ON FUNCTION grant_rights() FROM PUBLIC;

SELECT grant_rights();
