#!/bin/sh
# Roles and databases of the hub, when PostgreSQL's data directory is made: the image runs it once. By hand, for a server
# that is there already (as its superuser, with PGHOST and its like): SECRETS=DIR deploy/compose/postgres-init.sh
#
# Each owner has its own database, and nobody else may connect to it; the exporter may read statistics. The passwords are
# read by psql itself, from files, so that they are on no command line.
set -eu

psql -X -q -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres -v secrets="${SECRETS:-/run/secrets}" <<'SQL'
\set provider_file :secrets/provider_database_password
\set authelia_file :secrets/authelia_storage_password
\set exporter_file :secrets/exporter_database_password
\set provider `cat :'provider_file'`
\set authelia `cat :'authelia_file'`
\set exporter `cat :'exporter_file'`
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SELECT :'provider' <> '' AND :'authelia' <> '' AND :'exporter' <> '' AS given \gset
\if :given
\else
  \warn a password is empty: see the files in :secrets
  SELECT 1 / 0;
\endif
CREATE ROLE charliehub LOGIN PASSWORD :'provider';
CREATE ROLE authelia LOGIN PASSWORD :'authelia';
CREATE ROLE postgres_exporter LOGIN PASSWORD :'exporter' IN ROLE pg_monitor;
CREATE DATABASE charliehub_domains OWNER charliehub;
CREATE DATABASE authelia OWNER authelia;
REVOKE CONNECT ON DATABASE charliehub_domains, authelia FROM PUBLIC;
GRANT CONNECT ON DATABASE charliehub_domains TO postgres_exporter;
SQL
