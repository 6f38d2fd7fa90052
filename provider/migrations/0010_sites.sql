-- Sites and policies: what the agents hold reality against. And what the agents told.
--
--  * sites and policies are part of the source of truth: revisions, history, audit and rollback as for domains. The networks
--    of the sites are who is internal, so a site that is removed narrows the access to rows of that tier.
--  * Two sites have no address in common: an address must lead to one of them.
--  * agents, agent_installs, agent_findings and agent_transitions make no revision. A report is told once: the greatest
--    number of each install is kept. Transitions are append-only, and forgotten by prune_transitions().

-- ---- validators ---------------------------------------------------------------------------------------------------

-- 32 bytes in base64: the last digit before the padding has two bits that are 0
CREATE FUNCTION ch_wireguard_key(v text) RETURNS boolean IMMUTABLE
RETURN v ~ '^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$';

-- an address as Rust and PostgreSQL both read it: nothing is left out, nothing begins with 0
CREATE FUNCTION ch_address(v text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF v ~ ':' THEN
        RETURN charliehub.ch_ipv6(v);
    END IF;
    RETURN v ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.|$)){4}$' AND v !~ '\.$';
END $$;

-- an address and its prefix: 10.44.0.0/16; with host bits (10.44.0.1/16) where these may be there
CREATE FUNCTION ch_network(v text, host_bits boolean) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF NOT (v ~ '^[^/]+/(0|[1-9][0-9]{0,2})$' AND charliehub.ch_address(split_part(v, '/', 1))) THEN
        RETURN false;
    END IF;
    RETURN CASE WHEN host_bits THEN masklen(v::inet) ELSE masklen(v::cidr) END IS NOT NULL;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN false;
END $$;

CREATE FUNCTION ch_networks(v jsonb, host_bits boolean) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(v) IS DISTINCT FROM 'array' OR jsonb_array_length(v) > 1000 THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM jsonb_array_elements(v) e
                        WHERE (jsonb_typeof(e) = 'string' AND charliehub.ch_network(e #>> '{}', host_bits)) IS NOT TRUE);
END $$;

-- no address is in two of them
CREATE FUNCTION ch_apart(v cidr[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN NOT EXISTS (SELECT FROM unnest(v) WITH ORDINALITY a(net, place), unnest(v) WITH ORDINALITY b(net, place)
                        WHERE a.place < b.place AND a.net && b.net);
END $$;

-- host and port: vpn.example.org:51820, 203.0.113.7:51820, [2001:db8::7]:51820
CREATE FUNCTION ch_endpoint(v text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    host text := substring(v FROM '^(.+):[1-9][0-9]{0,4}$');
BEGIN
    RETURN coalesce(substring(v FROM ':([0-9]{1,5})$')::int <= 65535
        AND CASE WHEN host ~ '^\[.*\]$' THEN charliehub.ch_ipv6(btrim(host, '[]')) ELSE host !~ ':' AND charliehub.ch_host(host) END,
        false);
END $$;

CREATE FUNCTION ch_tunnel_keys(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(v) IS DISTINCT FROM 'array' THEN
        RETURN true;  -- said by another constraint
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM jsonb_array_elements(v) t, LATERAL (VALUES ('public_key'), ('own_public_key')) k(name)
         WHERE t ? k.name AND jsonb_typeof(t -> k.name) = 'string' AND NOT charliehub.ch_wireguard_key(t ->> k.name));
END $$;

-- [{"interface": "wg-uk", "public_key": "..", "allowed_ips": ["10.44.0.0/16"], "keepalive": 25, "rank": 1, ..}, ..]
CREATE FUNCTION ch_tunnels(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(v) IS DISTINCT FROM 'array' OR jsonb_array_length(v) > 100 THEN
        RETURN false;
    END IF;
    IF EXISTS (
        SELECT FROM jsonb_array_elements(v) t
         WHERE (charliehub.ch_keys(t, '{interface,public_key,allowed_ips,keepalive,rank,peer_address,addresses,own_public_key,listen_port,mtu,endpoint}')
                AND jsonb_typeof(t -> 'interface') = 'string' AND t ->> 'interface' ~ '^[A-Za-z0-9_=+-][A-Za-z0-9_=+.-]{0,14}$'
                AND jsonb_typeof(t -> 'public_key') = 'string'
                AND charliehub.ch_networks(t -> 'allowed_ips', false)
                AND (NOT t ? 'keepalive' OR charliehub.ch_int(t -> 'keepalive', 0, 65535))
                AND (NOT t ? 'rank' OR charliehub.ch_int(t -> 'rank', 1, 100))
                AND (NOT t ? 'peer_address' OR (jsonb_typeof(t -> 'peer_address') = 'string' AND charliehub.ch_address(t ->> 'peer_address')))
                AND (NOT t ? 'addresses' OR charliehub.ch_networks(t -> 'addresses', true))
                AND (NOT t ? 'own_public_key' OR jsonb_typeof(t -> 'own_public_key') = 'string')
                AND (NOT t ? 'listen_port' OR charliehub.ch_int(t -> 'listen_port', 1, 65535))
                AND (NOT t ? 'mtu' OR charliehub.ch_int(t -> 'mtu', 576, 65535))
                AND (NOT t ? 'endpoint' OR (jsonb_typeof(t -> 'endpoint') = 'string' AND charliehub.ch_endpoint(t ->> 'endpoint')))) IS NOT TRUE)
    THEN
        RETURN false;
    END IF;
    RETURN (SELECT count(DISTINCT coalesce(t ->> 'rank', '1')) = count(*)
                   AND count(DISTINCT (t ->> 'interface', t ->> 'public_key')) = count(*)
              FROM jsonb_array_elements(v) t);
END $$;

-- [{"address": "10.44.1.20", "name": "px1", "port": 8006}, ..]
CREATE FUNCTION ch_hosts(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(v) IS DISTINCT FROM 'array' OR jsonb_array_length(v) > 100 THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (
            SELECT FROM jsonb_array_elements(v) h
             WHERE (charliehub.ch_keys(h, '{address,name,port}')
                    AND jsonb_typeof(h -> 'address') = 'string' AND charliehub.ch_address(h ->> 'address')
                    AND (NOT h ? 'name' OR (jsonb_typeof(h -> 'name') = 'string' AND charliehub.ch_name(h ->> 'name')))
                    AND (NOT h ? 'port' OR charliehub.ch_int(h -> 'port', 1, 65535))) IS NOT TRUE)
        AND (SELECT count(DISTINCT (h ->> 'address', h ->> 'port')) = count(*) FROM jsonb_array_elements(v) h);
END $$;

-- each of its fields is of its type, if it is there, and has what it needs
CREATE FUNCTION ch_fields(v jsonb, needed text[], texts text[], lists text[], flags text[], numbers text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF NOT charliehub.ch_keys(v, texts || lists || flags || numbers) OR NOT v ?& needed THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM jsonb_each(v) f
         WHERE CASE
               WHEN f.key = ANY (texts) THEN jsonb_typeof(f.value) = 'string'
               WHEN f.key = ANY (flags) THEN jsonb_typeof(f.value) = 'boolean'
               WHEN f.key = ANY (numbers) THEN charliehub.ch_int(f.value, 0, 100)
               WHEN jsonb_typeof(f.value) <> 'array' THEN false
               ELSE NOT EXISTS (SELECT FROM jsonb_array_elements(f.value) e WHERE jsonb_typeof(e) <> 'string') END IS NOT TRUE);
END $$;

-- a list of objects with these fields
CREATE FUNCTION ch_list(v jsonb, needed text[], texts text[], lists text[] DEFAULT '{}', flags text[] DEFAULT '{}',
                        numbers text[] DEFAULT '{}') RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF v IS NULL THEN
        RETURN true;
    END IF;
    IF jsonb_typeof(v) <> 'array' OR jsonb_array_length(v) > 1000 THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM jsonb_array_elements(v) e
                        WHERE charliehub.ch_fields(e, needed, texts, lists, flags, numbers) IS NOT TRUE);
END $$;

-- what a host must have: the fields of proto::policy::Policy
CREATE FUNCTION ch_policy(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    firewall jsonb := v -> 'firewall';
BEGIN
    RETURN (charliehub.ch_keys(v, '{firewall,files,units,containers,gateways,disks,recent,certificates}')
        AND octet_length(v::text) <= 262144
        AND (firewall IS NULL OR (charliehub.ch_keys(firewall, '{rules,unit}')
             AND (NOT firewall ? 'unit' OR jsonb_typeof(firewall -> 'unit') = 'string')
             AND charliehub.ch_list(firewall -> 'rules', '{name,table,chain,rule}', '{name,family,table,chain,rule}')
             AND NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(firewall -> 'rules', '[]')) r
                              WHERE (coalesce(r ->> 'family', 'ipv4') IN ('ipv4', 'ipv6', 'both')
                                     AND r ->> 'table' IN ('raw', 'mangle', 'nat', 'filter', 'security')) IS NOT TRUE)))
        AND charliehub.ch_list(v -> 'files', '{paths}', '{kind,mode,owner,group,writable_by}', '{paths,except}', '{secret}')
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(v -> 'files', '[]')) f
                         WHERE (coalesce(f ->> 'kind', 'file') IN ('file', 'directory')
                                AND coalesce(f ->> 'mode', '644') ~ '^[0-7]{3,4}$') IS NOT TRUE)
        AND charliehub.ch_list(v -> 'units', '{name}', '{name}', '{}', '{active,enabled}')
        AND charliehub.ch_list(v -> 'containers', '{name}', '{name}')
        AND charliehub.ch_list(v -> 'gateways', '{name,topic,max_age}', '{name,topic,max_age}')
        AND charliehub.ch_list(v -> 'disks', '{path}', '{path}', '{}', '{}', '{warning_percent,critical_percent}')
        AND charliehub.ch_list(v -> 'recent', '{name,path,max_age}', '{name,path,max_age}')
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(v -> 'gateways', '[]') || coalesce(v -> 'recent', '[]')) e
                         WHERE e ->> 'max_age' !~ '^[1-9][0-9]{0,8}(ms|s|m|h|d)$')
        AND (NOT v ? 'certificates'
             OR charliehub.ch_fields(v -> 'certificates', '{}', '{}', '{names,except,files}', '{allow_staging}', '{}'))) IS TRUE;
END $$;

-- ---- sites and policies -------------------------------------------------------------------------------------------

CREATE TABLE sites (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text COLLATE "C" NOT NULL,
    agent       text COLLATE "C" NOT NULL DEFAULT 'hub2',  -- on the host that its tunnels end on
    networks    cidr[] NOT NULL,
    tunnels     jsonb NOT NULL DEFAULT '[]',
    hosts       jsonb NOT NULL DEFAULT '[]',
    wan_name    text COLLATE "C",
    notes       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     bigint NOT NULL DEFAULT 0,

    CONSTRAINT sites_name_unique
        UNIQUE (name),
    CONSTRAINT sites_name_valid
        CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$'),
    CONSTRAINT sites_agent_valid
        CHECK (ch_name(agent) AND agent !~ '@'),
    CONSTRAINT sites_networks_valid
        CHECK (cardinality(networks) > 0 AND ch_cidrs(networks) AND ch_apart(networks)),
    CONSTRAINT sites_tunnel_keys_valid
        CHECK (ch_tunnel_keys(tunnels)),
    CONSTRAINT sites_tunnels_valid
        CHECK (ch_tunnels(tunnels)),
    CONSTRAINT sites_hosts_valid
        CHECK (ch_hosts(hosts)),
    CONSTRAINT sites_wan_name_valid
        CHECK (wan_name IS NULL OR (ch_dns(wan_name) AND wan_name !~ '^\*')),
    CONSTRAINT sites_notes_valid
        CHECK (notes IS NULL OR ch_text(notes, 10000))
);

CREATE TABLE policies (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent       text COLLATE "C" NOT NULL,
    body        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     bigint NOT NULL DEFAULT 0,

    CONSTRAINT policies_agent_unique
        UNIQUE (agent),
    CONSTRAINT policies_agent_valid
        CHECK (ch_name(agent) AND agent !~ '@'),
    CONSTRAINT policies_body_valid
        CHECK (ch_policy(body))
);

-- a writer holds the revision lock, so nobody adds another site meanwhile
CREATE FUNCTION ch_sites_apart() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    clash record;
BEGIN
    SELECT a.name, x.net, b.name AS other, y.net AS taken INTO clash
      FROM new_rows a CROSS JOIN LATERAL unnest(a.networks) x(net)
      JOIN sites b ON b.id <> a.id CROSS JOIN LATERAL unnest(b.networks) y(net)
     WHERE x.net && y.net
     ORDER BY a.name, x.net LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'network % of site % overlaps % of site %', clash.net, clash.name, clash.taken, clash.other
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'sites_networks_apart', COLUMN = 'networks',
                  TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                  HINT = 'an address leads to one site: narrow one of the networks, or remove it there first';
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    t text;
    d text;
BEGIN
    FOREACH t IN ARRAY '{sites,policies}'::text[] LOOP
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
END $$;

CREATE TRIGGER e_apart_insert AFTER INSERT ON sites REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ch_sites_apart();
CREATE TRIGGER e_apart_update AFTER UPDATE ON sites REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ch_sites_apart();
ALTER TABLE sites ENABLE ALWAYS TRIGGER e_apart_insert;
ALTER TABLE sites ENABLE ALWAYS TRIGGER e_apart_update;

CREATE FUNCTION sites_as_of(r bigint) RETURNS SETOF sites
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT p.* FROM ch_as_of('sites', r) j, jsonb_populate_record(NULL::sites, j) p
$$;

CREATE FUNCTION policies_as_of(r bigint) RETURNS SETOF policies
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT p.* FROM ch_as_of('policies', r) j, jsonb_populate_record(NULL::policies, j) p
$$;

CREATE OR REPLACE FUNCTION ch_row_name(t text, v jsonb) RETURNS text IMMUTABLE
RETURN CASE t
    WHEN 'domains' THEN (v ->> 'domain') || CASE v ->> 'path_prefix' WHEN '/' THEN '' ELSE v ->> 'path_prefix' END
    WHEN 'sites' THEN 'site ' || (v ->> 'name')
    WHEN 'policies' THEN 'policy of ' || (v ->> 'agent')
    ELSE (v ->> 'kind') || '/' || (v ->> 'name')
END;

REVOKE ALL ON FUNCTION ch_sites_apart() FROM PUBLIC;

-- ---- what the agents told -----------------------------------------------------------------------------------------

CREATE TABLE agents (
    name         text COLLATE "C" PRIMARY KEY,
    first_seen   timestamptz NOT NULL DEFAULT now(),
    last_report  timestamptz NOT NULL DEFAULT now(),  -- when it came, by our clock
    reported_at  timestamptz NOT NULL,                -- when it was made, by the agent's
    complete_at  timestamptz,                         -- when the last one was made that had all findings
    boot         uuid NOT NULL,
    version      text NOT NULL,
    expected     text,                                -- the digest of what it holds reality against
    lost         bigint NOT NULL DEFAULT 0,           -- reports that it dropped since it was first seen

    CONSTRAINT agents_name_valid CHECK (ch_name(name))
);

CREATE TABLE agent_installs (
    agent    text COLLATE "C" NOT NULL REFERENCES agents ON DELETE CASCADE,
    install  uuid NOT NULL,
    seq      bigint NOT NULL,  -- the greatest that came
    at       timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (agent, install)
);

CREATE TABLE agent_findings (  -- as it is now
    agent     text COLLATE "C" NOT NULL REFERENCES agents ON DELETE CASCADE,
    "check"   text COLLATE "C" NOT NULL,
    target    text COLLATE "C" NOT NULL,
    site      text,
    status    text NOT NULL,
    text      text NOT NULL,
    observed  text,
    expected  text,
    source    text,
    remedy    text,
    since     timestamptz NOT NULL,
    seen      timestamptz NOT NULL,

    PRIMARY KEY (agent, "check", target),
    CONSTRAINT agent_findings_status_valid CHECK (status IN ('ok', 'warning', 'critical', 'unknown'))
);

CREATE TABLE agent_transitions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent        text COLLATE "C" NOT NULL,
    "check"      text COLLATE "C" NOT NULL,
    target       text COLLATE "C" NOT NULL,
    site         text,
    was          text,  -- none: it was not known
    is_now       text,  -- none: it is no target any more
    text         text NOT NULL,
    at           timestamptz NOT NULL,  -- by the agent's clock
    received_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX agent_transitions_agent ON agent_transitions (agent, id DESC);
CREATE INDEX agent_transitions_received ON agent_transitions (received_at);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON agent_transitions
    FOR EACH STATEMENT EXECUTE FUNCTION ch_append_only();
ALTER TABLE agent_transitions ENABLE ALWAYS TRIGGER append_only;

-- Forgets those that are older than `age`, and of each agent all but the newest `keep`.
CREATE FUNCTION prune_transitions(age interval, keep int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    c bigint;
BEGIN
    PERFORM set_config('charliehub.pruning', 'on', true);
    DELETE FROM agent_transitions t
     USING (SELECT id, row_number() OVER (PARTITION BY agent ORDER BY id DESC) AS place FROM agent_transitions) x
     WHERE t.id = x.id AND (x.place > keep OR t.received_at < now() - age);
    GET DIAGNOSTICS c = ROW_COUNT;
    PERFORM set_config('charliehub.pruning', '', true);
    RETURN c;
END $$;

REVOKE ALL ON FUNCTION prune_transitions(interval, int) FROM PUBLIC;

-- ---- rights -------------------------------------------------------------------------------------------------------

ALTER FUNCTION grant_rights() RENAME TO grant_rights_until_9;
REVOKE ALL ON FUNCTION grant_rights_until_9() FROM PUBLIC;

CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    r text;
BEGIN
    PERFORM grant_rights_until_9();
    FOREACH r IN ARRAY '{charliehub_reader,charliehub_editor,charliehub_app}'::text[] LOOP
        CONTINUE WHEN to_regrole(r) IS NULL;
        EXECUTE format('GRANT SELECT ON sites, policies, agents, agent_installs, agent_findings, agent_transitions TO %I', r);
        IF r IN ('charliehub_editor', 'charliehub_app') THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON sites, policies TO %I', r);
        END IF;
    END LOOP;
    IF to_regrole('charliehub_app') IS NOT NULL THEN
        GRANT INSERT, UPDATE, DELETE ON agents, agent_installs, agent_findings TO charliehub_app;
        GRANT INSERT ON agent_transitions TO charliehub_app;
        GRANT EXECUTE ON FUNCTION prune_transitions(interval, int) TO charliehub_app;
    END IF;
END $$;

REVOKE ALL ON FUNCTION grant_rights() FROM PUBLIC;

SELECT grant_rights();
