//! Makes tokens, and reads the living ones: 32 random bytes, of which the database only has the SHA-256.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rand::Rng as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, GenericClient, types::Json};
use uuid::Uuid;

use super::{Caller, Error, Role, Scope, Token, file::write_private};

/// SHA-256 of a token's text. A lookup by it tells nothing about the token: whoever could steer it could invert SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub(super) fn text(self) -> String {
        base64url(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}", base64url(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unbase64url(&text).map(Self).ok_or_else(|| de::Error::custom("not a hash"))
    }
}

/// A new token. Its text is shown once and kept nowhere.
#[derive(Debug)]
pub struct Made {
    pub id: Uuid,
    pub text: String,
}

/// What a new token is to be.
#[derive(Debug)]
pub struct New<'n> {
    pub name: &'n str,
    pub role: Role,
    pub subject: Option<&'n str>,
    pub expires_at: Option<Timestamp>,
    pub scope: &'n Scope,
}

impl New<'_> {
    /// What the audit says of it.
    pub fn detail(&self, id: Uuid) -> Value {
        json!({ "id": id, "name": self.name, "role": self.role, "subject": self.subject, "scope": self.scope,
                "expires_at": self.expires_at })
    }
}

/// What of a new token the database refused, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    pub field: &'static str,
    pub rule: &'static str,
    pub remedy: &'static str,
}

/// Reads a constraint of `tokens` as our words.
pub fn broken_rule(error: &tokio_postgres::Error) -> Option<Broken> {
    let (field, rule, remedy) = match error.as_db_error()?.constraint()? {
        "tokens_name_valid" => (
            "name",
            "a name is plain text of at most 200 bytes, without back-ticks and control characters",
            "name whose token it is",
        ),
        "tokens_agent_subject" => {
            ("subject", "a token of role `agent` speaks for one agent", "give `subject`, the agent's name")
        }
        "tokens_scope_valid" => (
            "scope",
            "a scope lists names such as a.example.org or *.example.org, owners, sites; no list is empty",
            "write {\"domains\": [\"*.example.org\"]}, and leave out what does not limit",
        ),
        "tokens_scope_role" => (
            "scope",
            "only roles `reader` and `editor` can have a scope",
            "choose one of these, or leave the scope out",
        ),
        _ => return None,
    };
    Some(Broken { field, rule, remedy })
}

/// Makes a token without limits in the database.
pub async fn make(
    client: &impl GenericClient,
    name: &str,
    role: Role,
    subject: Option<&str>,
    expires_at: Option<Timestamp>,
) -> Result<Made, tokio_postgres::Error> {
    make_new(client, &New { name, role, subject, expires_at, scope: &Scope::default() }).await
}

/// Makes a token in the database: `ch_` and 32 random bytes in base64url.
pub async fn make_new(client: &impl GenericClient, new: &New<'_>) -> Result<Made, tokio_postgres::Error> {
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let text = format!("ch_{}", base64url(&random));
    let row = client
        .query_one(
            "INSERT INTO tokens (name, role, subject, hash, expires_at, scope) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            &[
                &new.name,
                &new.role.as_str(),
                &new.subject,
                &Hash::of(&text).0.as_slice(),
                &new.expires_at,
                &Json(new.scope),
            ],
        )
        .await?;
    Ok(Made { id: row.try_get("id")?, text })
}

/// True for the text of a token that is neither revoked nor expired.
pub async fn lives(client: &impl GenericClient, text: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT EXISTS (SELECT FROM tokens WHERE hash = $1 AND revoked_at IS NULL
               AND (expires_at IS NULL OR expires_at > now()))";
    client.query_one(sql, &[&Hash::of(text).0.as_slice()]).await?.try_get(0)
}

/// Revokes a living token; false when there is none of this id.
pub async fn revoke(client: &impl GenericClient, id: Uuid) -> Result<bool, tokio_postgres::Error> {
    let sql = "UPDATE tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL";
    Ok(client.execute(sql, &[&id]).await? > 0)
}

/// Makes the first admin token and writes it to `<data-dir>/admin.token`, unless an admin token lives. Some: the file.
///
/// The file is written before the commit: a token that nobody can read is never left behind.
pub async fn ensure_admin(client: &mut Client, data_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let transaction = client.transaction().await?;
    // Of two providers that start at once one makes it. The list itself stays readable.
    transaction.batch_execute("LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE").await?;
    let living = "SELECT EXISTS (SELECT FROM tokens WHERE role = 'admin' AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > now()))";
    if transaction.query_one(living, &[]).await?.try_get(0)? {
        return Ok(None);
    }
    let path = data_dir.join("admin.token");
    let made = make(&transaction, "first admin", Role::Admin, None, None).await?;
    write_private(&path, format!("{}\n", made.text).as_bytes())
        .map_err(|source: io::Error| Error::Write { path: path.clone(), source })?;
    transaction.commit().await?;
    Ok(Some(path))
}

/// The tokens that are neither revoked nor expired. A role that this build does not know is left out.
pub(super) async fn living(client: &Client) -> Result<Vec<Token>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT id, name, role, subject, hash, expires_at, scope FROM tokens
              WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AND role = ANY($1)",
            &[&Role::LABELS.as_slice()],
        )
        .await?;
    let mut tokens = Vec::with_capacity(rows.len());
    for row in rows {
        let (Ok(role), Ok(hash)) =
            (row.try_get::<_, &str>("role")?.parse(), row.try_get::<_, &[u8]>("hash")?.try_into())
        else {
            continue;
        };
        // A scope that this build does not understand would be no limit: such a token is left out.
        let Ok(Json(scope)) = row.try_get::<_, Json<Scope>>("scope") else { continue };
        let (id, name, subject) = (row.try_get("id")?, row.try_get("name")?, row.try_get("subject")?);
        let caller = Caller { id, name, role, subject, scope, certified: false };
        tokens.push(Token { hash: Hash(hash), caller, expires_at: row.try_get("expires_at")?, used: false.into() });
    }
    Ok(tokens)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(43);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let index = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or_default();
            text.extend(ALPHABET.get(index).map(|letter| char::from(*letter)));
        }
    }
    text
}

fn unbase64url(text: &str) -> Option<[u8; 32]> {
    let (mut bytes, mut group, mut bits) = (Vec::with_capacity(32), 0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        group = group << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(group >> bits & 255).ok()?);
            group &= (1 << bits) - 1;
        }
    }
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_the_rfc() {
        let mut bytes = [0; 32];
        bytes[..6].copy_from_slice(&[0x14, 0xfb, 0x9c, 0x03, 0xd9, 0x7e]);
        let text = base64url(&bytes);
        assert!(text.starts_with("FPucA9l-") && text.len() == 43, "{text}");
        assert_eq!(unbase64url(&text), Some(bytes));
        assert_eq!(base64url(&[255; 32]), format!("{}8", "_".repeat(42)));
        assert_eq!(unbase64url("short"), None);
        assert_eq!(unbase64url("ä"), None);
    }
}
