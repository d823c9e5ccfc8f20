"""Hosting: what a service needs that is for others too: a database, accounts, money and the gate."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from shoestring.durable import data_folder
from shoestring.errors import ConfigError
from shoestring.serve.accounts.accounts import Accounts, write_operator_file
from shoestring.serve.accounts.mail import mailer
from shoestring.serve.accounts.oidc import Provider
from shoestring.serve.accounts.secret import read_secret
from shoestring.serve.admission.address import Proxies
from shoestring.serve.admission.admission import Admission
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.config import ServiceConfig
from shoestring.serve.gate.gate import Gate
from shoestring.serve.gate.stored_records import StoredRecords
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.prices import PriceList, read_prices
from shoestring.serve.ledger.stripe import Payments, open_payments
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.engines import sqlite_file
from shoestring.serve.storage.lock import database_lock

log = logging.getLogger(__name__)

FORGET_EVERY_S = 3600
OPERATOR_FILE = "operator.json"


class Hosting:
    """The database of a service, and everything that stands on it. Start it on the service's event loop."""

    def __init__(
        self,
        accounts: Accounts,
        meter: Meter,
        admission: Admission,
        gate: Gate,
        *,
        folder: Path | None = None,
        lock: ExitStack | None = None,
        prices: str = "",
        payments: Payments | None = None,
    ) -> None:
        """`folder` is where the operator's command line finds the service; `lock`, closed at the end, keeps
        other processes from writing to its SQLite file; `prices` names the price list; without
        `payments` none are taken."""
        self.accounts, self.meter, self.admission, self.gate = accounts, meter, admission, gate
        self._folder, self._lock, self.price_source = folder, lock or ExitStack(), prices
        self.payments = payments
        self._forgetting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Show the first admin's link, and begin what goes on beside requests."""
        if self._folder is not None:
            key = self.accounts.authenticator.operator_key
            write_operator_file(self._folder / OPERATOR_FILE, self.accounts.url, key)
        link = await self.accounts.first_admin_link()
        if link is not None:
            sys.stdout.write(f"there is no admin yet; within a day, open {link}\n")
            sys.stdout.flush()
        self._forgetting = asyncio.create_task(self._forget())

    async def stop(self) -> None:
        """End what goes on beside requests, and close the database."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self.accounts.database.close()
        self.accounts.sign_in.passwords.close()
        if self.accounts.provider is not None:
            await self.accounts.provider.close()
        if self._folder is not None:
            (self._folder / OPERATOR_FILE).unlink(missing_ok=True)
        self._lock.close()

    def reload(self) -> None:
        """Read the price list, keys and accounts anew; a price list that cannot be read changes nothing."""
        self.accounts.authenticator.forget()
        try:
            self.read_prices()
        except ConfigError as error:
            log.error("the old prices stay: %s", error)

    def read_prices(self) -> None:
        """Read the price list anew. Raises ConfigError for one that cannot be read: the old one stays."""
        if self.price_source:
            self.meter.prices = read_prices(self.price_source)

    async def _forget(self) -> None:
        while True:
            with suppress(RequestError):  # the database may be away
                await self.accounts.forget_old()
            await asyncio.sleep(FORGET_EVERY_S)


def service_folder(config: ServiceConfig) -> Path:
    """The folder with the service's secret and, unless another one is named, its database."""
    return Path(config.data) if config.data else data_folder("service")


def database_url(config: ServiceConfig) -> str:
    """The URL of the service's database."""
    return config.database or f"sqlite:///{service_folder(config) / 'service.db'}"


def open_hosting(config: ServiceConfig, url: str, slots: Mapping[str, int]) -> Hosting:
    """The hosting that a configuration describes.

    `url` is where the service is reached; `slots`, how many requests each model here takes at once.
    A database that does not exist is made. Raises ConfigError for one with other tables than this version's,
    or one that another process has.
    """
    from shoestring.serve.storage.migrate import check_revision, migrate  # Alembic takes 0.15 s

    folder = service_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}; name another with --set data=") from None
    place = database_url(config)
    lock = ExitStack()
    lock.enter_context(database_lock(place))
    file = sqlite_file(place)
    if file is not None and not file.exists():
        migrate(place)
    else:
        check_revision(place)
    secret = read_secret(folder / "secret")
    database = Database(place)
    address = config.url or url
    provider = Provider(config.oidc, f"{address}/auth/oidc/callback") if config.oidc.issuer else None
    accounts = Accounts(database, secret, url=address, send=mailer(config.mail), provider=provider)
    prices = read_prices(config.prices) if config.prices else PriceList()
    admission = Admission(config.limits, slots=slots, proxies=Proxies(config.trusted_proxies))
    gate = Gate(StoredRecords(database), config.gate, admission=admission)
    meter = Meter(database, prices)
    return Hosting(
        accounts,
        meter,
        admission,
        gate,
        folder=folder,
        lock=lock,
        prices=config.prices,
        payments=open_payments(config.stripe),
    )
