"""The prediction part of a task: what a final model predicts for a user's inputs, and how inputs are given."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.tasks.task_data import TaskData

if TYPE_CHECKING:
    import torch


class Prediction(ABC):
    """Predicts with a final model: a folder with the model and its processor, which transformers loads without hpo."""

    final_processor_class: str = "AutoTokenizer"
    """The `transformers` class that loads a final model's processor."""
    input_types: tuple[type, ...] = (str,)
    """Python types of a single input that is no file: `str` for a text, `list` too for words or messages."""
    pipeline_tag: str
    """The name of the task on the Hugging Face Hub."""
    usage: str
    """Python code for the model card that uses the final model with transformers alone.

    `{max_length}` in it is replaced by the length that training truncated inputs to.
    """
    limitations: str = "Predictions for inputs unlike the training data are unreliable."
    """A sentence for the model card on what predictions are not."""

    def finalize_model(self, model: Any, data: TaskData) -> None:
        """Change a trained model in place to the one that is saved: one that predicts in the user's units."""
        return

    @abstractmethod
    def predict(
        self, model: Any, processor: Any, rows: Sequence[Any], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """Predict with a final model, on the device that it is on: one dictionary per row, in order.

        `rows` are inputs as `read_inputs` returns them. A result contains the prediction, `label` for most tasks, and
        last the input itself. `hpo.tasks.inference.run_inference` batches the rows. Raises `DataError` where a row is
        no input of this task.
        """
        ...

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor | None":
        """Return the probability of each class, [inputs, classes], given a final model's logits.

        None where the task predicts no classes for an input.
        """
        return None

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        """Return an example of `hpo predict`'s arguments for one input; `columns` maps roles to source columns."""
        return ("a text", "another text") if "text_pair" in columns else ("a text",)

    def parse_arguments(self, arguments: Sequence[str], columns: Mapping[str, str]) -> list[Any] | None:
        """Return the inputs that command-line `arguments` specify, as `predict` takes them.

        None where the last input is incomplete.
        """
        if len(self.example_inputs(columns)) == 1:
            return list(arguments)
        return None if len(arguments) % 2 else list(zip(arguments[::2], arguments[1::2], strict=True))

    def describe_inputs(self, columns: Mapping[str, str]) -> str:
        """Describe one input, such as `pairs of 'question' and 'context'`."""
        named = [f"'{column}'" for role, column in columns.items() if role != "label"]
        return f"pairs of {' and '.join(named)}" if len(named) == 2 else ", ".join(named)

    @abstractmethod
    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        """Read inputs for `predict` from a file.

        `columns` are those that the model was trained on (role → column); where the file lacks one, its columns are
        recognized as in training. Raises `DataError`.
        """
        ...
