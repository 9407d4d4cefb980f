"""The tables of the book.  What a row says stands packed in its body; the columns are what is looked for."""

import sqlite_utils

TABLES = """
CREATE TABLE IF NOT EXISTS link (sid TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identifier (key TEXT PRIMARY KEY, customer TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS customer (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS agent (sid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS backlog
    (number INTEGER PRIMARY KEY AUTOINCREMENT, ext_id TEXT NOT NULL, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS position (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, retelling INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS mapping (hash TEXT PRIMARY KEY, config BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS erasure (id TEXT PRIMARY KEY, done BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS interaction_due ON interaction (due_ms) WHERE due_ms > 0;
CREATE INDEX IF NOT EXISTS backlog_of ON backlog (ext_id);
INSERT OR IGNORE INTO position VALUES (1, 0, 0);
"""


def create(database: sqlite_utils.Database) -> None:
    """Make what is not there yet."""
    database.table("interaction").create(
        {
            "key": str, "anchor": str, "channel": str, "start_ms": int, "handled": int, "abandoned": int,
            "wait_ms": int, "handle_ms": int, "open_tasks": int, "score": float, "score_ms": int,
            "due_ms": int, "body": bytes,
        },
        pk="key", if_not_exists=True,
    )  # fmt: skip
    database.table("interaction").create_index(["anchor"], if_not_exists=True)
    database.conn.executescript(TABLES)
    database.table("identifier").create_index(["customer"], if_not_exists=True)
