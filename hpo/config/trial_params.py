"""The hyperparameters of a trial, and the report of a trial at a rung."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpo.config.validation import Config

# Parameters that have an effect only if another parameter has this value.
REQUIRES: dict[str, tuple[str, Any]] = dict.fromkeys(
    ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "use_dora", "use_rslora", "quantization"), ("peft", "lora")
)

Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "warmup_stable_decay"]


class TrialParams(Config):
    """The hyperparameters of one fine-tuning run, named as in Hugging Face's libraries. All but `model` have a default.

    `frozen_layers` counts layers from the bottom: 0 trains everything, 1 or more also freezes the embeddings. A search
    samples it as `frozen_share`, a share of the model's layers, since models differ in depth.
    """

    model: str = Field(description="The candidate model's label, as in `models`.")
    learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate.")
    batch_size: int = Field(32, ge=1, description="Effective batch size: examples per optimizer step.")
    epochs: int = Field(3, ge=1, description="Passes over the training data.")
    frozen_layers: int = Field(0, ge=0, description="Layers frozen from the bottom, as a count.")
    frozen_share: float | None = Field(
        None, ge=0, le=1, description="Layers frozen from the bottom, as a share of the model's layers."
    )
    optimizer: Literal["adamw", "adafactor"] = Field(
        "adamw", description="adafactor factors the second moments: less memory."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Learning rate of a layer, as a factor of that of the layer above."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weight decay, except for biases and norms.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler: Scheduler = Field("linear", description="Schedule by which the learning rate falls.")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout of all layers; null: the model's default.")
    head_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout before the output layer; null: as the rest of the model."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: weight the loss by inverse class frequency, so that all classes count equally."
    )
    train_fraction: float = Field(1.0, gt=0, le=1, description="Share of the training rows, of each class.")
    shots: int | None = Field(None, ge=1, description="Training rows of each class; null: all.")
    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of a text's tokens that are masked, sampled again in each epoch."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the loss.")
    augmentation: str = Field(
        "none",
        pattern=r"^[a-z]+(\+[a-z]+)*$",
        description="Random changes to training examples: names of the task's augmentations, joined by +; or none.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Rungs without a better value after which the trial stops; null never stops."
    )
    peft: Literal["none", "lora"] = Field("none", description="lora: train adapters in the layers that are not frozen.")
    lora_r: int = Field(8, ge=1, description="Rank of the adapters.")
    lora_alpha: float | None = Field(
        None, gt=0, description="Adapters are scaled by lora_alpha / lora_r; null: twice lora_r."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the inputs of the adapters.")
    lora_targets: Literal["attention", "all-linear"] = Field("all-linear", description="Matrices that get an adapter.")
    use_dora: bool = Field(False, description="Train the norms of adapted matrices as well (DoRA).")
    use_rslora: bool = Field(False, description="Scale by lora_alpha / sqrt(lora_r), for large ranks (rsLoRA).")

    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit: keep the adapted matrices in 4 bits (QLoRA); needs a GPU."
    )

    @field_validator("model")
    @classmethod
    def _named(cls, model: str) -> str:
        if not model:
            raise ValueError("must not be empty")
        return model

    @model_validator(mode="after")
    def _check_subset(self) -> "TrialParams":
        if self.shots is not None and self.train_fraction < 1:
            raise ValueError("write shots or train_fraction, not both")
        return self

    @model_validator(mode="before")
    @classmethod
    def _share_of_layers(cls, values: Any) -> Any:
        """Read `frozen_layers: {share: 0.5}` as `frozen_share: 0.5`."""
        if isinstance(values, dict) and isinstance(values.get("frozen_layers"), dict):
            given = values["frozen_layers"]
            if set(given) != {"share"}:
                raise ValueError("frozen_layers is a count, or {share: 0 to 1}")
            values = {**values, "frozen_share": given["share"]}
            del values["frozen_layers"]
        return values

    @property
    def uses_subset(self) -> bool:
        """Whether only a subset of the training rows is used."""
        return self.shots is not None or self.train_fraction < 1

    def active(self) -> dict[str, Any]:
        """Return the parameters that have an effect: settings of adapters only where there are adapters."""
        values = self.model_dump()
        return {
            name: v
            for name, v in values.items()
            if name not in REQUIRES or values[REQUIRES[name][0]] == REQUIRES[name][1]
        }

    @property
    def is_quantized(self) -> bool:
        """Whether the adapted matrices are kept in 4 bits."""
        return self.peft == "lora" and self.quantization == "4bit"

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of `augmentation`, in order."""
        return () if self.augmentation == "none" else tuple(self.augmentation.split("+"))

    def resolve_frozen_layers(self, layers: int) -> int:
        """Return the number of frozen layers in a model of `layers` layers.

        A share s of L layers is min(L, floor(s·(L+1))), so that a uniform share makes every count equally likely.
        Raises `ValueError` if the count exceeds the layers of the model.
        """
        if self.frozen_share is not None:
            return min(layers, int(self.frozen_share * (layers + 1)))
        if self.frozen_layers > layers:
            raise ValueError(f"frozen_layers: {self.frozen_layers} is more than the {layers} layers of {self.model}")
        return self.frozen_layers


def share_for_count(count: int, layers: int) -> float:
    """Return the midpoint of the shares that `resolve_frozen_layers` maps to `count` of `layers` layers."""
    return (count + 0.5) / (layers + 1)


class Report(BaseModel):
    """The report of a trial at a rung. `value` is the study's metric on validation, NaN if nothing was evaluated."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(description="The rung's number, from 1: comparable between trials.")
    epoch: float = Field(description="Epochs trained so far.")
    value: float
    metrics: dict[str, float] = Field(description="All metrics on validation, including `loss`.")
    spread: dict[str, float] = Field({}, description="k-fold: the metrics' standard deviation between folds.")
    train_loss: float = Field(description="Mean training loss since the last rung.")
    seconds: dict[str, float] = Field(description="Seconds so far by phase: load, train, evaluate, checkpoint.")
    peak_memory_mb: float = Field(description="Peak memory in MB: of the device on a GPU, of the process on a CPU.")
