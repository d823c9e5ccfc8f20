import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import CheckpointError
from shoestring.train.state import flatten, load_state, save_state, unflatten

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.integers(-3, 3) | st.booleans() | st.text("a/~i1", max_size=3)


def tensors():
    shapes = st.sampled_from([(), (0,), (3,), (2, 0, 2), (2, 3)])
    dtypes = st.sampled_from(
        [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64]
    )
    return st.builds(lambda s, d: torch.randint(0, 2, s).to(d), shapes, dtypes)


TREES = st.recursive(
    SCALARS | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b) -> bool:
    """Equal in value, type, and bit pattern."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        )
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(x) is type(y) for x, y in zip(a, b, strict=True))
            and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def through_disk(tree, folder):
    save_state(folder / "trainer", *flatten(tree))
    return unflatten(*load_state(folder / "trainer"))


@settings(max_examples=60)
@given(TREES)
def test_any_tree_comes_back_exactly(tree):
    values, plain = flatten(tree)
    assert same(unflatten(values, json.loads(json.dumps(plain, allow_nan=False))), tree)


def test_tensors_come_back_bit_for_bit_from_disk(tmp_path):
    base = torch.arange(12.0)
    tree = {
        "nan": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "int64": torch.tensor([2**62 + 1, -(2**63)]),
        "uint8": torch.get_rng_state(),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "view": base[3:6],
        "shared": [base, base],
        "transposed": base.view(3, 4).T,
        "parameter": torch.nn.Parameter(torch.ones(2)).detach(),
    }
    assert same(through_disk(tree, tmp_path), tree)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trainer.json", "trainer.safetensors"]


def test_keys_that_look_alike_stay_apart(tmp_path):
    keys = [1, "1", "i1", "~i1", "/", "~1", "a/b", ""]
    tree = {key: torch.tensor(index) for index, key in enumerate(keys)} | {"a": {"b": torch.tensor(9)}}
    assert same(through_disk(tree, tmp_path), tree)


def test_loaded_tensors_do_not_depend_on_their_file(tmp_path):
    save_state(tmp_path / "trainer", {"a": torch.ones(100_000)}, None)
    tensors, _ = load_state(tmp_path / "trainer")
    with open(tmp_path / "trainer.safetensors", "r+b") as file:
        file.seek(1000)
        file.write(bytes(390_000))
    assert torch.equal(tensors["a"], torch.ones(100_000))


def test_no_tensors_at_all(tmp_path):
    assert through_disk({"step": 3, "best": float("inf")}, tmp_path) == {"step": 3, "best": float("inf")}


def make(kind: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    if kind == "muon":
        return torch.optim.Muon(matrices, lr=0.02)
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), fused=kind == "fused")


def train(model, optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 6, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["fused", "plain", "sgd", "muon"])
def test_an_optimizer_continues_bit_for_bit(tmp_path, kind):
    torch.manual_seed(0)
    model, other = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    optimizer, resumed = make(kind, model), make(kind, other)
    train(model, optimizer, 3, seed=1)
    state = optimizer.state_dict()
    back = through_disk({"optimizer": state, "weights": dict(model.state_dict())}, tmp_path)
    assert same(back["optimizer"], state)
    other.load_state_dict(back["weights"])
    resumed.load_state_dict(back["optimizer"])
    train(model, optimizer, 3, seed=2)
    train(other, resumed, 3, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"a": 1, "b": 2},
        {"tensor": "absent"},
        {"tensor": []},
        {"list": 3},
        {"dict": [1]},
        {"dict": [[[], 1]]},
        {"float": "x"},
        {"pickle": "gASV"},
    ],
)
def test_malformed_values_are_refused(values):
    with pytest.raises(CheckpointError, match="trainer state"):
        unflatten({}, values)


def test_deep_nesting_is_refused(tmp_path):
    deep: object = 1
    for _ in range(500):
        deep = {"list": [deep]}
    with pytest.raises(CheckpointError, match="malformed"):
        unflatten({}, deep)
    save_state(tmp_path / "trainer", {}, None)
    (tmp_path / "trainer.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match=r"trainer\.json"):
        load_state(tmp_path / "trainer")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"trainer\.safetensors"):
        load_state(tmp_path / "trainer")
    save_state(tmp_path / "trainer", {"a": torch.ones(3)}, None)
    (tmp_path / "trainer.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(CheckpointError, match=r"trainer\.safetensors"):
        load_state(tmp_path / "trainer")
    save_state(tmp_path / "trainer", {}, None)
    (tmp_path / "trainer.json").write_bytes(b"\xff{")
    with pytest.raises(CheckpointError, match=r"trainer\.json"):
        load_state(tmp_path / "trainer")


def test_what_cannot_be_saved_exactly_is_refused():
    with pytest.raises(TypeError, match=r"/0/~i1' is a complex"):
        flatten([{1: 2j}])
