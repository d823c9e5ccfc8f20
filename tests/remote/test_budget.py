"""Money for requests: the cap holds whatever is under way, and nobody waits for nothing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.remote.budget import Account, Budget


@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 1.0)), max_size=30), st.floats(1e-6, 3.0))
def test_a_budget_never_passes_its_cap_and_never_waits_for_nobody(costs, cap):
    async def one(budget, most, share):
        if not await budget.reserve(most):
            return False
        assert budget.total_cost + most <= cap
        await asyncio.sleep(0)
        await budget.charge(most, most * share)
        return True

    async def all_of_them():
        budget = Budget(cap)
        async with asyncio.timeout(5):
            done = await asyncio.gather(*[one(budget, most, share) for most, share in costs])
        assert budget.total_cost <= cap * (1 + 1e-9)
        assert all(done) or sum(most for most, _ in costs) > cap * (1 - 1e-9)

    asyncio.run(all_of_them())


def test_an_account_tells_its_own_cost_once():
    async def run():
        budget = Budget(None)
        mine, other = Account(budget), Account(budget)
        for account, cost in ((mine, 0.25), (other, 8.0), (mine, 0.5)):
            assert await account.reserve(10.0)
            await account.charge(10.0, cost)
        return budget.total_cost, mine.take_new_cost(), mine.take_new_cost(), other.take_new_cost()

    assert asyncio.run(run()) == pytest.approx((8.75, 0.75, 0.0, 8.0))
