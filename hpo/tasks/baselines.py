"""What a simple model reaches on the same data, so that a fine-tuned one has something to beat."""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset

from hpo.data.columns import column_values
from hpo.data.splits.create import TEXT_ROLES, take
from hpo.tasks.metrics.scorer import Scorer, one_each
from hpo.tasks.task_data import TaskData

MOST_ROWS = 20_000
MOST_FILES = 5_000


def tfidf_baseline(data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """TF-IDF of words and word pairs with logistic regression, fitted on at most 20,000 training rows.

    Labels are class numbers, or a 0 or 1 for each class. Returns its name and its metric on the test split; None
    without a test split, for the metric `loss`, or where the texts hold no words.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    several = isinstance(column_values(data.train, "label")[0], list)

    def fit(texts: list[list[str]], labels: Any) -> Any:
        features = fit_words([" ".join(row) for row in zip(*texts, strict=True)])

        def vectors(texts: list[list[str]]) -> Any:
            return features.transform(map(" ".join, zip(*texts, strict=True)))

        logistic = LogisticRegression(C=10, max_iter=1000)
        model = (OneVsRestClassifier(logistic) if several else logistic).fit(vectors(texts), labels)
        return lambda texts: model.predict(vectors(texts))

    return measured("TF-IDF + logistic regression", fit, data, scorer)


def ridge_baseline(data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """TF-IDF with ridge regression; of a pair of texts, what their vectors share and where they differ.

    Returns what `tfidf_baseline` does.
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

    return measured("TF-IDF + ridge regression", fit, data, scorer)


def copy_baseline(name: str, copy: Callable[[str], str], data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """What `copy` makes of each text of the test split, held against the texts that are right.

    Returns `name` and its metric; None without a test split, or for the metric `loss`.
    """
    if data.test is None or scorer.name == "loss":
        return None
    said = one_each([copy(text) for text in column_values(data.test, "text")])
    right = one_each([tuple(texts) for texts in column_values(data.test, "label")])
    return name, scorer(said, right)[scorer.name]


def logistic_baseline(
    name: str, vectors: Callable[[Dataset], Any], data: TaskData, scorer: Scorer
) -> tuple[str, float] | None:
    """Logistic regression on what `vectors` makes of rows, [rows, width], fitted on at most 5,000 of training.

    Returns what `tfidf_baseline` does.
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


def measured(
    name: str,
    fit: Callable[[list[list[Any]], Any], Any],
    data: TaskData,
    scorer: Scorer,
    right: Callable[[list[Any]], Any] = np.array,
) -> tuple[str, float] | None:
    """Score on test what `fit` makes of at most 20,000 training rows: columns of texts and labels → a function.

    That says of columns of texts what their labels are. `right` makes of a column of labels what the scorer compares
    with. Returns `name` and what `tfidf_baseline` does.
    """
    if data.test is None or scorer.name == "loss":
        return None
    texts, labels = _texts(data.train), right(column_values(data.train, "label"))
    if len(labels) > MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS]
        texts, labels = [[column[place] for place in chosen] for column in texts], labels[chosen]
    try:
        predict = fit(texts, labels)
    except _NoWords:
        return None
    scores = scorer(predict(_texts(data.test)), right(column_values(data.test, "label")))
    return name, scores[scorer.name]


class _NoWords(Exception):
    """No text holds a word of two letters."""


def fit_words(texts: list[str]) -> Any:
    """A TF-IDF of the words and word pairs of `texts`. Raises `_NoWords`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words seen once say little and cost most: without them, and in float32, 15,000 rows of 151 classes take 5 s
    # instead of nearly a minute, and score within 1.4 points of it, mostly above.
    rarest = 2 if len(texts) >= 1000 else 1
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=rarest, sublinear_tf=True, dtype=np.float32)
    try:
        return vectorizer.fit(texts)
    except ValueError as error:
        raise _NoWords from error


def _texts(rows: Dataset) -> list[list[str]]:
    """The one or two columns of texts."""
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
