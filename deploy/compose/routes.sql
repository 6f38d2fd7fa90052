-- The rows of the hub itself: what its compose file runs, by the names of its containers. Once, when the provider is up:
--   charliehub-provider psql -- -v ON_ERROR_STOP=1 < deploy/compose/routes.sql
-- A row that is there already stays as it is.
INSERT INTO domains (domain, access_tier, auth_required, backend_host, backend_port, notes) VALUES
  ('auth.charliehub.net',       'public',   false, 'authelia',     9091, 'Authelia: where people log in'),
  ('docs.charliehub.net',       'public',   true,  'mkdocs',       8000, 'MkDocs'),
  ('files.charliehub.net',      'public',   true,  'filebrowser',  8080, 'FileBrowser'),
  ('unifi.charliehub.net',      'public',   true,  'unifi-api',    8002, 'UniFi API'),
  ('grafana.charliehub.net',    'internal', true,  'grafana',      3000, 'Grafana'),
  ('prometheus.charliehub.net', 'internal', true,  'prometheus',   9090, 'Prometheus, on the host: 172.19.0.1'),
  ('alerts.charliehub.net',     'internal', true,  'alertmanager', 9093, 'Alertmanager')
ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint) DO NOTHING;

-- The provider itself, for operators: /debug. Its own tokens are asked for behind Authelia's login.
INSERT INTO domains (domain, access_tier, auth_required, backend_scheme, backend_host, backend_port, notes) VALUES
  ('domains.charliehub.net',    'internal', true,  'https', 'provider',   8001, 'charliehub-provider')
ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint) DO NOTHING;

INSERT INTO domains (domain, protocol, tcp_entrypoint, backend_host, backend_port, notes) VALUES
  ('mqtt.verdegris.eu', 'tcp', 'mqtt', 'mosquitto', 1883, 'LoRaWAN gateways; TLS ends at the edge')
ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint) DO NOTHING;
