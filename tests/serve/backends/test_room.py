from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.backends.room import Resident, to_unload

RESIDENTS = st.lists(
    st.builds(
        Resident,
        name=st.text(max_size=4),
        num_bytes=st.integers(0, 20),
        is_idle=st.booleans(),
        last_use_s=st.floats(0, 9),
    ),
    max_size=7,
    unique_by=lambda resident: resident.name,
)


@given(RESIDENTS, st.integers(0, 60), st.integers(-5, 40))
def test_it_frees_enough_and_nothing_that_is_used_or_needless(residents, need, free):
    names = to_unload(residents, need, free)
    idle = {each.name: each.num_bytes for each in residents if each.is_idle}
    if names is None:
        assert free + sum(idle.values()) < need
        return
    assert set(names) <= idle.keys()
    gained = sum(idle[name] for name in names)
    assert free + gained >= need
    assert all(free + gained - idle[name] < need for name in names)


@given(st.lists(st.floats(0, 9), min_size=1, unique=True), st.data())
def test_of_equal_models_the_one_out_of_use_for_longest_goes(times, data):
    residents = [
        Resident(name=str(time), num_bytes=1, is_idle=True, last_use_s=time)
        for time in data.draw(st.permutations(times))
    ]
    assert to_unload(residents, 1, 0) == [str(min(times))]
