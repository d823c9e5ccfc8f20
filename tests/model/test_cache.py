"""The dense cache: what is appended comes back, whole and in order."""

import pytest
import torch

from shoestring.model.cache import DenseCache, DenseLayerCache

SPEC = {"latent": (5,), "key": (2, 3)}
CPU = torch.device("cpu")


def layer(capacity: int = 8) -> DenseLayerCache:
    return DenseLayerCache(SPEC, batch=2, capacity=capacity, dtype=torch.float32, device=CPU)


def entries(length: int) -> dict[str, torch.Tensor]:
    return {name: torch.randn(2, length, *shape) for name, shape in SPEC.items()}


@pytest.mark.parametrize("lengths", [[8], [1] * 8, [3, 1, 4], [0, 2]])
def test_what_is_appended_comes_back(lengths: list[int]) -> None:
    cache, given = layer(), [entries(length) for length in lengths]
    for part in given:
        cache.append(**part)
    assert cache.length == sum(lengths)
    for name in SPEC:
        assert torch.equal(cache.entries[name], torch.cat([part[name] for part in given], dim=1))


def test_more_than_it_can_hold_is_refused_and_changes_nothing() -> None:
    cache = layer(capacity=4)
    cache.append(**entries(3))
    before = {name: tensor.clone() for name, tensor in cache.entries.items()}
    with pytest.raises(ValueError, match="5 tokens do not fit a cache for 4"):
        cache.append(**entries(2))
    assert cache.length == 3
    cache.append(**entries(1))
    assert all(torch.equal(before[name], cache.entries[name][:, :3]) for name in SPEC)


def test_a_cache_for_every_layer() -> None:
    cache = DenseCache([SPEC] * 3, batch=2, capacity=6, dtype=torch.bfloat16, device=CPU)
    assert (len(cache.layers), cache.capacity, cache.length) == (3, 6, 0)
    for layer_cache in cache.layers:
        layer_cache.append(**entries(2))
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in layer_cache.entries.items()} == {
            name: ((2, 2, *shape), torch.bfloat16) for name, shape in SPEC.items()
        }
    assert cache.length == 2
