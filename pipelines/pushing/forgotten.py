"""Hold back the people whom `forget` took out of a CRM's tables: to a plan they look like new ones.

Known by a digest of their address alone, made in SQL as `sources.core.privacy.keyed_digest` makes it.
"""

from hashlib import sha256

import duckdb

from pipelines.pushing.dismissals import renumber
from pipelines.pushing.matching import Target

FORGOTTEN = "forgotten"
_BLOCK = 64  # bytes, of SHA-256


def hold_forgotten(con: duckdb.DuckDBPyConnection, target: Target) -> None:
    """Hold back the new records of a plan that are of people who were forgotten."""
    names = {"connection": target.connection.name, "resource": target.write.resource}
    here = "connection = $connection and resource = $resource"
    listed = f"select key_digest from roundtrip.forgotten where {here}"
    if con.execute(f"{listed} and key_digest is not null limit 1", names).fetchone() is None:
        return
    con.execute(
        f"""
        update plan_rows set status = 'skipped', reason = '{FORGOTTEN}'
        where status = 'planned' and action = 'create'
            and {keyed_digest_sql("key", target.connection.hash_key)} in ({listed})
        """,
        names,
    )
    renumber(con)


def keyed_digest_sql(text: str, key: str) -> str:
    """Write the HMAC-SHA256 of a text that is trimmed and lower-cased already, in hex."""
    secret = key.encode()
    padded = (sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
    inner, outer = (f"unhex('{bytes(byte ^ mark for byte in padded).hex()}')" for mark in (0x36, 0x5C))
    return f"sha256({outer} || unhex(sha256({inner} || encode({text}))))"
