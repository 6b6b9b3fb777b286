"""Baselines: simple models on the same data, as a reference for the fine-tuned one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset

from hpo.data.columns import column_values
from hpo.data.splits.create import TEXT_ROLES, take
from hpo.tasks.metrics.scorer import Scorer, object_array
from hpo.tasks.task_data import TaskData

MOST_ROWS = 20_000
MOST_FILES = 5_000


def tfidf_baseline(data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """Score TF-IDF of words and word pairs with logistic regression, fitted on at most 20,000 training rows.

    Labels are class numbers, or a 0 or 1 for each class. Returns the baseline's name and its metric on the test split;
    None without a test split, for the metric `loss`, or where the texts contain no words.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    multi_label = isinstance(column_values(data.train, "label")[0], list)

    def fit(texts: list[list[str]], labels: Any) -> Any:
        features = fit_words([" ".join(row) for row in zip(*texts, strict=True)])

        def vectors(texts: list[list[str]]) -> Any:
            return features.transform(map(" ".join, zip(*texts, strict=True)))

        logistic = LogisticRegression(C=10, max_iter=1000)
        model = (OneVsRestClassifier(logistic) if multi_label else logistic).fit(vectors(texts), labels)
        return lambda texts: model.predict(vectors(texts))

    return score_baseline("TF-IDF + logistic regression", fit, data, scorer)


def ridge_baseline(data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """Score TF-IDF with ridge regression; for a pair of texts, on the product and the difference of their vectors.

    Returns as `tfidf_baseline` does.
    """
    import scipy.sparse
    from sklearn.linear_model import Ridge

    def fit(texts: list[list[str]], labels: Any) -> Any:
        features = fit_words([text for column in texts for text in column])

        def vectors(texts: list[list[str]]) -> Any:
            each = [features.transform(column) for column in texts]
            if len(each) == 1:
                return each[0]
            shared = each[0].multiply(each[1])
            cosine = scipy.sparse.csr_array(np.asarray(shared.sum(1)).reshape(-1, 1))
            return scipy.sparse.hstack([cosine, shared, abs(each[0] - each[1])])

        model = Ridge(alpha=1.0).fit(vectors(texts), labels)
        return lambda texts: model.predict(vectors(texts))

    return score_baseline("TF-IDF + ridge regression", fit, data, scorer)


def copy_baseline(name: str, copy: Callable[[str], str], data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """Score the output of `copy` for each text of the test split.

    Returns `name` and its metric; None without a test split, or for the metric `loss`.
    """
    if data.test is None or scorer.name == "loss":
        return None
    predictions = object_array([copy(text) for text in column_values(data.test, "text")])
    references = object_array([tuple(texts) for texts in column_values(data.test, "label")])
    return name, scorer(predictions, references)[scorer.name]


def logistic_baseline(
    name: str, vectors: Callable[[Dataset], Any], data: TaskData, scorer: Scorer
) -> tuple[str, float] | None:
    """Score logistic regression on the features `vectors` of rows, [rows, width], fitted on at most 5,000 rows.

    Returns as `tfidf_baseline` does.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if data.test is None or scorer.name == "loss":
        return None
    train = data.train
    if len(train) > MOST_FILES:
        train = take(train, np.random.default_rng(0).permutation(len(train))[:MOST_FILES].tolist())
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(vectors(train), column_values(train, "label"))
    scores = scorer(model.predict(vectors(data.test)), np.array(column_values(data.test, "label")))
    return name, scores[scorer.name]


def score_baseline(
    name: str,
    fit: Callable[[list[list[Any]], Any], Any],
    data: TaskData,
    scorer: Scorer,
    references: Callable[[list[Any]], Any] = np.array,
) -> tuple[str, float] | None:
    """Score on test a model that `fit` fits to at most 20,000 training rows: (columns of texts, labels) → a function.

    The function returns labels for columns of texts. `references` converts a column of labels to the scorer's form.
    Returns `name` and a metric as `tfidf_baseline` does.
    """
    if data.test is None or scorer.name == "loss":
        return None
    texts, labels = _texts(data.train), references(column_values(data.train, "label"))
    if len(labels) > MOST_ROWS:
        sample = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS]
        texts, labels = [[column[index] for index in sample] for column in texts], labels[sample]
    try:
        predict = fit(texts, labels)
    except _NoWords:
        return None
    scores = scorer(predict(_texts(data.test)), references(column_values(data.test, "label")))
    return name, scores[scorer.name]


class _NoWords(Exception):
    """No text contains a word of two letters."""


def fit_words(texts: list[str]) -> Any:
    """Return a TF-IDF vectorizer of the words and word pairs of `texts`. Raises `_NoWords`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words seen once contribute little and cost most: without them, and in float32, 15,000 rows of 151 classes take 5 s
    # instead of nearly a minute, and score within 1.4 points of it, mostly above.
    rarest = 2 if len(texts) >= 1000 else 1
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=rarest, sublinear_tf=True, dtype=np.float32)
    try:
        return vectorizer.fit(texts)
    except ValueError as error:
        raise _NoWords from error


def _texts(rows: Dataset) -> list[list[str]]:
    """Return the one or two columns of texts."""
    return [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]


def sentences(text: str) -> list[str]:
    """Split a text into sentences, at words that end with a full stop, question or exclamation mark.

    >>> sentences("One. Two, e.g. this? three")
    ['One.', 'Two, e.g. this?', 'three']
    """
    found, words = [], text.split()
    start = 0
    for index, word in enumerate(words, 1):
        long = len(word.strip(".!?\"')")) > 1 and "." not in word[:-1]
        if index == len(words) or (word.rstrip("\"')").endswith((".", "!", "?")) and long):
            found.append(" ".join(words[start:index]))
            start = index
    return found
