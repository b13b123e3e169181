"""How a candidate is trained, as a value.

The defaults are made for what a search does: a few epochs on small images, starting from inherited weights. They are
Nesterov's SGD with a cosine schedule that ends at 0, where the learning rate is spent whole even in a short training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from runners.freezeout import FreezeOut
from runners.hydra import Hydra
from runners.settings_errors import CheckedModel, SettingsError

if TYPE_CHECKING:
    from runners.task import Task

__all__ = ["OWN_DEFAULTS", "Distillation", "Recipe"]

OWN_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
    "adamw": {"lr": 0.01, "weight_decay": 0.05},
}
"""What each optimiser takes for `lr` and `weight_decay` where none is given: their scales differ."""


class Distillation(CheckedModel):
    """How a network learns from a teacher beside the labels.

    G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531; for `logits`
    J. Ba, R. Caruana, "Do Deep Nets Really Need to be Deep?", 2014, arXiv:1312.6184.

    Attributes:
        how: `soft` compares probabilities at a temperature, `logits` the logits by their mean squared difference,
            `hard` takes the teacher's class for the label.
        weight: α of the loss (1-α)·(labels) + α·(teacher); without a teacher it is 0.
        temperature: T of `soft`, whose loss is multiplied by T², which keeps the size of its gradient.
        ramp: Share of training in which α falls along a line to 0; 0 keeps it as it is.
        transfer: Images without labels that a student sees beside the others, where it has a teacher: a data set's
            name, or the path of an `.npz` file with the array `x_train`. Only the teacher's part of the loss is theirs.
        transfer_digest: The SHA-256 of those images; None for whatever they are.
    """

    what: ClassVar[str] = "distillation"

    how: Literal["soft", "logits", "hard"] = "soft"
    weight: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(4.0, gt=0, le=1000)
    ramp: float = Field(0.0, ge=0, le=1)
    transfer: str | None = None
    transfer_digest: str | None = None

    @model_validator(mode="after")
    def _listens(self) -> Distillation:
        if self.transfer is not None and not self.weight:
            raise ValueError(f"transfer is {self.transfer}, but weight is 0, so nothing would be learnt from it")
        return self

    def resolved(self, task: Task) -> Distillation:
        """The same, bound to the images that `transfer` names now, wherever it is read again.

        Raises:
            EvolutionError: There are no such images, or they do not fit the task.
        """
        from runners.transfer import transfer_images

        if self.transfer is None:
            return self
        name = str(Path(self.transfer).expanduser().resolve()) if self.transfer.endswith(".npz") else self.transfer
        _, digest = transfer_images(name, task, self.transfer_digest)
        return self.changed(transfer=name, transfer_digest=digest)

    def weight_at(self, progress: float) -> float:
        """α after a share of training, from 0 to 1."""
        return self.weight * max(0.0, 1 - progress / self.ramp) if self.ramp else self.weight


class Recipe(CheckedModel):
    """Optimiser, schedule, augmentation, distillation, freezing, snapshots and precision of one training.

    Attributes:
        optimizer: `sgd` or `adamw`.
        lr: Learning rate at the start; by default the optimiser's own (`OWN_DEFAULTS`).
        momentum: Of SGD; AdamW's first beta. 0 is none.
        nesterov: SGD's momentum is Nesterov's.
        weight_decay: Of convolutions' and linear layers' weights; by default the optimiser's own. AdamW's is decoupled
            from the gradient, SGD's is not.
        decay_all: Biases, norms, gates and scales of channels decay too.
        epochs: Passes over the training split.
        minutes: A budget in place of `epochs`: as many whole epochs, one at least, as it holds at the pace that is
            measured once, before the first step. From then on it is a training of that many epochs, to the bit.
            What freezing saves is not counted in, and nothing is cut off where the machine slows down later.
        batch: Largest number of examples in a step. An epoch is cut into steps of equal size (within one example).
        schedule: `cosine` falls to 0 at the end of the last step, `constant` stays, `multistep` is multiplied by
            `gamma` at each of `milestones`, `one-cycle` rises and falls, `plateau` is multiplied by `gamma` when the
            validation loss has not become better for `patience` epochs.
        milestones: Shares of the training, or of the cycle, above 0 and below 1, rising; epoch E, counted from 1,
            begins at (E - 1) / `epochs`.
        gamma: See `schedule`.
        patience: See `schedule`.
        warmup: Share of training in which the rate rises along a line, so that inherited weights are not torn apart.
        cycles: How often the schedule is gone through.
        snapshots: How many of the last cycles' networks are kept beside the last one, as an ensemble; 0 for none.
        flip: Mirror each image left to right with probability 1/2. None: if the task says that this keeps its class.
        crop: Pixels of black border from which a random window of the image's own size is cut. It costs accuracy in a
            few epochs and pays in many: 4 is usual for 32×32 colour images.
        cutout: Side of a square, in pixels, that is blanked at a random place of each image; 0 for none.
        mixup: α of the Beta distribution from which the share of another image is drawn, one for a batch; 0 for none.
        label_smoothing: Share of the target that is spread evenly over all classes.
        ema: Decay of an average of the weights over the steps, which takes their place when it is measured and at the
            end; 0 for none.
        shrink: λ of shrink and perturb, λ·θ + p·(fresh weights), before the first step; 1 leaves the weights.
        perturb: p of that.
        distill: How it learns from a teacher, where it has one.
        freezeout: When which part freezes; None for never.
        hydra: How it becomes a body with several heads, and how these are trained; None for not at all.
        precision: `float32`, or `bfloat16` under autocast. None: what `fastest_precision` says.

    `resolved` replaces the Nones by what they stand for, but for those that stand for nothing.

    >>> Recipe(optimizer="adamw").lr
    0.01
    >>> Recipe(momentom=0.9)
    Traceback (most recent call last):
    runners.settings_errors.SettingsError: recipe: unknown setting 'momentom': did you mean 'momentum'? Known: ...
    """

    what: ClassVar[str] = "recipe"

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(OWN_DEFAULTS["sgd"]["lr"], gt=0, le=100)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(OWN_DEFAULTS["sgd"]["weight_decay"], ge=0, le=1)
    decay_all: bool = False
    epochs: int = Field(4, ge=1, le=100_000)
    minutes: float | None = Field(None, gt=0, le=1e6)
    batch: int = Field(64, ge=2, le=65_536)
    schedule: Literal["cosine", "constant", "multistep", "one-cycle", "plateau"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = Field(0.1, gt=0, le=1)
    patience: int = Field(10, ge=0, le=100_000)
    warmup: float = Field(0.0, ge=0, lt=1)
    cycles: int = Field(1, ge=1, le=10_000)
    snapshots: int = Field(0, ge=0, le=10_000)
    flip: bool | None = None
    crop: int = Field(0, ge=0, le=256)
    cutout: int = Field(0, ge=0, le=4096)
    mixup: float = Field(0.0, ge=0, le=100)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1)
    shrink: float = Field(1.0, ge=0, le=1)
    perturb: float = Field(0.0, ge=0, le=1)
    distill: Distillation = Field(default_factory=lambda: Distillation.model_validate({}))
    freezeout: FreezeOut | None = None
    hydra: Hydra | None = None
    precision: Literal["float32", "bfloat16"] | None = None

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < each < 1 for each in milestones) or list(milestones) != sorted(set(milestones)):
            raise ValueError("should be rising shares of the training, above 0 and below 1")
        return milestones

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.snapshots > self.cycles:
            raise ValueError(f"snapshots is {self.snapshots}, should be at most the {self.cycles} cycles")
        if self.freezeout is not None and (self.schedule != "cosine" or self.cycles > 1):
            raise ValueError("freezeout sets the rates of each stage itself: schedule should be cosine, cycles 1")
        if self.freezeout is not None and self.warmup:
            raise ValueError("freezeout sets the rates of each stage itself: warmup should be 0")
        if self.hydra is not None and self.minutes is None and self.hydra.frozen > self.epochs:
            raise ValueError(f"hydra.frozen is {self.hydra.frozen}, should be at most the {self.epochs} epochs")
        if self.minutes is not None and self.freezeout is not None and self.freezeout.const_time:
            raise ValueError("freezeout.const_time buys epochs for the time of given ones: it does not go with minutes")
        return self

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        """Fills what is not given from the optimiser's own defaults."""
        if not isinstance(values, dict):
            return values
        return OWN_DEFAULTS.get(str(values.get("optimizer", "sgd")), {}) | values

    def resolved(self, task: Task, device: str = "cpu") -> Recipe:
        """The recipe with every None replaced by what it stands for, on this machine and for `task`.

        A run does this once, at its start, and records the result, so that another machine trains in the same way.
        Where the task is not one of classes, a teacher's outputs are met as they are, as `logits` says.

        Raises:
            SettingsError: The recipe asks for what there is for images or for classes alone.
            EvolutionError: The task lacks a label set or a transfer set that the recipe names.
        """
        from runners.precision import fastest_precision

        self._check_for(task)
        if self.hydra is not None:
            self.hydra.classes(task)
        distill = self.distill.resolved(task)
        return self.changed(
            distill=distill if task.objective.classes else distill.changed(how="logits"),
            flip=task.mirror if self.flip is None else self.flip,
            precision=self.precision or fastest_precision(device),
        )

    def _check_for(self, task: Task) -> None:
        """Raises `SettingsError` for what the task's examples cannot bear."""
        from runners.objectives import OBJECTIVES

        transfer = self.distill.transfer is not None
        moved = [name for name in ("flip", "crop", "cutout", "mixup") if getattr(self, name)]
        moved += ["distill.transfer"] * transfer
        if moved and not task.normalisation:
            off = {"flip": "false", "distill.transfer": "null"}
            raise SettingsError(
                f"recipe: {' and '.join(moved)} {'is' if len(moved) == 1 else 'are'} for images, and inputs of "
                f"{task.name} are none; switch that off, also where a preset asks for it, by "
                + " ".join(f"--set {name}={off.get(name, '0')}" for name in moved)
            )
        if transfer and task.train.mapped:
            raise SettingsError(
                f"recipe: distill.transfer joins images in memory, and those of {task.name} are mapped from a file; "
                "leave it out"
            )
        if transfer and task.objective.losses is not OBJECTIVES["classification"].losses:
            raise SettingsError(
                f"recipe: distill.transfer is for classification, which leaves out examples without a label, and "
                f"{task.name} is a task of {task.objective.name}; leave it out"
            )
        joint = [name for name in ("hydra", "snapshots") if getattr(self, name)]
        if joint and not task.objective.classes:
            raise SettingsError(
                f"recipe: {joint[0]} averages probabilities of classes, and {task.name} is a task of "
                f"{task.objective.name}; leave it out"
            )
