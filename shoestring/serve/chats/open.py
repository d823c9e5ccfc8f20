"""Open the store of chats that a configuration describes."""

from shoestring.serve.chats.store import ChatStore, LocalChatStore
from shoestring.serve.config import ServiceConfig
from shoestring.serve.hosting import Hosting, service_folder

FILE = "chats.db"
"""The database of the person on this machine, in the service's folder."""


def open_chats(config: ServiceConfig, hosting: Hosting | None) -> ChatStore | None:
    """The store of chats: in the service's database, or without accounts in a file of its own."""
    if not config.chats:
        return None
    if hosting is not None:
        return ChatStore(hosting.accounts.database, hosting.meter.server_id)
    return LocalChatStore(service_folder(config) / FILE)
