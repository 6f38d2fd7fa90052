-- Clients of the VPN: who may call which hub, by which key, and what addresses it has there.
--
--  * peers are part of the source of truth: revisions, history, audit and rollback as for sites. Only public keys are here: the
--    private one never leaves who made it.
--  * Two peers have no key and no address in common.
--  * A policy says what interface clients are peers of, and what their configuration is made of (vpn).

-- ---- validators ---------------------------------------------------------------------------------------------------

-- a name that Linux takes for an interface
CREATE FUNCTION ch_interface(v text) RETURNS boolean IMMUTABLE
RETURN v ~ '^[A-Za-z0-9_=+-][A-Za-z0-9_=+.-]{0,14}$';

-- names of agents, each once
CREATE FUNCTION ch_agents(v text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN cardinality(v) BETWEEN 1 AND 100 AND array_ndims(v) = 1
       AND NOT EXISTS (SELECT FROM unnest(v) e WHERE (charliehub.ch_name(e) AND e !~ '@') IS NOT TRUE)
       AND (SELECT count(DISTINCT e) = count(*) FROM unnest(v) e);
END $$;

-- addresses, not networks, each once
CREATE FUNCTION ch_single(v cidr[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN cardinality(v) BETWEEN 1 AND 100 AND array_ndims(v) = 1
       AND NOT EXISTS (SELECT FROM unnest(v) e
                        WHERE (masklen(e) = CASE family(e) WHEN 4 THEN 32 ELSE 128 END) IS NOT TRUE)
       AND (SELECT count(DISTINCT e) = count(*) FROM unnest(v) e);
END $$;

CREATE FUNCTION ch_addresses(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(v) IS DISTINCT FROM 'array' OR jsonb_array_length(v) > 100 THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM jsonb_array_elements(v) e
                        WHERE (jsonb_typeof(e) = 'string' AND charliehub.ch_address(e #>> '{}')) IS NOT TRUE);
END $$;

-- [{"interface": "wg-clients", "public_key": "..", "endpoint": "vpn.example.org:51820", "addresses": ["10.99.0.1/24"], ..}, ..]
CREATE FUNCTION ch_vpn(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF v IS NULL THEN
        RETURN true;
    END IF;
    IF jsonb_typeof(v) <> 'array' OR jsonb_array_length(v) > 100 THEN
        RETURN false;
    END IF;
    IF EXISTS (
        SELECT FROM jsonb_array_elements(v) i
         WHERE (charliehub.ch_keys(i, '{interface,public_key,endpoint,addresses,routes,dns,listen_port,mtu}')
                AND jsonb_typeof(i -> 'interface') = 'string' AND charliehub.ch_interface(i ->> 'interface')
                AND jsonb_typeof(i -> 'public_key') = 'string' AND charliehub.ch_wireguard_key(i ->> 'public_key')
                AND jsonb_typeof(i -> 'endpoint') = 'string' AND charliehub.ch_endpoint(i ->> 'endpoint')
                AND charliehub.ch_networks(i -> 'addresses', true) AND jsonb_array_length(i -> 'addresses') > 0
                AND (NOT i ? 'routes' OR charliehub.ch_networks(i -> 'routes', false))
                AND (NOT i ? 'dns' OR charliehub.ch_addresses(i -> 'dns'))
                AND (NOT i ? 'listen_port' OR charliehub.ch_int(i -> 'listen_port', 1, 65535))
                AND (NOT i ? 'mtu' OR charliehub.ch_int(i -> 'mtu', 576, 65535))) IS NOT TRUE)
    THEN
        RETURN false;
    END IF;
    RETURN (SELECT count(DISTINCT i ->> 'interface') = count(*) FROM jsonb_array_elements(v) i);
END $$;

-- what a host must have: the fields of proto::policy::Policy
CREATE OR REPLACE FUNCTION ch_policy(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    firewall jsonb := v -> 'firewall';
BEGIN
    RETURN (charliehub.ch_keys(v, '{firewall,files,units,containers,gateways,disks,recent,certificates,vpn}')
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
             OR charliehub.ch_fields(v -> 'certificates', '{}', '{}', '{names,except,files}', '{allow_staging}', '{}'))
        AND charliehub.ch_vpn(v -> 'vpn')) IS TRUE;
END $$;

-- ---- peers --------------------------------------------------------------------------------------------------------

CREATE TABLE peers (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text COLLATE "C" NOT NULL,
    agents      text[] COLLATE "C" NOT NULL DEFAULT '{hub2}',  -- on the hubs that let it in
    interface   text COLLATE "C" NOT NULL DEFAULT 'wg-clients',  -- on these hubs
    public_key  text COLLATE "C" NOT NULL,
    addresses   cidr[] NOT NULL,
    notes       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     bigint NOT NULL DEFAULT 0,

    CONSTRAINT peers_name_unique
        UNIQUE (name),
    CONSTRAINT peers_name_valid
        CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$'),
    CONSTRAINT peers_agents_valid
        CHECK (ch_agents(agents)),
    CONSTRAINT peers_interface_valid
        CHECK (ch_interface(interface)),
    CONSTRAINT peers_public_key_unique
        UNIQUE (public_key),
    CONSTRAINT peers_public_key_valid
        CHECK (ch_wireguard_key(public_key)),
    CONSTRAINT peers_addresses_valid
        CHECK (ch_single(addresses)),
    CONSTRAINT peers_notes_valid
        CHECK (notes IS NULL OR ch_text(notes, 10000))
);

-- a writer holds the revision lock, so nobody adds another peer meanwhile
CREATE FUNCTION ch_peers_apart() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = charliehub, pg_temp AS $$
DECLARE
    clash record;
BEGIN
    SELECT a.name, x.net, b.name AS other INTO clash
      FROM new_rows a CROSS JOIN LATERAL unnest(a.addresses) x(net)
      JOIN (SELECT p.id, p.name, y.net FROM peers p CROSS JOIN LATERAL unnest(p.addresses) y(net)) b
        ON b.net = x.net AND b.id <> a.id
     ORDER BY a.name, x.net LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'address % of peer % is that of peer %', host(clash.net), clash.name, clash.other
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'peers_addresses_apart', COLUMN = 'addresses',
                  TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
                  HINT = 'an address leads to one peer: give this one another, or remove the other first';
    END IF;
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION ch_peers_apart() FROM PUBLIC;

DO $$
DECLARE
    d text;
BEGIN
    FOREACH d IN ARRAY ARRAY[
        'a_lock BEFORE INSERT OR UPDATE OR DELETE ON peers FOR EACH STATEMENT EXECUTE FUNCTION ch_lock()',
        'b_stamp BEFORE INSERT OR UPDATE ON peers FOR EACH ROW EXECUTE FUNCTION ch_stamp(''id'')',
        'c_insert AFTER INSERT ON peers REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
        'c_update AFTER UPDATE ON peers REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
        'c_delete AFTER DELETE ON peers REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION ch_record(''id'')',
        'd_truncate BEFORE TRUNCATE ON peers FOR EACH STATEMENT EXECUTE FUNCTION ch_truncate(''id'')',
        'e_apart_insert AFTER INSERT ON peers REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION ch_peers_apart()',
        'e_apart_update AFTER UPDATE ON peers REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION ch_peers_apart()'
    ] LOOP
        EXECUTE 'CREATE TRIGGER ' || d;
        EXECUTE format('ALTER TABLE peers ENABLE ALWAYS TRIGGER %I', split_part(d, ' ', 1));
    END LOOP;
END $$;

CREATE FUNCTION peers_as_of(r bigint) RETURNS SETOF peers
LANGUAGE sql STABLE SET search_path = charliehub, pg_temp AS $$
    SELECT p.* FROM ch_as_of('peers', r) j, jsonb_populate_record(NULL::peers, j) p
$$;

CREATE OR REPLACE FUNCTION ch_row_name(t text, v jsonb) RETURNS text IMMUTABLE
RETURN CASE t
    WHEN 'domains' THEN (v ->> 'domain') || CASE v ->> 'path_prefix' WHEN '/' THEN '' ELSE v ->> 'path_prefix' END
    WHEN 'sites' THEN 'site ' || (v ->> 'name')
    WHEN 'policies' THEN 'policy of ' || (v ->> 'agent')
    WHEN 'peers' THEN 'peer ' || (v ->> 'name')
    ELSE (v ->> 'kind') || '/' || (v ->> 'name')
END;

-- ---- rights -------------------------------------------------------------------------------------------------------

ALTER FUNCTION grant_rights() RENAME TO grant_rights_until_14;
REVOKE ALL ON FUNCTION grant_rights_until_14() FROM PUBLIC;

CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = charliehub, pg_temp AS $$
DECLARE
    r text;
BEGIN
    PERFORM grant_rights_until_14();
    FOREACH r IN ARRAY '{charliehub_reader,charliehub_editor,charliehub_app}'::text[] LOOP
        CONTINUE WHEN to_regrole(r) IS NULL;
        EXECUTE format('GRANT SELECT ON peers TO %I', r);
        IF r IN ('charliehub_editor', 'charliehub_app') THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON peers TO %I', r);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION grant_rights() FROM PUBLIC;

SELECT grant_rights();
