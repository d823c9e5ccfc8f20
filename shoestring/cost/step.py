"""FLOPs of a step by parts: all matrix products, two FLOPs per multiply-add, forward and backward.

Counted are projections, experts, router, heads, MTP modules, the pairs of a query and a key that the causal
mask leaves, adapters, what gradient checkpointing computes again, Muon's Newton-Schulz, and the rows of the
embedding that are read and updated, an addition for each value. PyTorch's own counter agrees within 1%
(tests/cost/test_step.py). Not counted: norms, softmax, activations, AdamW, clipping: linear in the width.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shoestring.cost.matrices import Matrix, block
from shoestring.model.config import MLAConfig, ModelConfig

Flops = dict[str, float]
"""FLOPs of each part of the work, by its name."""
PARTS = (
    *("layers", "attention", "router", "head", "mtp", "adapters", "look-ups", "recomputation", "optimizer"),
    *("reference", "teacher", "sampling"),
)
"""Names of the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Tokens that go through a model together: the numbers that say how much is computed."""

    tokens: int
    """Padding included: it is computed too."""
    pairs: int
    """Pairs of a query and a key that it sees, in one head."""
    predictions: tuple[int, ...]
    """Tokens whose logits are made: by the main model, then by each MTP module that is run."""

    @property
    def depths(self) -> int:
        """MTP modules that are run."""
        return len(self.predictions) - 1

    @classmethod
    def of_rows(cls, rows: int, length: int, predictions: tuple[int, ...] | None = None) -> "Pass":
        """Rows of one length; None: all tokens are predicted, and no MTP module is run."""
        pairs = rows * causal_pairs(length)
        return cls(tokens=rows * length, pairs=pairs, predictions=predictions or (rows * length,))

    @classmethod
    def of_segments(cls, segments: Iterable[tuple[int, int]], predictions: int) -> "Pass":
        """Segments of one row, as kernels.causal_attention takes them: a length, and whether it goes on."""
        tokens = pairs = prompt = 0
        for length, goes_on in segments:
            prompt = prompt if goes_on else 0
            tokens, pairs = tokens + length, pairs + prompt * length + causal_pairs(length)
            prompt = prompt if goes_on else length
        return cls(tokens=tokens, pairs=pairs, predictions=(predictions,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """LoRA: only the factors of the matrices that `names` mean are trained."""

    rank: int
    names: tuple[str, ...] = ("all-linear",)
    """Kinds of matrices, or ends of their names, as in `lora.targets`."""
    use_dora: bool = False

    def has(self, matrix: Matrix) -> bool:
        """Return whether a matrix gets an adapter."""
        if matrix.kind in ("router", "mtp"):
            return False
        path = f".self_attn.{matrix.name}" if matrix.kind == "attention" else f".mlp.{matrix.name}"
        return any(name in ("all-linear", matrix.kind) or path.endswith(f".{name}") for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of learning, as far as it changes what is computed."""

    adapters: Adapters | None = None
    """None: all weights are trained."""
    gradient_checkpointing: bool = False
    logits_again: bool = False
    """Whether the backward pass makes the logits a second time, as losses of log-probabilities do."""


def causal_pairs(length: int) -> int:
    """Pairs of a query and a key in a sequence whose tokens see themselves and those before."""
    return length * (length + 1) // 2


def added(*parts: Mapping[str, float]) -> Flops:
    """The sum of FLOPs, part by part."""
    total: Flops = {}
    for flops in parts:
        for name, value in flops.items():
            total[name] = total.get(name, 0) + value
    return total


def forward(config: ModelConfig, work: Pass) -> Flops:
    """FLOPs of a pass that nothing is learned from."""
    flops: Flops = {"layers": 0, "attention": 0, "router": 0, "head": _head(config) * work.predictions[0]}
    for index in range(config.num_hidden_layers):
        flops = added(flops, _block(config, index, work))
    if work.depths:
        first = config.num_hidden_layers
        flops["mtp"] = _head(config) * sum(work.predictions[1:])
        flops["mtp"] += sum(sum(_block(config, first + depth, work).values()) for depth in range(work.depths))
    return flops


def learning(config: ModelConfig, work: Pass, method: Method = Method()) -> Flops:
    """FLOPs of a forward and a backward pass, without the update of the weights."""
    if method.adapters is not None:
        flops = _adapted(config, work, method.adapters)
    else:
        flops = {name: 3 * value for name, value in forward(config, work).items()}
        flops["look-ups"] = 2.0 * config.hidden_size * work.tokens * (1 + work.depths)
    if method.logits_again:
        flops["head"] += _head(config) * work.predictions[0]
    if method.gradient_checkpointing:
        blocks = range(config.num_hidden_layers + work.depths)
        flops["recomputation"] = sum(_again(config, i, work, method.adapters) for i in blocks)
    return flops


def _head(config: ModelConfig) -> int:
    """FLOPs of the logits of one token."""
    return 2 * config.vocab_size * config.hidden_size


def _block(config: ModelConfig, index: int, work: Pass) -> Flops:
    """FLOPs of a layer's forward pass."""
    matrices = block(config, index)
    router = sum(matrix.weights for matrix in matrices if matrix.kind == "router")
    rest = sum(matrix.weights for matrix in matrices) - router
    return {
        "layers": 2 * work.tokens * rest,
        "attention": work.pairs * flops_per_pair(config),
        "router": 2 * work.tokens * router,
    }


def flops_per_pair(config: ModelConfig) -> int:
    """FLOPs of the score and the weighted value of a query and a key, over all heads of a layer."""
    attention = config.attention
    if isinstance(attention, MLAConfig):
        return 2 * config.num_attention_heads * (attention.qk_head_dim + attention.v_head_dim)
    return 2 * config.num_attention_heads * 2 * attention.head_dim


def _again(config: ModelConfig, index: int, work: Pass, adapters: Adapters | None) -> float:
    """FLOPs of a layer that is computed once more: all but its last product, whose output nothing needs.

    What an MTP module makes its input with is kept.
    """
    total = sum(_block(config, index, work).values())
    total -= sum(2 * work.tokens * matrix.weights for matrix in block(config, index) if matrix.kind == "mtp")
    last = block(config, index)[-1]
    if adapters is None:
        return total - (2 * work.tokens * last.weights if last.kind == "mlp" else 0)
    matrices = [matrix for matrix in block(config, index) if adapters.has(matrix)]
    total += sum(_adapter(matrix, adapters, work.tokens) for matrix in matrices)
    if adapters.has(last) and not adapters.use_dora:
        total -= 2 * work.tokens * last.outputs * adapters.rank
    return total


def _adapter(matrix: Matrix, adapters: Adapters, tokens: int) -> int:
    """FLOPs of an adapter's forward pass; DoRA also makes its matrix, to measure the rows."""
    factors = matrix.per_token * adapters.rank * (matrix.inputs + matrix.outputs)
    whole = adapters.rank * matrix.inputs * matrix.outputs if adapters.use_dora else 0
    return 2 * tokens * factors + 2 * whole


def _adapted(config: ModelConfig, work: Pass, adapters: Adapters) -> Flops:
    """FLOPs of both passes where adapters learn: no gradient of the base, none before the first of them."""
    flops: Flops = {"layers": 0, "attention": 0, "router": 0, "adapters": 0}
    is_reached = False  # by the gradient: something before it is trained
    for index in range(config.num_hidden_layers):
        matrices = block(config, index)
        layer = _block(config, index, work)
        targets = {matrix.name for matrix in matrices if adapters.has(matrix)}
        attention = {m.name for m in matrices if m.kind == "attention"} & targets
        for matrix in matrices:
            is_behind = bool(attention) if matrix.kind != "attention" else False
            needs_gradient = is_reached or is_behind or bool(_before(matrix.name, attention) & targets)
            part = "router" if matrix.kind == "router" else "layers"
            flops[part] += 2 * work.tokens * matrix.weights * (1 + needs_gradient)
            if matrix.name in targets:
                both = 2 * work.tokens * matrix.per_token * adapters.rank
                once = _adapter(matrix, adapters, work.tokens)
                flops["adapters"] += once + 2 * both * matrix.outputs
                flops["adapters"] += both * matrix.inputs * (1 + needs_gradient)
        flops["attention"] += layer["attention"] * (3 if is_reached or attention - {"o_proj"} else 1)
        is_reached |= bool(targets)
    flops["head"] = 2 * _head(config) * work.predictions[0]
    return flops


def _before(name: str, attention: set[str]) -> set[str]:
    """The matrices of the same block whose output a matrix reads."""
    if name == "o_proj":
        return attention - {"o_proj"}
    if name.endswith("down_proj"):
        module = name.removesuffix("down_proj")
        return {f"{module}{part}" for part in ("gate_proj", "up_proj", "gate_up_proj")}
    return {"q_b_proj": {"q_a_proj"}, "kv_b_proj": {"kv_a_proj_with_mqa"}}.get(name, set())
