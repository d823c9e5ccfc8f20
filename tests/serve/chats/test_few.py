"""Few pieces of heavy work are done at the same time, and nobody fills the places of the others."""

import asyncio

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.few import FewAtOnce


def test_an_account_waits_with_few_and_the_others_come_in():
    async def main():
        few, ends, order = FewAtOnce(1, 2, "searches"), asyncio.Event(), []

        async def work(account_id):
            async with few.turn(account_id):
                order.append(account_id)
                await ends.wait()

        tasks = [asyncio.create_task(work(account_id)) for account_id in ("ada", "ada", "bob")]
        await asyncio.sleep(0)
        assert order == ["ada"]
        with pytest.raises(RequestError, match="2 searches of yours are under way; wait for one to end"):
            await work("ada")
        tasks[1].cancel()  # a client that leaves gives its place back
        await asyncio.sleep(0)
        last = asyncio.create_task(work("ada"))
        ends.set()
        await asyncio.gather(*tasks, last, return_exceptions=True)
        assert order == ["ada", "bob", "ada"]
        assert not few._present

    asyncio.run(main())
