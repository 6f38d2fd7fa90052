-- The two sites of the seed, behind hub2: what the internal tier lets in, and what the agent on hub2 holds reality against.
-- fr has its own tunnel first, and that of uk to stand by. Run again, it leaves sites that are there as they are.
-- Variables (psql -v NAME=KEY), each with a key that no site has: uk_key fr_key
\if :{?uk_key}
\else
  \set uk_key 'dWsgZG9lcyBub3QgaGF2ZSB0aGlzIGtleSB5ZXQgISE='
\endif
\if :{?fr_key}
\else
  \set fr_key 'ZnIgZG9lcyBub3QgaGF2ZSB0aGlzIGtleSB5ZXQgISE='
\endif
INSERT INTO sites (name, networks, tunnels, notes) VALUES
  ('uk', '{10.44.0.0/16}', jsonb_build_array(
    jsonb_build_object('interface', 'wg-uk', 'public_key', :'uk_key', 'allowed_ips', '["10.44.0.0/16", "10.254.44.2/32"]'::jsonb,
                       'keepalive', 25, 'rank', 1, 'peer_address', '10.254.44.2')), 'homelab UK'),
  ('fr', '{10.35.0.0/16}', jsonb_build_array(
    jsonb_build_object('interface', 'wg-fr', 'public_key', :'fr_key', 'allowed_ips', '["10.35.0.0/16", "10.254.35.2/32"]'::jsonb,
                       'keepalive', 25, 'rank', 1, 'peer_address', '10.254.35.2'),
    jsonb_build_object('interface', 'wg-uk', 'public_key', :'uk_key', 'allowed_ips', '["10.44.0.0/16", "10.254.44.2/32"]'::jsonb,
                       'keepalive', 25, 'rank', 2, 'peer_address', '10.254.44.2')), 'homelab FR, primary')
ON CONFLICT (name) DO NOTHING;
