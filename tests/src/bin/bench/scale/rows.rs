//! Rows as a platform with customers' domains has them: names that nobody sorted, made by the database itself.

use crate::routes::SWITCH;

/// `bench_name(n)`: a name for each number, the same on every machine, at random among all names.
pub(super) const NAMES: &str = "
    CREATE FUNCTION public.bench_name(n bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$
      SELECT (ARRAY['', '', '', 'www.', 'shop.', 'app.', 'blog.', 'my.'])[1 + get_byte(h, 10) % 8]
        || s[1 + get_byte(h, 0) % 64] || s[1 + get_byte(h, 1) % 64] || s[1 + get_byte(h, 2) % 64]
        || s[1 + get_byte(h, 3) % 64] || (ARRAY['', '', '-'])[1 + get_byte(h, 9) % 3]
        || s[1 + get_byte(h, 4) % 64] || s[1 + get_byte(h, 5) % 64] || s[1 + get_byte(h, 6) % 64]
        || (ARRAY['.com', '.com', '.com', '.org', '.net', '.de', '.co.uk', '.io'])[1 + get_byte(h, 8) % 8]
        FROM (SELECT decode(md5(n::text), 'hex') AS h) x,
             (SELECT string_to_array('ba be bi bo bu da de di do du fa fe fi fo ga ge gi go gu ha he hi ho ja jo ka ke ki '
              'ko ku la le li lo lu ma me mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so ta te ti to tu va',
              ' ') AS s) y
    $$";

/// One row whose backend the benches change.
pub(super) fn switch() -> String {
    format!(
        "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
         VALUES ('{SWITCH}', 'default', '127.0.0.1', 1)"
    )
}

/// Rows `from` to `to`, all with one backend.
pub(super) fn insert(from: u32, to: u32, port: u16) -> String {
    insert_with(from, to, "'default'", "'127.0.0.1'", port)
}

/// The same with other expressions for how its certificate comes and for the host of the backend.
pub(super) fn insert_with(from: u32, to: u32, tls: &str, host: &str, port: u16) -> String {
    format!(
        "INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port)
         SELECT public.bench_name(n), {tls}, {host}, {port} FROM generate_series({from}, {to}) n"
    )
}

/// Names of some of the first `rows`, spread over all of them.
pub(super) fn some(rows: u32) -> String {
    format!("SELECT DISTINCT public.bench_name(1 + n * 7919::bigint % {rows}) FROM generate_series(1, 500) n")
}
