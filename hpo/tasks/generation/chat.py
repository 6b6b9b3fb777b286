"""Prompts, completions and conversations as tokens, each part with whether it is to be learnt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

from hpo.data.labels.prompts import ASSISTANT, Message
from hpo.errors import DataError
from hpo.tasks.generation.generate import end_of_text

# For tokenizers that bring no chat template: a line `role: content` for each message, and the token that ends a text
# after each answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ message['role'] }}: {{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{% if messages %}{{ '\\n' }}{% endif %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Part:
    """Tokens that follow each other, and whether a model is to learn to say them."""

    tokens: list[int]
    learnt: bool


def parts_of_text(text: str, tokenizer: Any) -> tuple[list[Part], int]:
    """A text that is learnt as a whole, and its bytes."""
    whole = [*_tokens(text, tokenizer), *_end(tokenizer)]
    return [Part(start_of_text(tokenizer), False), Part(whole, True)], len(text.encode())


def parts_of_completion(
    prompt: str, completion: str | None, tokenizer: Any, as_it_is: bool = False
) -> tuple[list[Part], int]:
    """A prompt and what is to follow it (None: not known yet), and the bytes of that.

    A line break stands between them where the prompt ends with no white space of its own, so that a tokenizer sees two
    texts, and not one word of both; unless the prompt is taken `as_it_is`.
    """
    asked = prompt if as_it_is or not prompt or prompt[-1].isspace() else f"{prompt}\n"
    parts = [Part([*start_of_text(tokenizer), *_tokens(asked, tokenizer)], False)]
    if completion is None:
        return parts, 0
    said = completion.strip()
    return [*parts, Part([*_tokens(said, tokenizer), *_end(tokenizer)], True)], len(said.encode())


def parts_of_chat(chat: Sequence[Message], tokenizer: Any, to_answer: bool = False) -> tuple[list[Part], int]:
    """A conversation by the tokenizer's chat template; learnt are the assistant's messages.

    All of them, or only the last, where the template writes those before it differently (without their thoughts, say).
    `to_answer`: it ends where the assistant is to speak. Also the bytes of what is learnt. Raises `DataError`.
    """
    import jinja2

    def render(messages: Sequence[Message], ask: bool) -> str:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask)
        return text

    try:
        turns = [(render(chat, True), "")] if to_answer else _turns(chat, render)
    except jinja2.TemplateError as error:
        raise DataError(f"The tokenizer's chat template refuses a conversation: {error}") from error
    parts = [Part(start_of_text(tokenizer) if tokenizer.chat_template == PLAIN_TEMPLATE else [], False)]
    for before, said in turns:
        parts += [Part(_tokens(before, tokenizer), False), Part(_tokens(said, tokenizer), True)]
    end = _end(tokenizer)
    if not to_answer and not set(end) & set(parts[-1].tokens):
        parts[-1] = Part([*parts[-1].tokens, *end], True)
    answers = [message["content"] for message in chat if message["role"] == ASSISTANT][-len(turns) :]
    return parts, sum(len(answer.encode()) for answer in answers)


def _turns(chat: Sequence[Message], render: Callable[[Sequence[Message], bool], str]) -> list[tuple[str, str]]:
    """What stands before each of the assistant's messages, and the message, as the template writes them."""
    places = [place for place, message in enumerate(chat) if message["role"] == ASSISTANT]
    found, done = [], ""
    for place in places:
        before, after = render(chat[:place], True), render(chat[: place + 1], False)
        if not (before.startswith(done) and after.startswith(before)):
            break
        found.append((before[len(done) :], after[len(before) :]))
        done = after
    if len(found) == len(places):
        return found
    before, after = render(chat[: places[-1]], True), render(chat[: places[-1] + 1], False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    return [(after[:shared], after[shared:])]


@lru_cache(maxsize=32)
def _start(tokenizer: Any) -> tuple[int, ...]:
    whole, bare = tokenizer("a")["input_ids"], _tokens("a", tokenizer)
    first = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return tuple(whole[:first])


def start_of_text(tokenizer: Any) -> list[int]:
    """The tokens that a tokenizer puts before a text."""
    return list(_start(tokenizer))


def _end(tokenizer: Any) -> list[int]:
    end = end_of_text(tokenizer)
    return [] if end is None else [end]


def _tokens(text: str, tokenizer: Any) -> list[int]:
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return tokens
