"""The central types: what the parts of a run hand to each other."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import flax.struct
import jax

from imgcls_jax.errors import ConfigError

Array = Any  # a jax.Array or numpy.ndarray; in tf.data code a tf.Tensor
Tree = Any  # a pytree of Array

Sums = dict[str, Array]
"""Additive counts by name, summed over microbatches, batches and hosts; a mean is taken last."""


class Batch(TypedDict, total=False):
    """One global batch of B images. `id` never reaches a device."""
    image: Array  # u8[B,H,W,C]: a quarter of the bytes of f32; normalised on the device
    label: Array  # i32[B], or f32[B,K] for multilabel
    mask: Array  # f32[B]: 0 for padding
    id: Array  # i64[B]: index of the example in its split, -1 for padding


@flax.struct.dataclass
class TrainState:
    """All that a step reads and training changes, arrays only: no function, key or iterator."""
    step: Array  # i32[]: steps done
    params: Tree
    model_state: Tree  # every other collection that lives on: {"batch_stats": ...}
    opt_state: Tree
    ema: Tree = None  # {"params", "model_state"} averaged, or None
    constants: Tree = None  # what a step reads and never changes; not saved, read again at start

    def variables(self) -> dict:
        """What `module.apply` takes, at the current step."""
        return {"params": self.params, **self.model_state}

    def eval_variables(self) -> dict:
        """What `module.apply` takes for evaluation: the moving average where there is one."""
        if self.ema is None:
            return self.variables()
        return {"params": self.ema["params"], **self.ema["model_state"]}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A published set of weights, and the preprocessing it was measured with."""
    file: str  # address it is published at, or "package:MODULE/PATH" of an installed package
    layout: str  # whose names its tensors have, as in ModelSpec.layouts
    image_size: int
    resize: int  # short side before the center crop
    interpolation: str
    top1: float | None  # percent, as published for this preprocessing; None: not published
    top5: float | None
    licence: str
    sha256: str = ""  # or its first digits, as far as they are published
    md5: str = ""  # where the publisher gives that one
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    params: int | None = None  # exact parameter count at image_size
    crop_mode: str = "center"  # or "squash": both sides are resized to `resize`


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the files of one publisher name the tensors of a model; read by pretrained/names.py.

    format: "torch" | "npz" | "keras": what leaves are called, and the order of their axes.
    renames: (regex of our path, theirs), the first that matches in full counts. Of a module's path
      ("stage1_block0/conv1"), theirs is their module ("layer1.0.conv1"); of a leaf's ("token"),
      their tensor. Theirs may hold groups of the match, be a function of the match, or be several
      names, which are parts of our last axis.
    unused: regexes of tensors in their files that this model leaves out.
    patches: regex of the kernel [p*p*C, D] that is a convolution [p, p, C, D] there.
    shapes: (regex of their name, shape) of tensors with axes of size 1 there: (-1, 1, 1).
    older: (regex of a name in other files of theirs, the name here); "{}": of each part of axis 0.
    tells: (regex of a name in their files, "model" or "data", arguments of it): what a file with
      this one and the first means beyond its tensors; `imgcls convert` sets it in the config.
    order: of "keras", the layers with tensors as in `model.layers`, for files with other names.
    bgr: regex of the kernel that takes blue, green, red there, and red, green, blue here.
    constants: (regex of our leaf, as in `renames` an untrained tensor next to it, () -> its value).
    flattened: (regex of a dense kernel, side of its square map): rows are [H, W, C] there.
    """

    format: str
    renames: tuple[tuple[str, Any], ...]
    unused: tuple[str, ...] = ()
    patches: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    older: tuple[tuple[str, str], ...] = ()
    tells: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    order: tuple[str, ...] = ()
    bgr: str = ""
    flattened: tuple[str, int] | None = None
    constants: tuple[tuple[str, Any, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What is known of a model without building it. layouts: by publisher, as "torchvision"."""

    name: str
    image_size: int
    params: int  # exact parameter count with `classes` classes and `channels` channels
    head: str  # path of the classifier, as in "head"
    paper: str
    classes: int = 1000
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    weights: Mapping[str, Weights] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Lookup:
    """A split of random access: any example by its index.

    read: (i64[] tf.Tensor) -> dict(image=<u8[H,W,C] or encoded bytes>, label=i32[] or f32[K]);
      it runs inside tf.data, in parallel.
    where: index -> what a person calls the example, such as its path.
    labels: () -> i32[size] or f32[size,K], all labels without reading an image; None where that
      cannot be, and then neither balanced sampling nor a subset of the classes.
    version: index -> what changes when its file does (`_paths.version`); None: not encoded.
    listed: () -> (names bytes[size], the same wherever the data lies, labels or None); unread.
    """

    size: int
    read: Callable[[Array], dict]
    where: Callable[[int], str]
    labels: Callable[[], Array] | None = None
    version: Callable[[int], str] | None = None
    listed: Callable[[], tuple[Sequence[bytes], Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Shards:
    """A split that is a list of record files, read in order.

    files: (path, first record within the file, number of records), one per file.
    parse: (bytes[] tf.Tensor) -> dict(image=..., label=...), as of Lookup.
    records: (path tensor) -> tf.data.Dataset of the undecoded records of one file.
    """

    files: tuple[tuple[str, int, int], ...]
    records: Callable[[Array], Any]
    parse: Callable[[Array], dict]
    digests: Mapping[str, str] | None = None  # path -> digest of its content, where one is known

    @property
    def size(self) -> int:
        return sum(count for _, _, count in self.files)

    def place(self, index: int) -> tuple[str, int]:
        """(path, record within the file) of an example."""
        for path, first, count in self.files:
            if index < count:
                return path, first + index
            index -= count
        raise IndexError(index)

    def where(self, index: int) -> str:
        """What a person calls the example."""
        path, record = self.place(index)
        return f"{path}, record {record}"


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset: it knows its classes, so that no config repeats them.

    sizes: examples per split. open: split name -> Lookup or Shards; nothing is read before.
    kind: "multiclass" (labels i32[]) or "multilabel" (f32[K] of 0 and 1).
    image_size: (H, W), or None where it differs. files: those of each split, where the dataset has
    split them; saved with the run. subset: the classes that occur, where published results compare
    their logits alone, as for ImageNet-A. mixed: parts of splits are drawn, not cut.
    """

    name: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    open: Callable[[str], Lookup | Shards]
    channels: int = 3
    kind: str = "multiclass"
    image_size: tuple[int, int] | None = None
    files: Mapping[str, tuple[str, ...]] | None = None
    subset: tuple[int, ...] | None = None
    mixed: bool = False


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of many examples, of one of two kinds.

    A sum: `update` is (logits f32[B,K], targets f32[B,K], mask f32[B]) -> Sums. What is no sum, as
    an area under a curve: `rows` is (logits, targets) -> dict of [B,...], what is kept of each
    example, and `update` is None; evaluators gather the rows, a training step leaves it out.
    finish: (Sums, or the rows of all examples, as numpy) -> dict of floats, or of arrays.
    """

    update: Callable[[Array, Array, Array], Sums] | None
    finish: Callable[[Mapping[str, Any]], dict[str, Any]]
    rows: Callable[[Array, Array], dict[str, Array]] | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """What the labels mean: "binary", "multiclass" or "multilabel", of K classes.

    outputs: logits that a model has, K, or 1 where binary. targets: labels -> f32[B,outputs].
    loss: (logits, targets) -> f32[B]. probs: logits -> f32[B,K] probabilities. metrics: by name.
    """

    kind: str
    classes: tuple[str, ...]
    outputs: int
    targets: Callable[[Array], Array]
    loss: Callable[[Array, Array], Array]
    probs: Callable[[Array], Array]
    metrics: Mapping[str, Metric]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluator with its period: run(variables) -> {metric: float, or an array}.

    lower: abstract variables -> its program, where it has one; run(variables, compiled program)
    then compiles nothing.
    """

    run: Callable[..., dict[str, Any]]
    every: int  # steps
    lower: Callable[[Tree], jax.stages.Lowered] | None = None


class _Counts:
    """Options whose whole numbers are 1 or more, else ConfigError."""

    def __post_init__(self):
        key = type(self).__name__.removesuffix("Options").lower()
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{name}={value}", where=f"config.{key}.{name}",
                                  fix="use 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogOptions(_Counts):
    """config.log: a line and a row of metrics.jsonl every so many steps. wandb: a project."""
    every: int = 50
    wandb: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions(_Counts):
    """config.checkpoint: one every so many steps, of which the newest `keep` stay, and the one
    where the metric `best`, "EVALUATION/METRIC", is best."""

    every: int
    keep: int = 3
    best: str | None = None
    best_mode: Literal["max", "min"] = "max"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StopOptions(_Counts):
    """config.stop: the run ends when `metric` has not improved for `patience` steps."""
    metric: str
    patience: int
    mode: Literal["max", "min"] = "max"


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything built: what the loop receives. No config is in it, but as a record."""
    config: Mapping[str, Any]  # for the record only
    claim: Mapping[str, Any] | None
    source: Source
    spec: ModelSpec
    module: Any
    task: Task
    mesh: jax.sharding.Mesh
    abstract_state: TrainState  # shapes, dtypes and shardings
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Sums]]  # pure; the loop compiles it
    schedule: Callable[..., Array]  # (step, optimizer state or None) -> learning rate
    batches: Callable[[int], Any]  # start step -> iterator of this process's batches on the host
    put: Callable[[Batch], Batch]  # such a batch -> the global one on the mesh
    abstract_batch: Mapping[str, Array]
    evaluations: Mapping[str, Evaluation]
    total_steps: int
    steps_per_epoch: float
    batch_size: int
    seed: int
    dtype: str  # that the model computes in
    log: LogOptions
    checkpoint: CheckpointOptions
    stop: StopOptions | None
    preprocessing: Mapping[str, Any]  # eval transforms, mean, std, channels, image size
    bad_samples: Any = None  # deque of rows for bad_samples.jsonl, which the loop empties
    examples: Any = None  # data.listing.Examples: which ones there are
    notes: Any = None  # list of lines for the log, which `init` adds to
    phases: tuple[tuple[int, "Run"], ...] = ()  # (first step, what then runs), where several
    constants: Callable[[], Tree] | None = None  # () -> those of the state, where there are any
    begin: Callable[[TrainState, Callable[[str], None]], None] | None = None  # told the first state
