-- Who may do what. Roles belong to the whole cluster, rights to this database.
--
--   charliehub_reader  reads the source of truth, its history and what was served; no token, no body
--   charliehub_editor  and writes domains and fragments: for people with psql
--   charliehub_app     what a running provider is after SET ROLE: all that it needs, and no TRUNCATE, no word of history
--
-- Where the roles are missing and we may not make them, nothing happens and the provider runs with the rights of the user
-- that it logs in as. When they were made later: SELECT charliehub.grant_rights().

CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    r text;
BEGIN
    FOREACH r IN ARRAY '{charliehub_reader,charliehub_editor,charliehub_app}'::text[] LOOP
        IF to_regrole(r) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I', r);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    NULL;  -- another database of this cluster was migrated at the same moment
                WHEN insufficient_privilege THEN
                    RAISE NOTICE 'role % is missing: CREATE ROLE %, then SELECT charliehub.grant_rights()', r, r;
            END;
        END IF;
        CONTINUE WHEN to_regrole(r) IS NULL;

        EXECUTE format('GRANT USAGE ON SCHEMA charliehub TO %I', r);
        EXECUTE format('GRANT SELECT ON domains, fragments, revision, revisions, history, snapshots, instances, audit_events,
                                        audit_head, seals, schema_migrations TO %I', r);
        EXECUTE format('GRANT EXECUTE ON FUNCTION audit_breaks() TO %I', r);
        IF r IN ('charliehub_editor', 'charliehub_app') THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON domains, fragments TO %I', r);
            EXECUTE format('GRANT EXECUTE ON FUNCTION lock_revision() TO %I', r);
        END IF;
        IF r = 'charliehub_app' THEN
            GRANT SELECT, INSERT, UPDATE, DELETE ON tokens, snapshots, snapshot_bodies, instances TO charliehub_app;
            GRANT INSERT ON audit_events TO charliehub_app;
            GRANT SELECT, INSERT, DELETE ON idempotency TO charliehub_app;
            GRANT USAGE ON ALL SEQUENCES IN SCHEMA charliehub TO charliehub_app;
            GRANT EXECUTE ON FUNCTION prune_history(bigint) TO charliehub_app;
        END IF;
    END LOOP;

    -- so that the owner can give up what it does not need
    IF to_regrole('charliehub_app') IS NOT NULL THEN
        BEGIN
            IF current_setting('server_version_num')::int >= 160000 THEN
                EXECUTE 'GRANT charliehub_app TO CURRENT_USER WITH SET TRUE, INHERIT FALSE';
            ELSE
                GRANT charliehub_app TO CURRENT_USER;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'GRANT charliehub_app TO % is for who made the role', current_user;
            WHEN unique_violation OR internal_error THEN
                NULL;  -- granted at the same moment from another database
        END;
    END IF;
END $$;

REVOKE ALL ON FUNCTION grant_rights() FROM PUBLIC;

SELECT grant_rights();
