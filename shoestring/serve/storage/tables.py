"""Tables of the service. Times are whole seconds since 1970, money is whole nanos: 1e-9 of the currency."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _account(**options: Any) -> Column[str]:
    """A column with the account that a row belongs to, and goes with."""
    return Column("account_id", String(40), ForeignKey("accounts.id", ondelete="CASCADE"), **options)


accounts = Table(
    "accounts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("email", String(254), unique=True),  # lower case; NULL once the person has left
    Column("password_hash", String(200)),  # NULL: no password, as for sign-in by another service
    Column("role", String(10), nullable=False),  # user, admin
    Column("created_s", BigInteger, nullable=False),
    Column("email_checked_s", BigInteger),
    Column("disabled_s", BigInteger),
    Column("totp_nonce", String(40)),  # the secret is made from it and the server's secret
    Column("totp_step", BigInteger),  # the newest time step whose code was used; NULL before the first code
    Column("priority", String(20), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("max_concurrency", Integer),  # NULL: the service's default
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("day_cap", BigInteger),  # nanos; NULL: none
    Column("month_cap", BigInteger),
)

identities = Table(  # people as other services know them (OpenID Connect)
    "identities",
    metadata,
    Column("issuer", String(200), primary_key=True),
    Column("subject", String(200), primary_key=True),
    _account(nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(20), primary_key=True),
    _account(nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scope", String(20), nullable=False),  # inference, account, admin
    Column("created_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger),
    Column("revoked_s", BigInteger),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("day_cap", BigInteger),
    Column("month_cap", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    _account(nullable=False, index=True),
    Column("created_s", BigInteger, nullable=False),
    Column("seen_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
)

devices = (
    Table(  # browsers that an account has signed in from: a flood of wrong passwords cannot lock them out
        "devices",
        metadata,
        Column("digest", String(64), primary_key=True),
        _account(nullable=False, index=True),
        Column("expires_s", BigInteger, nullable=False),
    )
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("digest", String(64), primary_key=True),
    _account(nullable=False, index=True),
)

links = Table(  # one-time links: first_admin, invite, check_email, reset_password
    "links",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),
    _account(index=True),
    Column("email", String(254)),
    Column("expires_s", BigInteger, nullable=False),
)

balances = Table(
    "balances",
    metadata,
    Column("account_id", String(40), primary_key=True),  # stays when the person leaves: it is accounting
    Column("granted", BigInteger, nullable=False),
    Column("topped_up", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    CheckConstraint("granted >= 0", name="granted"),
    CheckConstraint("topped_up >= 0", name="topped_up"),
    CheckConstraint("held >= 0", name="held"),
)

operations = Table(
    "operations",
    metadata,
    Column("id", String(60), primary_key=True),
    Column("kind", String(10), nullable=False),  # usage, grant, top_up, correction
    Column("account_id", String(40), nullable=False),
    Column("key_id", String(20)),
    Column("server_id", String(40)),  # the process that answers
    Column("model", String(200)),
    Column("created_s", BigInteger, nullable=False),
    Column("ended_s", BigInteger),  # NULL: open
    Column("held", BigInteger, nullable=False),
    Column("cache_hit_price", BigInteger, nullable=False, server_default="0"),  # nanos per million tokens
    Column("cache_miss_price", BigInteger, nullable=False, server_default="0"),
    Column("output_price", BigInteger, nullable=False, server_default="0"),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cached_tokens", BigInteger, nullable=False, server_default="0"),
    Column("completion_tokens", BigInteger, nullable=False, server_default="0"),
    Column("charge", BigInteger, nullable=False, server_default="0"),
    Column("caps", String(300)),  # the rows of spending that hold it: OWNER/PERIOD, with spaces between
    Column("idempotency_key", String(64)),  # a digest
    Column("note", String(200)),
    UniqueConstraint("account_id", "idempotency_key"),
    Index(None, "ended_s", "server_id"),
    Index(None, "account_id", "created_s"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("operation_id", String(60), ForeignKey("operations.id"), nullable=False),
    Column(
        "book", String(60), nullable=False, index=True
    ),  # granted:ID, topped_up:ID, sales, grants, payments
    Column("amount", BigInteger, nullable=False),
    UniqueConstraint("operation_id", "book"),
)

spending = Table(  # against the caps of keys and accounts
    "spending",
    metadata,
    Column("owner_id", String(40), primary_key=True),  # a key or an account
    Column("period", String(10), primary_key=True),  # 2026-11-30 or 2026-11, UTC
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("day", String(10), primary_key=True),  # UTC
    Column("account_id", String(40), primary_key=True),
    Column("key_id", String(20), primary_key=True),  # empty for a session
    Column("model", String(200), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("missed_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("charge", BigInteger, nullable=False),
)

servers = Table(  # processes that answer, so that another can end what a dead one left open
    "servers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("started_s", BigInteger, nullable=False),
    Column("seen_s", BigInteger, nullable=False),
)

incident_notes = Table(  # rows are only ever added
    "incident_notes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("incident", BigInteger, nullable=False),  # its number; notes on one incident share it
    Column("time_s", BigInteger, nullable=False),
    Column("kind", String(10), nullable=False),  # begin, update, end
    Column("text", Text, nullable=False),
    Column("actor", String(40), nullable=False),  # `gate`, or the operator's account
)

gate_changes = Table(  # rows are only ever added
    "gate_changes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time_s", BigInteger, nullable=False),
    Column("old", String(20), nullable=False),  # open, proof_of_work, invite, closed
    Column("new", String(20), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("actor", String(40), nullable=False),
    Column("is_pinned", Integer, nullable=False),  # 1: the operator holds it
)


def _owner(**options: Any) -> Column[str]:
    """A column with the account of a row; the one person of a service without accounts has no row there."""
    return Column("account_id", String(40), nullable=False, **options)


def _of_chat() -> ForeignKeyConstraint:
    """The chat that a row belongs to, and goes with."""
    return ForeignKeyConstraint(
        ["account_id", "chat_id"], ["chats.account_id", "chats.id"], ondelete="CASCADE"
    )


chats = Table(  # times of chats are milliseconds: browsers give them
    "chats",
    metadata,
    _owner(primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("title", String(300), nullable=False),
    Column("folder", String(100)),
    Column("is_pinned", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("leaf", String(40)),  # the message at the end of the branch that is shown
    Column("num_bytes", BigInteger, nullable=False),  # with its messages
    Column("num_messages", Integer, nullable=False),
    Column("deleted_ms", BigInteger),  # NULL: it is there; else it is erased an hour later
    Column("settings", Text, nullable=False),  # JSON
    Column("folded", Text, nullable=False),  # the title, case-folded, for the search
    Index(None, "deleted_ms"),
)

messages = Table(
    "messages",
    metadata,
    _owner(primary_key=True),
    Column("chat_id", String(40), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("parent", String(40)),
    Column("role", String(10), nullable=False),  # user, assistant
    Column("model", String(200)),
    Column("created_ms", BigInteger, nullable=False),
    Column("finish_reason", String(20)),
    Column("server_id", String(40), index=True),  # the process that writes it now; NULL: none
    Column("num_bytes", BigInteger, nullable=False),
    Column("error", Text),
    Column("figures", Text, nullable=False),  # JSON
    Column("attachments", Text, nullable=False),  # JSON
    Column("content", Text, nullable=False),
    Column("reasoning_content", Text, nullable=False),
    Column("folded", Text, nullable=False),  # the content, case-folded, for the search
    _of_chat(),
    Index(None, "account_id", "server_id"),
)

shares = Table(  # branches of chats as they were, for whoever has the link
    "shares",
    metadata,
    Column("token", String(40), primary_key=True),
    _owner(),
    Column("chat_id", String(40), nullable=False),
    Column("title", String(300), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("content", Text, nullable=False),  # JSON
    _of_chat(),
    Index(None, "account_id", "chat_id"),
)

memory = Table(  # accounts that let facts about them be kept
    "memory",
    metadata,
    _owner(primary_key=True),
    Column("is_on", Integer, nullable=False),
)

memory_facts = Table(
    "memory_facts",
    metadata,
    _owner(primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

translation_resources = Table(  # glossaries and style rules
    "translation_resources",
    metadata,
    Column("id", String(36), primary_key=True),
    _owner(index=True),
    Column("kind", String(10), nullable=False),  # glossary, style
    Column("created_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("content", Text, nullable=False),  # JSON
)

translation_usage = Table(
    "translation_usage",
    metadata,
    _owner(primary_key=True),
    Column("month", String(7), primary_key=True),  # UTC
    Column("characters", BigInteger, nullable=False),
    Column("documents", BigInteger, nullable=False),
)

admin_actions = Table(  # rows are only ever added
    "admin_actions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time_s", BigInteger, nullable=False),
    Column("actor", String(40), nullable=False),  # an admin's account, or `operator`
    Column("action", String(20), nullable=False),
    Column("account_id", String(40), index=True),  # whom it is about; stays when the person leaves
    Column("detail", String(300), nullable=False),
)
