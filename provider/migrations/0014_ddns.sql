-- Where the sites' packets come from, and what is needed to let DNS follow that quickly.
--
-- What DDNS did is in the audit: ddns.change before a change, ddns.changed or ddns.failed behind it with the id of the first.
-- An operator's hold is there too: of ddns.hold and ddns.release the newer one counts.

ALTER TABLE agents ADD COLUMN endpoints jsonb NOT NULL DEFAULT '[]';  -- as the last report said

CREATE INDEX domains_ddns ON domains (domain) WHERE dns_mode = 'ddns';
CREATE INDEX audit_events_ddns ON audit_events (id) WHERE kind LIKE 'ddns.%';
