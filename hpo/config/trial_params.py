"""What one trial is: the hyperparameters a search may sample, and what a trial reports."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# What a parameter needs to be of use: the value of another.
REQUIRES: dict[str, tuple[str, Any]] = dict.fromkeys(
    ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "use_dora", "use_rslora", "quantization"), ("peft", "lora")
)

Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "warmup_stable_decay"]


class TrialParams(BaseModel):
    """The hyperparameters of one fine-tuning run. Every one but `model` has a default; names are Hugging Face's.

    `frozen_layers` counts from the bottom (0 trains everything, 1 or more also freezes the embeddings). A
    search samples it as `frozen_share`, a share of the model's layers, since models differ in depth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="The candidate model's label, as in `models`.")
    learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate.")
    batch_size: int = Field(32, ge=1, description="Effective batch size: examples per optimizer step.")
    epochs: int = Field(3, ge=1, description="Passes over the training data.")
    frozen_layers: int = Field(0, ge=0, description="Layers frozen from the bottom, as a count.")
    frozen_share: float | None = Field(
        None, ge=0, le=1, description="Layers frozen from the bottom, as a share of the model's layers."
    )
    optimizer: Literal["adamw", "adafactor"] = Field("adamw", description="adafactor keeps a fraction of the moments.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each layer's rate is so many times that of the one above it; 1: all the same."
    )
    weight_decay: float = Field(0.01, ge=0, description="The optimizer's decay, not on biases and norms.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    lr_scheduler: Scheduler = Field("linear", description="How the learning rate falls.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout of the whole model; null keeps the model's own."
    )
    head_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout before the answer alone; null: as the rest of the model."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: rare classes count for more in the loss, so that each weighs the same in all."
    )
    train_fraction: float = Field(1.0, gt=0, le=1, description="Share of the training rows, of each class.")
    shots: int | None = Field(None, ge=1, description="Training rows of each class; null: all.")
    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of a text's tokens that are hidden, others in each epoch."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the loss.")
    augmentation: str = Field(
        "none",
        pattern=r"^[a-z]+(\+[a-z]+)*$",
        description="How training examples are changed at random: names that the task knows, joined by +; none.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Rungs without a better value after which the trial stops; null never stops."
    )
    peft: Literal["none", "lora"] = Field("none", description="lora trains adapters in the layers that are not frozen.")
    lora_r: int = Field(8, ge=1, description="Rank of the adapters.")
    lora_alpha: float | None = Field(
        None, gt=0, description="Adapters are scaled by lora_alpha / lora_r; null: twice lora_r."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of what the adapters read.")
    lora_targets: Literal["attention", "all-linear"] = Field("all-linear", description="Which matrices are adapted.")
    use_dora: bool = Field(False, description="Train the norms of adapted matrices too (DoRA).")
    use_rslora: bool = Field(False, description="Scale by lora_alpha / sqrt(lora_r), for large ranks (rsLoRA).")

    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit keeps what adapters stand beside in 4 bits (QLoRA), on a GPU."
    )

    @field_validator("model")
    @classmethod
    def _named(cls, model: str) -> str:
        if not model:
            raise ValueError("a model needs a name")
        return model

    @model_validator(mode="after")
    def _one_kind_of_few(self) -> "TrialParams":
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
        """Whether a part of the training rows is trained on."""
        return self.shots is not None or self.train_fraction < 1

    def active(self) -> dict[str, Any]:
        """The parameters that have a part in the run: adapters' settings only where there are adapters."""
        values = self.model_dump()
        return {
            name: v
            for name, v in values.items()
            if name not in REQUIRES or values[REQUIRES[name][0]] == REQUIRES[name][1]
        }

    @property
    def is_quantized(self) -> bool:
        """Whether adapters train beside matrices in 4 bits."""
        return self.peft == "lora" and self.quantization == "4bit"

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of `augmentation`, in order."""
        return () if self.augmentation == "none" else tuple(self.augmentation.split("+"))

    def resolve_frozen_layers(self, layers: int) -> int:
        """The number of frozen layers in a model of `layers` layers.

        A share s of L layers is min(L, floor(s·(L+1))), so that a uniform share makes every count equally
        likely. Raises `ValueError` when the count is more than the model has.
        """
        if self.frozen_share is not None:
            return min(layers, int(self.frozen_share * (layers + 1)))
        if self.frozen_layers > layers:
            raise ValueError(f"frozen_layers: {self.frozen_layers} is more than the {layers} layers of {self.model}")
        return self.frozen_layers


def share_for_count(count: int, layers: int) -> float:
    """The share in the middle of those that `resolve_frozen_layers` turns into `count` of `layers`."""
    return (count + 0.5) / (layers + 1)


class Report(BaseModel):
    """What a trial tells at a rung. `value` is the study's metric on validation, NaN where nothing is evaluated."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(description="The rung's number, from 1: comparable between trials.")
    epoch: float = Field(description="Epochs trained so far.")
    value: float
    metrics: dict[str, float] = Field(description="All metrics on validation, `loss` among them.")
    spread: dict[str, float] = Field({}, description="Of k-fold validation, each metric's deviation between folds.")
    train_loss: float = Field(description="Mean training loss since the last rung.")
    seconds: dict[str, float] = Field(description="Seconds so far by phase: load, train, evaluate, checkpoint.")
    peak_memory_mb: float = Field(description="Peak memory: of the device on a GPU, of the process on a CPU.")
