-- The types of a domain, and the functions that say whether a value may enter.
--
-- Everything that can reach a rule of Traefik is checked here, so that a row written with psql is as safe as one that
-- came through the API: no back-tick, quote, backslash or control character. Free text (notes, messages, labels) may
-- hold quotes, never a back-tick, control or bidi character.
--
-- The bodies are bound when they are defined (SQL standard), so they work whatever the caller's search_path, and a
-- dump restores. All return false, never NULL, for a value that is there: a CHECK passes on NULL.

-- ---- types --------------------------------------------------------------------------------------------------------

CREATE TYPE domain_protocol     AS ENUM ('http', 'tcp');
CREATE TYPE domain_service_type AS ENUM ('proxy', 'redirect', 'reference');  -- reference: a fragment's service, api@internal
CREATE TYPE domain_environment  AS ENUM ('production', 'staging', 'development', 'testing');
CREATE TYPE domain_status       AS ENUM ('draft', 'active', 'maintenance', 'disabled');
CREATE TYPE domain_access_tier  AS ENUM ('public', 'internal', 'restricted');  -- site networks; ip_allowlist
CREATE TYPE domain_tls_mode     AS ENUM ('acme', 'default', 'passthrough', 'none');
CREATE TYPE domain_dns_mode     AS ENUM ('external', 'static', 'ddns');

-- ---- names --------------------------------------------------------------------------------------------------------

-- a public name, at least two labels; *.a.org is a wildcard
CREATE FUNCTION ch_dns(v text) RETURNS boolean IMMUTABLE
RETURN octet_length(v) <= 253
   AND v ~ '^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$';

CREATE FUNCTION ch_ipv6(v text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN v !~ '[^0-9a-fA-F:.]' AND family(v::inet) = 6;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN false;
END $$;

-- where a backend is: a name (one label will do), an IPv4 or an IPv6 address
CREATE FUNCTION ch_host(v text) RETURNS boolean IMMUTABLE
RETURN CASE
    WHEN v IS NULL OR octet_length(v) NOT BETWEEN 1 AND 253 THEN false
    WHEN v ~ ':' THEN ch_ipv6(v)
    WHEN v ~ '(^|\.)[0-9]+$' THEN v ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.|$)){4}$'
    ELSE v ~ '^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$'
END;

-- starts with a slash, does not end with one, climbs nowhere
CREATE FUNCTION ch_path(v text) RETURNS boolean IMMUTABLE
RETURN octet_length(v) <= 1024
   AND v ~ '^/([A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$'
   AND v !~ '//'
   AND v !~ '/\.\.?(/|$)'
   AND (v = '/' OR v !~ '/$');

-- a name as Traefik has them, with its provider: authelia, api@internal
CREATE FUNCTION ch_name(v text) RETURNS boolean IMMUTABLE
RETURN v ~ '^[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?(@[a-z0-9]{1,32})?$';

-- free text: no back-tick, C0 or C1 control (tab and newline pass), line or paragraph separator, bidi override, BOM
CREATE FUNCTION ch_text(v text, max int) RETURNS boolean IMMUTABLE
RETURN octet_length(v) <= max
   AND v !~ '[`\u0001-\u0008\u000B-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069\uFEFF]';

-- ---- JSON ---------------------------------------------------------------------------------------------------------

CREATE FUNCTION ch_int(v jsonb, lo bigint, hi bigint) RETURNS boolean IMMUTABLE
RETURN CASE
    WHEN jsonb_typeof(v) = 'number' THEN v::numeric = trunc(v::numeric) AND v::numeric BETWEEN lo AND hi
    ELSE false
END;

CREATE FUNCTION ch_duration(v jsonb) RETURNS boolean IMMUTABLE
RETURN jsonb_typeof(v) = 'string' AND (v #>> '{}') ~ '^[1-9][0-9]{0,5}(ms|s|m|h)$';

CREATE FUNCTION ch_keys(v jsonb, allowed text[]) RETURNS boolean IMMUTABLE
RETURN CASE WHEN jsonb_typeof(v) = 'object' THEN v - allowed = '{}'::jsonb ELSE false END;

-- [{"host": "10.0.0.1", "port": 80, "scheme": "https", "weight": 3}, ..]: up to 100, each once, not all of weight 0
CREATE FUNCTION ch_backends(v jsonb) RETURNS boolean IMMUTABLE
RETURN CASE
    WHEN jsonb_typeof(v) <> 'array' THEN false
    WHEN v = '[]' THEN true
    WHEN jsonb_array_length(v) > 100 THEN false
    ELSE NOT EXISTS (
            SELECT FROM jsonb_array_elements(v) b
             WHERE (ch_keys(b, '{host,port,scheme,weight}')
                    AND jsonb_typeof(b -> 'host') = 'string' AND ch_host(b ->> 'host')
                    AND ch_int(b -> 'port', 1, 65535)
                    AND (NOT b ? 'weight' OR ch_int(b -> 'weight', 0, 10000))
                    AND (NOT b ? 'scheme' OR (b ->> 'scheme' IN ('http', 'https', 'h2c')) IS TRUE)) IS NOT TRUE)
        AND (SELECT count(DISTINCT (b -> 'host', b -> 'port')) FROM jsonb_array_elements(v) b) = jsonb_array_length(v)
        AND EXISTS (SELECT FROM jsonb_array_elements(v) b WHERE b -> 'weight' IS DISTINCT FROM '0'::jsonb)
END;

-- {"average": 100, "burst": 50, "period": "1s"}
CREATE FUNCTION ch_rate_limit(v jsonb) RETURNS boolean IMMUTABLE
RETURN (ch_keys(v, '{average,burst,period}')
    AND ch_int(v -> 'average', 1, 1000000)
    AND (NOT v ? 'burst' OR ch_int(v -> 'burst', 1, 1000000))
    AND (NOT v ? 'period' OR ch_duration(v -> 'period'))) IS TRUE;

-- {"path": "/health", "interval": "10s", "timeout": "3s", "port": 8080, "hostname": "app"}
CREATE FUNCTION ch_health_check(v jsonb) RETURNS boolean IMMUTABLE
RETURN (ch_keys(v, '{path,interval,timeout,port,hostname}')
    AND jsonb_typeof(v -> 'path') = 'string' AND ch_path(v ->> 'path')
    AND (NOT v ? 'interval' OR ch_duration(v -> 'interval'))
    AND (NOT v ? 'timeout' OR ch_duration(v -> 'timeout'))
    AND (NOT v ? 'port' OR ch_int(v -> 'port', 1, 65535))
    AND (NOT v ? 'hostname' OR ch_host(v ->> 'hostname'))) IS TRUE;

-- {"cookie": "node", "secure": true, "http_only": true, "same_site": "lax"}
CREATE FUNCTION ch_sticky(v jsonb) RETURNS boolean IMMUTABLE
RETURN (ch_keys(v, '{cookie,secure,http_only,same_site}')
    AND jsonb_typeof(v -> 'cookie') = 'string' AND v ->> 'cookie' ~ '^[A-Za-z0-9_.-]{1,64}$'
    AND (NOT v ? 'secure' OR jsonb_typeof(v -> 'secure') = 'boolean')
    AND (NOT v ? 'http_only' OR jsonb_typeof(v -> 'http_only') = 'boolean')
    AND (NOT v ? 'same_site' OR v ->> 'same_site' IN ('none', 'lax', 'strict'))) IS TRUE;

-- {"team": "web"}: up to 64
CREATE FUNCTION ch_labels(v jsonb) RETURNS boolean IMMUTABLE
RETURN CASE
    WHEN jsonb_typeof(v) <> 'object' THEN false
    WHEN v = '{}' THEN true
    ELSE (SELECT count(*) <= 64
             AND bool_and((jsonb_typeof(l.value) = 'string' AND ch_name(l.key) AND ch_text(l.value #>> '{}', 1024)) IS TRUE)
            FROM jsonb_each(v) l)
END;

-- ---- lists --------------------------------------------------------------------------------------------------------

CREATE FUNCTION ch_names(v text[]) RETURNS boolean IMMUTABLE
RETURN cardinality(v) <= 32
   AND coalesce(array_ndims(v), 1) = 1
   AND NOT EXISTS (SELECT FROM unnest(v) e WHERE ch_name(e) IS NOT TRUE)
   AND (SELECT count(DISTINCT e) FROM unnest(v) e) = cardinality(v);

-- no 0.0.0.0/0: who means everybody says public
CREATE FUNCTION ch_cidrs(v cidr[]) RETURNS boolean IMMUTABLE
RETURN cardinality(v) <= 1000
   AND coalesce(array_ndims(v), 1) = 1
   AND NOT EXISTS (SELECT FROM unnest(v) e WHERE e IS NULL OR masklen(e) = 0);

CREATE FUNCTION ch_private(v cidr[]) RETURNS boolean IMMUTABLE
RETURN NOT EXISTS (
    SELECT FROM unnest(v) e
     WHERE (e <<= ANY ('{10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,127.0.0.0/8,fc00::/7,::1/128}'::cidr[]))
           IS NOT TRUE);
