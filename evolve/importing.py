"""A module that somebody else wrote, by the name that a person gives it, with weights and example inputs.

`MODULE:FACTORY` runs code of the user's own, as `python -m MODULE` would: what is named must be trusted. Nothing else
here runs code: weights come from `.safetensors` files, and those that torchvision fetches are read as tensors only.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.errors import EvolutionError, UnknownName

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["DEFAULT", "Fetching", "ModuleError", "example", "found_here", "module_named"]

BATCH = 2
"""Examples in an example input: batch norms in train mode need more than one."""

DEFAULT = "DEFAULT"
"""In place of a weights file: the best published ones."""

TORCHVISION = "torchvision"


class ModuleError(EvolutionError, ValueError):
    """There is no such module, its code fails, or weights or inputs do not fit it."""


class Fetching(EvolutionError, OSError):
    """Published weights cannot be fetched."""

    exit_code = 1


@contextlib.contextmanager
def found_here() -> Iterator[None]:
    """A context in which modules of the current folder can be imported, as with `python -m`."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def module_named(name: str, weights: str | None = None, seed: int = 0) -> nn.Module:
    """The module of that name.

    Args:
        name: `MODULE:FACTORY`, where the factory is a module of torch or what gives one when called without arguments;
            or `torchvision:NAME`.
        weights: Path of a `.safetensors` file with the module's state_dict; `DEFAULT` for those that torchvision
            publishes; None for fresh ones.
        seed: Of fresh weights.

    Raises:
        ModuleError: There is no such module, its code fails, or the weights do not fit it.
        UnknownName: The Python module, or torchvision, has nothing of that name.
        Fetching: The published weights cannot be fetched.
        MissingExtra: torchvision is not installed.
    """
    import torch

    where, colon, what = name.partition(":")
    if not (where and colon and what):
        raise ModuleError(f"expected MODULE:FACTORY or torchvision:NAME, such as nets:build, got '{name}'")
    if weights is not None and weights != DEFAULT:
        _check_weights(weights)
    published = weights == DEFAULT
    if published and where != TORCHVISION:
        raise ModuleError(f"weights {DEFAULT} are for torchvision:NAME; for {name}, give a .safetensors file")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _of_torchvision(what, published) if where == TORCHVISION else _of_the_user(where, what, seed)
    if weights is not None and not published:
        _fill(module, weights)
    return module


def example(inputs: Sequence[str], seed: int = 0) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """A batch of 2 random examples for each input.

    Args:
        inputs: Shapes of one example without the batch, such as `3,224,224`, or none for a single number; with a name
            in front for a keyword, `image=3,224,224`; with a type behind, `77:int64`, and for whole numbers with what
            they stay below, `77:int64<49408`.
        seed: Of the numbers.

    Returns:
        A tensor for one shape, a tuple for several, a dictionary where they have names.

    Raises:
        ModuleError: A text is no shape, memory is too small for it, a name is given twice, or only some have names.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for text in inputs:
        name, _, what = text.rpartition("=")
        key = name or str(len(drawn))
        if key in drawn:
            raise ModuleError(f"--input: '{name}' is given twice; each input of the module has one shape")
        try:
            drawn[key] = _drawn(what, text, generator)
        except (RuntimeError, TypeError) as error:  # torch's, where sizes are too large
            raise ModuleError(f"--input: expected sizes that fit into memory, got '{text}'") from error
    named = ["=" in text for text in inputs]
    if all(named):
        return drawn
    if any(named):
        raise ModuleError("--input: some inputs have names and some have none; name all of them, or none")
    return next(iter(drawn.values())) if len(drawn) == 1 else tuple(drawn.values())


TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""What the entries of an input may be."""


def _drawn(what: str, text: str, generator: torch.Generator) -> Tensor:
    """A batch of random examples of one shape and type."""
    import torch

    sizes, colon, kind = what.partition(":")
    kind, below, most = kind.partition("<")
    texts = sizes.split(",") if sizes or not colon else []
    shape = [int(size) for size in texts if size.strip().isdecimal()]
    if len(shape) != len(texts) or 0 in shape:
        raise ModuleError(f"--input: expected sizes such as 3,224,224 or image=3,224,224, got '{text}'")
    if (kind and kind not in TYPES) or bool(colon) != bool(kind):
        raise ModuleError(f"--input: expected one of the types {', '.join(TYPES)} behind the colon, got '{text}'")
    dtype: torch.dtype = getattr(torch, kind or TYPES[0])
    if dtype.is_floating_point and not below:
        return torch.randn((BATCH, *shape), generator=generator).to(dtype)
    top = 2 if not below else int(most) if most.isdecimal() else 0
    if dtype.is_floating_point or not 1 <= top <= (2 if dtype == torch.bool else torch.iinfo(dtype).max):
        raise ModuleError(f"--input: expected what whole numbers stay below, such as 77:int64<49408, got '{text}'")
    numbers = torch.randint(0, top, (BATCH, *shape), generator=generator).to(dtype)
    numbers.view(-1)[-1] = top - 1  # the greatest one is kept with the network
    return numbers


def _of_the_user(where: str, what: str, seed: int) -> nn.Module:
    """What MODULE:FACTORY names."""
    import torch
    from torch import nn

    if where.endswith(".py") or not all(part.isidentifier() for part in where.split(".")):
        advice = f"in the folder that holds {Path(where).stem}.py, say {Path(where).stem}:{what}"
        raise ModuleError(f"expected the name of a Python module, as after 'import', got '{where}'; {advice}")
    with _failing(f"cannot import '{where}'"):
        try:
            imported = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                raise
            raise ModuleError(
                f"there is no Python module '{error.name}' here or among those installed; "
                f"run the command in the folder that holds {error.name}.py, or install the package"
            ) from None
    if not hasattr(imported, what):
        public = [known for known, value in vars(imported).items() if callable(value) and not known.startswith("_")]
        raise UnknownName.of("factory", f"{where}:{what}", (f"{where}:{known}" for known in public))
    made = getattr(imported, what)
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise ModuleError(
                f"{where}:{what} is of type {type(made).__name__}; expected a torch.nn.Module or what makes one"
            )
        with _failing(f"{where}:{what}() failed, called without arguments"):
            torch.manual_seed(seed)  # again, since a module draws when it is imported first, and only then
            made = made()
    if not isinstance(made, nn.Module):
        raise ModuleError(f"{where}:{what}() gave a {type(made).__name__}; expected a torch.nn.Module")
    return made


def _of_torchvision(name: str, published: bool) -> nn.Module:
    """A network of torchvision, with the published weights or fresh ones."""
    from evolve.vision import torchvision_models

    models = torchvision_models()
    known = models.list_models()
    if name not in known:
        raise UnknownName.of("torchvision network", name, models.list_models(module=models))
    # Parts that come with weights of their own have fresh ones too, unless all are published.
    parts = {"weights_backbone"} & inspect.signature(models.get_model_builder(name)).parameters.keys()
    settings: dict[str, Any] = {"weights": DEFAULT} if published else dict.fromkeys(("weights", *parts))
    with warnings.catch_warnings(), _tensors_only():
        warnings.simplefilter("ignore", FutureWarning)  # two networks announce how they will draw fresh weights
        try:
            module: nn.Module = models.get_model(name, **settings, progress=False)
        except Exception as error:  # of the network, of the disk, or a file that is not what was published
            if not published:
                raise
            raise Fetching(
                f"cannot fetch the weights of torchvision:{name}: {error}; check the network, or give a .safetensors "
                "file with --weights"
            ) from error
    return module


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """A context in which no pickle that torchvision reads can run code."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_weights(path: str) -> None:
    if path.endswith(".safetensors"):
        return
    raise ModuleError(
        f"cannot read weights from {path}: only .safetensors files hold nothing but tensors; to make one of a "
        f'state_dict that torch.save wrote: python -c "import torch, safetensors.torch as s; '
        f"s.save_file({{k: t.clone() for k, t in torch.load({path!r}, weights_only=True).items()}}, "
        f'{str(Path(path).with_suffix(".safetensors"))!r})"'
    )


def _fill(module: nn.Module, path: str) -> None:
    """Gives the module the tensors of a file, all of them and no others; what is shared may stand there once."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModuleError(f"cannot read weights from {path}: {reason}; expected a .safetensors file") from None
    places = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in module.state_dict().items()}
    filled = {places[name] for name in given if name in places}
    lacking = [name for name, place in places.items() if place not in filled]
    foreign = sorted(given.keys() - places.keys())
    for what, names in (("lacks", lacking), ("has, unlike the module,", foreign)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModuleError(f"the weights in {path} do not fit the module: the file {what} '{names[0]}'{more}")
    try:
        module.load_state_dict(given, strict=False)
    except RuntimeError as error:  # of another shape
        raise ModuleError(f"the weights in {path} do not fit the module: {error}") from None


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turns what the user's code raises into one line that names the place."""
    try:
        yield
    except EvolutionError:
        raise
    except (Exception, SystemExit) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ModuleError(f"{what}: {type(error).__name__}{_place(error)}: {reason}") from error


def _place(error: BaseException) -> str:
    """Where in the user's code something went wrong, behind what Python does to import it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    last = frames[-1]
    return f" at {last.filename}:{last.lineno}" if last.filename != __file__ else ""
