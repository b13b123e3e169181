"""How a candidate is trained, as a value.

The defaults are made for what a search does: a few epochs on small images, starting from inherited weights. They are
Nesterov's SGD with a cosine schedule that ends at 0, where the learning rate is spent whole even in a short training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from runners.settings_errors import CheckedModel

if TYPE_CHECKING:
    from runners.task import Task

__all__ = ["OWN_DEFAULTS", "Recipe"]

OWN_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
    "adamw": {"lr": 0.01, "weight_decay": 0.05},
}
"""What each optimiser takes for `lr` and `weight_decay` where none is given: their scales differ."""


class Recipe(CheckedModel):
    """Optimiser, schedule, augmentation, distillation and precision of one training.

    Attributes:
        optimizer: `sgd` (with Nesterov's momentum) or `adamw`.
        lr: Learning rate at the start; by default the optimiser's own (`OWN_DEFAULTS`).
        momentum: Of SGD; AdamW's first beta. 0 is none.
        weight_decay: Of convolutions' and linear layers' weights only, never of biases, norms or gates; by default the
            optimiser's own. AdamW's is decoupled from the gradient, SGD's is not.
        epochs: Passes over the training split.
        batch: Largest number of examples in a step. An epoch is cut into steps of equal size (within one example).
        schedule: `cosine` falls to 0 at the end of the last step, `constant` stays.
        flip: Mirror each image left to right with probability 1/2. None: if the task says that this keeps its class.
        crop: Pixels of black border from which a random window of the image's own size is cut. It costs accuracy in a
            few epochs and pays in many: 4 is usual for 32×32 colour images.
        label_smoothing: Share of the target that is spread evenly over all classes.
        distill_weight: Weight α of the teacher in the loss (1-α)·CE + α·T²·KL; without a teacher it is 0.
        temperature: T of that loss.
        precision: `float32`, or `bfloat16` under autocast. None: what `fastest_precision` says.

    `resolved` replaces the Nones by what they stand for.

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
    weight_decay: float = Field(OWN_DEFAULTS["sgd"]["weight_decay"], ge=0, le=1)
    epochs: int = Field(4, ge=1, le=100_000)
    batch: int = Field(64, ge=2, le=65_536)
    schedule: Literal["cosine", "constant"] = "cosine"
    flip: bool | None = None
    crop: int = Field(0, ge=0, le=256)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    distill_weight: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(4.0, gt=0, le=1000)
    precision: Literal["float32", "bfloat16"] | None = None

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
        """
        from runners.precision import fastest_precision

        return self.changed(
            flip=task.mirror if self.flip is None else self.flip,
            precision=self.precision or fastest_precision(device),
        )
