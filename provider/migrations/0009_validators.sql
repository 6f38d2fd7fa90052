-- The validators of JSON and lists again, as they were, in a language whose plans a session keeps.
--
-- PostgreSQL plans the CHECKs of a table again for each statement, and a body in SQL becomes part of that plan: with
-- subqueries in them these six took half of the processor time of a single INSERT. In PL/pgSQL a body is planned once.
--
--  * What may stand in a row is what it was: no row is looked at again.
--  * Names are qualified, so that the bodies work whatever the caller's search_path, and a dump restores.

CREATE OR REPLACE FUNCTION ch_backends(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE
        WHEN jsonb_typeof(v) <> 'array' THEN false
        WHEN v = '[]' THEN true
        WHEN jsonb_array_length(v) > 100 THEN false
        ELSE NOT EXISTS (
                SELECT FROM jsonb_array_elements(v) b
                 WHERE (charliehub.ch_keys(b, '{host,port,scheme,weight}')
                        AND jsonb_typeof(b -> 'host') = 'string' AND charliehub.ch_host(b ->> 'host')
                        AND charliehub.ch_int(b -> 'port', 1, 65535)
                        AND (NOT b ? 'weight' OR charliehub.ch_int(b -> 'weight', 0, 10000))
                        AND (NOT b ? 'scheme' OR (b ->> 'scheme' IN ('http', 'https', 'h2c')) IS TRUE)) IS NOT TRUE)
            AND (SELECT count(DISTINCT (b -> 'host', b -> 'port')) FROM jsonb_array_elements(v) b) = jsonb_array_length(v)
            AND EXISTS (SELECT FROM jsonb_array_elements(v) b WHERE b -> 'weight' IS DISTINCT FROM '0'::jsonb)
    END;
END $$;

CREATE OR REPLACE FUNCTION ch_rate_limit(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (charliehub.ch_keys(v, '{average,burst,period}')
        AND charliehub.ch_int(v -> 'average', 1, 1000000)
        AND (NOT v ? 'burst' OR charliehub.ch_int(v -> 'burst', 1, 1000000))
        AND (NOT v ? 'period' OR charliehub.ch_duration(v -> 'period'))) IS TRUE;
END $$;

CREATE OR REPLACE FUNCTION ch_health_check(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (charliehub.ch_keys(v, '{path,interval,timeout,port,hostname}')
        AND jsonb_typeof(v -> 'path') = 'string' AND charliehub.ch_path(v ->> 'path')
        AND (NOT v ? 'interval' OR charliehub.ch_duration(v -> 'interval'))
        AND (NOT v ? 'timeout' OR charliehub.ch_duration(v -> 'timeout'))
        AND (NOT v ? 'port' OR charliehub.ch_int(v -> 'port', 1, 65535))
        AND (NOT v ? 'hostname' OR charliehub.ch_host(v ->> 'hostname'))) IS TRUE;
END $$;

CREATE OR REPLACE FUNCTION ch_sticky(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (charliehub.ch_keys(v, '{cookie,secure,http_only,same_site}')
        AND jsonb_typeof(v -> 'cookie') = 'string' AND v ->> 'cookie' ~ '^[A-Za-z0-9_.-]{1,64}$'
        AND (NOT v ? 'secure' OR jsonb_typeof(v -> 'secure') = 'boolean')
        AND (NOT v ? 'http_only' OR jsonb_typeof(v -> 'http_only') = 'boolean')
        AND (NOT v ? 'same_site' OR v ->> 'same_site' IN ('none', 'lax', 'strict'))) IS TRUE;
END $$;

CREATE OR REPLACE FUNCTION ch_labels(v jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE
        WHEN jsonb_typeof(v) <> 'object' THEN false
        WHEN v = '{}' THEN true
        ELSE (SELECT count(*) <= 64
                 AND bool_and((jsonb_typeof(l.value) = 'string' AND charliehub.ch_name(l.key)
                               AND charliehub.ch_text(l.value #>> '{}', 1024)) IS TRUE)
                FROM jsonb_each(v) l)
    END;
END $$;

CREATE OR REPLACE FUNCTION ch_names(v text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN cardinality(v) <= 32
       AND coalesce(array_ndims(v), 1) = 1
       AND NOT EXISTS (SELECT FROM unnest(v) e WHERE charliehub.ch_name(e) IS NOT TRUE)
       AND (SELECT count(DISTINCT e) FROM unnest(v) e) = cardinality(v);
END $$;
