"""Prompts, completions and conversations as tokens, with the parts that are learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

from hpo.data.labels.prompts import ASSISTANT, Message, is_learned
from hpo.errors import DataError
from hpo.tasks.generation.generate import end_of_text

# For tokenizers without a chat template: a line `role: content` for each message, and the end-of-text token after each
# answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ message['role'] }}: {{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{% if messages %}{{ '\\n' }}{% endif %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Part:
    """Consecutive tokens, and whether the model learns to predict them."""

    tokens: list[int]
    learned: bool


def tokenize_text(text: str, tokenizer: Any) -> tuple[list[Part], int]:
    """Return the tokens of a text that is learned as a whole, and its bytes."""
    tokens = [*_tokens(text, tokenizer), *_end(tokenizer)]
    return [Part(start_of_text(tokenizer), False), Part(tokens, True)], len(text.encode())


def tokenize_completion(
    prompt: str, completion: str | None, tokenizer: Any, as_is: bool = False
) -> tuple[list[Part], int]:
    """Return the tokens of a prompt and its completion (None: to be generated), and the completion's bytes.

    A prompt that does not end with white space is followed by a line break, so that a tokenizer does not merge it with
    the completion; unless it is used `as_is`.
    """
    text = prompt if as_is or not prompt or prompt[-1].isspace() else f"{prompt}\n"
    parts = [Part([*start_of_text(tokenizer), *_tokens(text, tokenizer)], False)]
    if completion is None:
        return parts, 0
    learned = completion.strip()
    return [*parts, Part([*_tokens(learned, tokenizer), *_end(tokenizer)], True)], len(learned.encode())


def tokenize_chat(chat: Sequence[Message], tokenizer: Any, to_answer: bool = False) -> tuple[list[Part], int]:
    """Return the tokens of a conversation by the tokenizer's chat template, and the bytes that are learned of it.

    The assistant's messages are learned: all of them, or only the last, where the template renders earlier ones
    differently (without their thoughts, for example). With `to_answer`, it ends where the assistant answers. Raises
    `DataError` where the template rejects the conversation.
    """
    import jinja2

    def render(messages: Sequence[Message], prompt: bool) -> str:
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt)
        return text

    try:
        turns = [(render(chat, True), "", False)] if to_answer else _turns(chat, render)
    except jinja2.TemplateError as error:
        raise DataError(f"The tokenizer's chat template rejects a conversation: {error}") from error
    parts = [Part(start_of_text(tokenizer) if tokenizer.chat_template == PLAIN_TEMPLATE else [], False)]
    for before, answer, learned in turns:
        parts += [Part(_tokens(before, tokenizer), False), Part(_tokens(answer, tokenizer), learned)]
    end = _end(tokenizer)
    if not to_answer and not set(end) & set(parts[-1].tokens):
        parts[-1] = Part([*parts[-1].tokens, *end], parts[-1].learned)
    answers = [message for message in chat if message["role"] == ASSISTANT][-len(turns) :]
    return parts, sum(len(answer["content"].encode()) for answer in answers if is_learned(answer))


def _turns(chat: Sequence[Message], render: Callable[[Sequence[Message], bool], str]) -> list[tuple[str, str, bool]]:
    """Return the text before each of the assistant's messages, the message, and whether it is learned, as rendered."""
    indices = [index for index, message in enumerate(chat) if message["role"] == ASSISTANT]
    found, done = [], ""
    for index in indices:
        before, after = render(chat[:index], True), render(chat[: index + 1], False)
        if not (before.startswith(done) and after.startswith(before)):
            break
        found.append((before[len(done) :], after[len(before) :], is_learned(chat[index])))
        done = after
    if len(found) == len(indices):
        return found
    if not is_learned(chat[indices[-1]]):
        raise DataError(
            "The tokenizer's chat template renders earlier answers differently once the conversation continues: "
            "only the last answer can be learned, but that of a conversation has the weight 0. End the conversation "
            "before it."
        )
    before, after = render(chat[: indices[-1]], True), render(chat[: indices[-1] + 1], False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    return [(after[:shared], after[shared:], True)]


@lru_cache(maxsize=32)
def _start(tokenizer: Any) -> tuple[int, ...]:
    full, bare = tokenizer("a")["input_ids"], _tokens("a", tokenizer)
    first = next(index for index in range(len(full)) if full[index : index + len(bare)] == bare)
    return tuple(full[:first])


def start_of_text(tokenizer: Any) -> list[int]:
    """Return the special tokens that a tokenizer puts before a text."""
    return list(_start(tokenizer))


def _end(tokenizer: Any) -> list[int]:
    end = end_of_text(tokenizer)
    return [] if end is None else [end]


def _tokens(text: str, tokenizer: Any) -> list[int]:
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return tokens
