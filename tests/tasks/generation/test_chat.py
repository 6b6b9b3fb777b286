"""Conversations as tokens, by the tokenizer's chat template or the plain one."""

from typing import Any

import pytest

from hpo.config.model_ref import ModelRef
from hpo.tasks.generation.causal_lm import CausalLM
from hpo.tasks.generation.chat import PLAIN_TEMPLATE, tokenize_chat
from hpo.training.models.candidate import Candidate, load_candidate
from tests.small_models import save_model

TASK = CausalLM()


CHAT = [
    {"role": "user", "content": "good"},
    {"role": "assistant", "content": "bad film"},
    {"role": "user", "content": "the film"},
    {"role": "assistant", "content": "poor"},
]


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = save_model(tmp_path_factory.mktemp("gpt2"), "gpt2")
    return load_candidate(ref=ModelRef(name=str(folder), label="g"), auto_class=TASK.auto_class, head={})


def tokens_of(candidate: Candidate, template: str, **more: Any) -> list[tuple[str, bool]]:
    tokenizer = candidate.processor
    tokenizer.chat_template = template
    try:
        parts, _ = tokenize_chat(CHAT, tokenizer, **more)
    finally:
        tokenizer.chat_template = None
    return [(tokenizer.decode(part.tokens), part.learned) for part in parts if part.tokens]


def test_all_answers_are_learned(candidate: Candidate) -> None:
    template = (
        "{% for m in messages %}{{ '[CLS]' if m.role == 'user' else '[SEP]' }} {{ m.content }} [MASK] {% endfor %}"
        "{% if add_generation_prompt %}[SEP]{% endif %}"
    )
    assert tokens_of(candidate, template) == [
        ("[CLS] good [MASK] [SEP]", False),
        ("bad film [MASK]", True),
        ("[CLS] the film [MASK] [SEP]", False),
        ("poor [MASK] [SEP]", True),  # and what ends the text
    ]
    assert tokens_of(candidate, template, to_answer=True)[-1] == (
        "[CLS] good [MASK] [SEP] bad film [MASK] [CLS] the film [MASK] [SEP] poor [MASK] [SEP]",
        False,
    )


def test_last_answer_is_learned_where_a_template_rewrites_earlier_ones(candidate: Candidate) -> None:
    template = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }} [MASK] {% endif %}{% endfor %}"
    )
    assert tokens_of(candidate, template) == [("good [MASK] the film [MASK]", False), ("poor [MASK] [SEP]", True)]


def test_plain_template() -> None:
    from jinja2 import Template

    rendered = Template(PLAIN_TEMPLATE).render(messages=CHAT, eos_token="</s>", add_generation_prompt=False)
    assert rendered == "user: good\nassistant: bad film</s>\nuser: the film\nassistant: poor</s>"
    prompt = Template(PLAIN_TEMPLATE).render(messages=CHAT[:1], eos_token="</s>", add_generation_prompt=True)
    assert prompt == "user: good\nassistant:" and rendered.startswith(prompt)


def test_an_answer_of_weight_0_is_read_but_not_learned(candidate: Candidate) -> None:
    tokenizer = candidate.processor
    tokenizer.chat_template = PLAIN_TEMPLATE
    try:
        chat = [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]]
        parts, size = tokenize_chat(chat, tokenizer)
    finally:
        tokenizer.chat_template = None
    learned = [tokenizer.decode(part.tokens) for part in parts if part.learned]
    assert len(learned) == 1 and "poor" in learned[0] and size == len("poor")
    assert any("bad film" in tokenizer.decode(part.tokens) for part in parts)
