"""SQuAD's nested JSON: articles with paragraphs, each with a context and its questions."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def is_squad(articles: Any) -> bool:
    """Return whether a value is a list of articles with paragraphs."""
    return (
        isinstance(articles, list)
        and bool(articles)
        and all(isinstance(one, Mapping) and isinstance(one.get("paragraphs"), list) for one in articles)
    )


def squad_questions(articles: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each question with its context, and its answers as a dict of lists; unanswerable ones have none."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for asked in paragraph.get("qas") or ():
                answers = [] if asked.get("is_impossible") else asked.get("answers") or []
                yield {
                    "id": asked.get("id"),
                    "title": article.get("title"),
                    "context": paragraph.get("context"),
                    "question": asked.get("question"),
                    "answers": {
                        "text": [answer.get("text") for answer in answers],
                        "answer_start": [answer.get("answer_start") for answer in answers],
                    },
                }
