-- The sample routes of the quickstart: the shape of a hub, against small backends on loopback. No CA here, so tls_mode is
-- 'default'. Run again, it only points the rows at the backends of this run.
-- Variables (psql -v NAME=PORT): auth docs grafana prometheus unifi portal mqtt
INSERT INTO domains (domain, access_tier, auth_required, tls_mode, backend_host, backend_port, notes) VALUES
  ('auth.charliehub.net',       'public',   false, 'default', '127.0.0.1', :auth,       'Authelia'),
  ('docs.charliehub.net',       'public',   false, 'default', '127.0.0.1', :docs,       'MkDocs'),
  ('grafana.charliehub.net',    'internal', false, 'default', '127.0.0.1', :grafana,    'Grafana, for the site networks only'),
  ('prometheus.charliehub.net', 'internal', false, 'default', '127.0.0.1', :prometheus, 'Prometheus, for the site networks only'),
  ('unifi.charliehub.net',      'public',   true,  'default', '127.0.0.1', :unifi,      'UniFi API, behind Authelia'),
  ('*.trevarn.com',             'public',   false, 'default', '127.0.0.1', :portal,     'customer portals')
ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint)
  DO UPDATE SET backend_host = excluded.backend_host, backend_port = excluded.backend_port;

INSERT INTO domains (domain, protocol, tcp_entrypoint, tls_mode, backend_host, backend_port, notes) VALUES
  ('mqtt.verdegris.eu', 'tcp', 'mqtt', 'default', '127.0.0.1', :mqtt, 'LoRaWAN gateways; TLS ends at the edge')
ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint)
  DO UPDATE SET backend_host = excluded.backend_host, backend_port = excluded.backend_port;
