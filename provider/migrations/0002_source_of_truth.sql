-- The source of truth: domains and fragments, the revision that each committed change makes, and the history of all.
--
--  * Revision order is commit order, without gaps: one counter row, locked by a BEFORE STATEMENT trigger before any row
--    lock. A reader that sees N sees all of 1..N and nothing of N + 1. A rollback, to a savepoint too, leaves no trace.
--    updated_at is for people, never a watermark.
--  * A statement that changes nothing makes no revision and no NOTIFY.
--  * One NOTIFY charliehub_revision for each changing transaction: {"r":N,"t":"<token>"}, no row data.
--  * Each revision has a random token. Who holds (N, token) and finds another, or none, at N is on a fork: a failover that
--    lost commits, a restored backup. Read everything again.
--  * history is complete: insert, update, delete, TRUNCATE (a row for each row lost), COPY, MERGE, upsert. Who, when and
--    from where are in revisions. domains_as_of(N) rebuilds any N from the floor on. Both are append-only.
--  * id and created_at never change; created_at, updated_at and version cannot be forged.
--  * version = the revision that last changed the row: no ABA after delete and rollback.
--  * Triggers are ENABLE ALWAYS and SECURITY DEFINER with a fixed search_path: session_replication_role does not pass by,
--    and a writer needs no right on revision, revisions, history.
--  * COLLATE "C" on names: one order on every machine, no index damage when glibc changes.
--
-- Reading:  BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE domains, fragments IN ACCESS SHARE MODE; SELECT ..
--           LOCK first: TRUNCATE is not MVCC-safe, an older snapshot would read revision N with no rows.
-- Writing:  READ COMMITTED; lock_revision() before SELECT .. FOR UPDATE (else 40P01); retry 40P01 and 40001. An open
--           writer blocks writers, not readers: set lock_timeout and idle_in_transaction_session_timeout.
-- Changing: a new column also goes into row_defaults(); ALTER TYPE .. ADD VALUE in a migration of its own; a changed
--           validator: drop its CHECK, add it NOT VALID, validate.

-- ---- revisions and history ----------------------------------------------------------------------------------------

CREATE TABLE revision (  -- one row: the lock that makes revision order commit order
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    n        bigint  NOT NULL DEFAULT 0 CHECK (n >= 0),
    token    uuid    NOT NULL DEFAULT gen_random_uuid(),
    floor    bigint  NOT NULL DEFAULT 0,  -- domains_as_of works from here on
    xact     xid8,                        -- who made n; both, so that a restored dump cannot mistake it
    xact_at  timestamptz
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

INSERT INTO revision DEFAULT VALUES;

CREATE TABLE revisions (
    revision     bigint      PRIMARY KEY,
    token        uuid        NOT NULL,
    at           timestamptz NOT NULL,  -- the database's clock; order by revision, not by this
    actor        text        NOT NULL,  -- charliehub.actor (as claimed by the writer), else the database user
    source       text        NOT NULL,  -- charliehub.source: api, psql, import, rollback ..
    address      text,                  -- charliehub.address: the HTTP client, else the database client
    request_id   text,
    reason       text,
    db_user      name        NOT NULL,  -- from here on: cannot be claimed
    db_address   inet,
    application  text,
    backend_pid  int
);

CREATE TABLE history (
    revision  bigint NOT NULL,  -- no foreign key: it would be a check for each row
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    tbl       text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    op        "char" NOT NULL CHECK (op IN ('I', 'U', 'D', 'T')),
    old       jsonb,
    new       jsonb,
    PRIMARY KEY (revision, seq),
    CHECK ((op = 'I') = (old IS NULL) AND (op IN ('D', 'T')) = (new IS NULL))
);

CREATE INDEX history_key ON history (tbl, key, revision DESC, seq DESC);

-- ---- domains and fragments ----------------------------------------------------------------------------------------

CREATE TABLE domains (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    domain               text COLLATE "C" NOT NULL,
    path_prefix          text COLLATE "C" NOT NULL DEFAULT '/',
    protocol             domain_protocol     NOT NULL DEFAULT 'http',
    service_type         domain_service_type NOT NULL DEFAULT 'proxy',
    environment          domain_environment  NOT NULL DEFAULT 'production',
    status               domain_status       NOT NULL DEFAULT 'active',
    access_tier          domain_access_tier  NOT NULL DEFAULT 'public',
    tls_mode             domain_tls_mode     NOT NULL DEFAULT 'acme',
    cert_resolver        text COLLATE "C",  -- none: the configured one
    backend_scheme       text,              -- none: http
    backend_host         text COLLATE "C",
    backend_port         int,
    backends             jsonb   NOT NULL DEFAULT '[]',
    service_ref          text COLLATE "C",
    redirect_to          text,
    redirect_permanent   boolean NOT NULL DEFAULT false,
    redirect_keep_path   boolean NOT NULL DEFAULT false,
    maintenance_message  text,
    tcp_entrypoint       text COLLATE "C",
    auth_required        boolean NOT NULL DEFAULT false,
    ip_allowlist         cidr[]  NOT NULL DEFAULT '{}',
    middlewares          text[]  NOT NULL DEFAULT '{}',
    rate_limit           jsonb,
    health_check         jsonb,
    sticky               jsonb,
    priority             int,
    dns_mode             domain_dns_mode NOT NULL DEFAULT 'external',
    site                 text COLLATE "C",
    owner                text,
    notes                text,
    labels               jsonb NOT NULL DEFAULT '{}',
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    version              bigint NOT NULL DEFAULT 0,

    CONSTRAINT domains_name_unique
        UNIQUE NULLS NOT DISTINCT (domain, path_prefix, protocol, tcp_entrypoint),
    CONSTRAINT domains_domain_lower
        CHECK (domain = lower(domain)),
    CONSTRAINT domains_domain_valid
        CHECK (ch_dns(lower(domain))),
    CONSTRAINT domains_path_valid
        CHECK (ch_path(path_prefix)),
    CONSTRAINT domains_backend_coupling
        CHECK ((backend_host IS NULL) = (backend_port IS NULL) AND (backend_scheme IS NULL OR backend_host IS NOT NULL)),
    CONSTRAINT domains_backend_port_range
        CHECK (backend_port BETWEEN 1 AND 65535),
    CONSTRAINT domains_backend_host_valid
        CHECK (backend_host IS NULL OR ch_host(backend_host)),
    CONSTRAINT domains_backend_scheme_valid
        CHECK (backend_scheme IS NULL OR (protocol = 'http' AND backend_scheme IN ('http', 'https', 'h2c'))),
    CONSTRAINT domains_backends_valid
        CHECK (ch_backends(backends)),
    CONSTRAINT domains_backend_required
        CHECK ((service_type = 'proxy') = ((backend_host IS NOT NULL) <> (backends <> '[]'))
           AND (service_type = 'proxy' OR (backend_host IS NULL AND backends = '[]'))
           AND (service_type = 'reference') = (service_ref IS NOT NULL)
           AND (service_ref IS NULL OR ch_name(service_ref))),
    CONSTRAINT domains_tcp_requires
        CHECK (protocol <> 'tcp' OR (tcp_entrypoint IS NOT NULL
           AND ((backend_host IS NOT NULL AND backend_port IS NOT NULL) OR backends <> '[]'))),
    CONSTRAINT domains_tcp_entrypoint_valid
        CHECK (tcp_entrypoint IS NULL OR (protocol = 'tcp' AND tcp_entrypoint ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$')),
    CONSTRAINT domains_tcp_plain
        CHECK (protocol <> 'tcp' OR (path_prefix = '/' AND NOT auth_required AND service_type = 'proxy'
           AND rate_limit IS NULL AND sticky IS NULL AND health_check IS NULL
           AND NOT jsonb_path_exists(backends, '$[*].scheme'))),
    CONSTRAINT domains_tls_protocol
        CHECK (tls_mode <> 'passthrough' OR protocol = 'tcp'),
    CONSTRAINT domains_tls_resolver
        CHECK (cert_resolver IS NULL OR (tls_mode = 'acme' AND cert_resolver ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$')),
    CONSTRAINT domains_auth_needs_tls
        CHECK (NOT auth_required OR tls_mode IN ('acme', 'default')),
    CONSTRAINT domains_access_tier_list
        CHECK ((access_tier <> 'restricted' OR cardinality(ip_allowlist) > 0)
           AND (access_tier <> 'public' OR cardinality(ip_allowlist) = 0)
           AND (access_tier <> 'internal' OR ch_private(ip_allowlist))),
    CONSTRAINT domains_ip_allowlist_valid
        CHECK (ch_cidrs(ip_allowlist)),
    CONSTRAINT domains_middlewares_valid
        CHECK (ch_names(middlewares)),
    CONSTRAINT domains_redirect_fields  -- no "$": Traefik would expand it
        CHECK ((service_type = 'redirect') = (redirect_to IS NOT NULL)
           AND (service_type = 'redirect' OR NOT (redirect_permanent OR redirect_keep_path))
           AND (redirect_to IS NULL OR (octet_length(redirect_to) <= 2048 AND redirect_to
                ~ '^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/([A-Za-z0-9._~!&()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*)?$'))),
    CONSTRAINT domains_maintenance_fields
        CHECK ((status <> 'maintenance' OR protocol = 'http')
           AND (maintenance_message IS NULL OR ch_text(maintenance_message, 1000))),
    CONSTRAINT domains_rate_limit_valid
        CHECK (rate_limit IS NULL OR ch_rate_limit(rate_limit)),
    CONSTRAINT domains_health_check_valid
        CHECK (health_check IS NULL OR ch_health_check(health_check)),
    CONSTRAINT domains_sticky_valid
        CHECK (sticky IS NULL OR ch_sticky(sticky)),
    CONSTRAINT domains_priority_range
        CHECK (priority BETWEEN 1 AND 1000000),
    CONSTRAINT domains_text_valid
        CHECK ((site IS NULL OR site ~ '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$')
           AND (owner IS NULL OR (ch_text(owner, 200) AND owner !~ '["''\\\n\t]'))
           AND (notes IS NULL OR ch_text(notes, 10000))),
    CONSTRAINT domains_labels_valid
        CHECK (ch_labels(labels))
);

-- a TCP route without TLS is HostSNI(`*`): one for each entry point
CREATE UNIQUE INDEX domains_tcp_catch_all ON domains (tcp_entrypoint)
    WHERE protocol = 'tcp' AND tls_mode = 'none' AND status = 'active';
CREATE INDEX domains_version ON domains (version);

CREATE TABLE fragments (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text COLLATE "C" NOT NULL,
    kind        text    NOT NULL,
    body        jsonb   NOT NULL,
    enabled     boolean NOT NULL DEFAULT true,
    notes       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     bigint NOT NULL DEFAULT 0,

    CONSTRAINT fragments_name_unique
        UNIQUE (kind, name),
    CONSTRAINT fragments_name_valid  -- charliehub-: ours
        CHECK (ch_name(name) AND name !~ '@' AND name !~ '^charliehub-'),
    CONSTRAINT fragments_kind_valid
        CHECK (kind ~ ('^((http|tcp)\.(middleware|service|router|serversTransport)|http\.model'
                    || '|udp\.(service|router)|tls\.(option|store|certificate))$')),
    CONSTRAINT fragments_body_valid
        CHECK (jsonb_typeof(body) = 'object' AND octet_length(body::text) <= 262144),
    CONSTRAINT fragments_notes_valid
        CHECK (notes IS NULL OR ch_text(notes, 10000))
);

-- What a row is, as one number: whoever adds them up (bit_xor, count) over what it holds and over the table finds a change
-- made behind the triggers' back. Call it as row_hash(id, version, xmin).
CREATE FUNCTION row_hash(id uuid, version bigint, x xid) RETURNS bigint IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(id::text || ':' || version::text || ':' || x::text, 0);

-- ---- the revision that a transaction makes ------------------------------------------------------------------------

CREATE FUNCTION lock_revision() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
    SELECT n FROM revision FOR UPDATE
$$;

-- the row is locked by then, so n + 1 is ours
CREATE FUNCTION ch_next() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
    SELECT CASE WHEN xact = pg_current_xact_id() AND xact_at = transaction_timestamp() THEN n ELSE n + 1 END FROM revision
$$;

-- a claim of the writer: SET LOCAL charliehub.actor = '..'
CREATE FUNCTION ch_setting(k text, max int) RETURNS text STABLE
RETURN nullif(left(regexp_replace(current_setting('charliehub.' || k, true), '[[:cntrl:]]', ' ', 'g'), max), '');

CREATE FUNCTION ch_bump() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    r record;
BEGIN
    UPDATE revision
       SET n = n + 1, token = gen_random_uuid(), xact = pg_current_xact_id(), xact_at = transaction_timestamp()
     WHERE (xact = pg_current_xact_id() AND xact_at = transaction_timestamp()) IS NOT TRUE
    RETURNING n, token INTO r;
    IF NOT FOUND THEN
        RETURN (SELECT n FROM revision);
    END IF;
    INSERT INTO revisions VALUES (
        r.n, r.token, clock_timestamp(),
        coalesce(ch_setting('actor', 200), session_user),
        coalesce(ch_setting('source', 50), 'sql'),
        coalesce(ch_setting('address', 100), host(inet_client_addr())),
        ch_setting('request_id', 100), ch_setting('reason', 500),
        session_user, inet_client_addr(), current_setting('application_name', true), pg_backend_pid());
    PERFORM pg_notify('charliehub_revision', format('{"r":%s,"t":"%s"}', r.n, r.token));
    RETURN r.n;
END $$;

-- ---- triggers, in the order in which they run ---------------------------------------------------------------------

CREATE FUNCTION ch_lock() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
BEGIN
    PERFORM 1 FROM revision FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the row of table revision is missing' USING ERRCODE = 'data_corrupted';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION ch_stamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_at := clock_timestamp();
        NEW.updated_at := NEW.created_at;
    ELSE
        IF to_jsonb(NEW) -> TG_ARGV[0] IS DISTINCT FROM to_jsonb(OLD) -> TG_ARGV[0]
           OR NEW.created_at IS DISTINCT FROM OLD.created_at THEN
            RAISE EXCEPTION '% and created_at never change', TG_ARGV[0]
                USING ERRCODE = 'integrity_constraint_violation',
                      CONSTRAINT = TG_TABLE_NAME || '_immutable', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
        END IF;
        NEW.version := OLD.version;
        NEW.updated_at := OLD.updated_at;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NEW;
        END IF;
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at);
    END IF;
    NEW.version := ch_next();
    RETURN NEW;
END $$;

CREATE FUNCTION ch_record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    k text := TG_ARGV[0];
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO history (revision, tbl, key, op, new)
        SELECT b, TG_TABLE_NAME, to_jsonb(n) ->> k, 'I', to_jsonb(n)
          FROM (SELECT ch_bump() WHERE EXISTS (SELECT FROM new_rows)) x(b), new_rows n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO history (revision, tbl, key, op, old)
        SELECT b, TG_TABLE_NAME, to_jsonb(o) ->> k, 'D', to_jsonb(o)
          FROM (SELECT ch_bump() WHERE EXISTS (SELECT FROM old_rows)) x(b), old_rows o;
    ELSE
        -- GROUP BY, not a join: a plan cached from small changes would be a nested loop (10,000 rows: hours)
        WITH d AS MATERIALIZED (
            SELECT j ->> k AS key, array_agg(j ORDER BY side) AS a
              FROM (SELECT 1 AS side, to_jsonb(t) AS j FROM old_rows t
                    UNION ALL
                    SELECT 2, to_jsonb(t) FROM new_rows t) u
             GROUP BY 1
            HAVING count(DISTINCT j) = 2),
        x AS MATERIALIZED (SELECT ch_bump() AS b WHERE EXISTS (SELECT FROM d))
        INSERT INTO history (revision, tbl, key, op, old, new)
        SELECT b, TG_TABLE_NAME, d.key, 'U', a[1], a[2] FROM x, d;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION ch_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
BEGIN
    PERFORM 1 FROM revision FOR UPDATE;
    EXECUTE format(
        'INSERT INTO history (revision, tbl, key, op, old)
         SELECT b, %1$L, to_jsonb(t) ->> %2$L, ''T'', to_jsonb(t)
           FROM (SELECT ch_bump() WHERE EXISTS (SELECT FROM %3$I.%1$I)) x(b), %3$I.%1$I t',
        TG_TABLE_NAME, TG_ARGV[0], TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;

CREATE FUNCTION ch_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('charliehub.pruning', true), '') <> 'on' THEN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    t text;
    d text;
BEGIN
    FOREACH t IN ARRAY '{domains,fragments}'::text[] LOOP
        FOREACH d IN ARRAY ARRAY[
            'a_lock BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH STATEMENT EXECUTE FUNCTION ch_lock()',
            'b_stamp BEFORE INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION ch_stamp(''id'')',
            'c_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows
                FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
            'c_update AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
                FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
            'c_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows
                FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
            'd_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION ch_truncate(''id'')'
        ] LOOP
            EXECUTE format('CREATE TRIGGER ' || d, t);
            EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER %I', t, split_part(d, ' ', 1));
        END LOOP;
    END LOOP;
    FOREACH t IN ARRAY '{history,revisions}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                            FOR EACH STATEMENT EXECUTE FUNCTION ch_append_only()', t);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only', t);
    END LOOP;
END $$;

-- ---- the past -----------------------------------------------------------------------------------------------------

-- values for columns that an old row of history does not have; a migration that adds a column adds it here
CREATE FUNCTION row_defaults(t text) RETURNS jsonb IMMUTABLE
RETURN '{}'::jsonb;

CREATE FUNCTION ch_as_of(t text, r bigint) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = charliehub, pg_temp AS $$
BEGIN
    IF r < (SELECT v.floor FROM revision v) OR r > (SELECT v.n FROM revision v) THEN
        RAISE EXCEPTION 'revision % is not kept', r USING ERRCODE = 'no_data_found';
    END IF;
    RETURN QUERY
        SELECT row_defaults(t) || x.new
          FROM (SELECT DISTINCT ON (h.key) h.new
                  FROM history h
                 WHERE h.tbl = t AND h.revision <= r
                 ORDER BY h.key, h.revision DESC, h.seq DESC) x
         WHERE x.new IS NOT NULL;
END $$;

CREATE FUNCTION domains_as_of(r bigint) RETURNS SETOF domains
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT p.* FROM ch_as_of('domains', r) j, jsonb_populate_record(NULL::domains, j) p
$$;

CREATE FUNCTION fragments_as_of(r bigint) RETURNS SETOF fragments
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT p.* FROM ch_as_of('fragments', r) j, jsonb_populate_record(NULL::fragments, j) p
$$;

-- Forgets what is older than revision r and keeps the state at r. Blocks writers while it runs: go in steps.
CREATE FUNCTION prune_history(r bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    c bigint;
BEGIN
    UPDATE revision v SET floor = greatest(v.floor, r) WHERE r <= v.n;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'revision % is in the future', r;
    END IF;
    PERFORM set_config('charliehub.pruning', 'on', true);
    DELETE FROM history h
     USING (SELECT tbl, key, max(seq) AS last FROM history WHERE revision <= r GROUP BY tbl, key) x
     WHERE h.tbl = x.tbl AND h.key = x.key AND h.revision <= r AND (h.seq < x.last OR h.new IS NULL);
    GET DIAGNOSTICS c = ROW_COUNT;
    PERFORM set_config('charliehub.pruning', '', true);
    RETURN c;
END $$;

REVOKE ALL ON FUNCTION lock_revision(), ch_next(), ch_bump(), ch_lock(), ch_stamp(), ch_record(), ch_truncate(),
    prune_history(bigint) FROM PUBLIC;

-- ---- found without a prefix: SELECT * FROM domains, in psql -------------------------------------------------------

DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = charliehub, public', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'not the owner of database %: in psql say SET search_path = charliehub', current_database();
END $$;
