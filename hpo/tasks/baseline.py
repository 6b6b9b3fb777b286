"""What a simple model reaches on the same data, so that a fine-tuned one has something to beat."""

import numpy as np
from datasets import Dataset

from hpo.data.columns import column_values
from hpo.data.splits import TEXT_ROLES
from hpo.tasks.metrics import Scorer
from hpo.tasks.task import TaskData

MOST_ROWS = 20_000


def tfidf_baseline(data: TaskData, scorer: Scorer) -> tuple[str, float] | None:
    """TF-IDF of words and word pairs with logistic regression, fitted on at most 20,000 training rows.

    Returns its name and its metric on the test split; None without a test split, or for the metric `loss`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if data.test is None or scorer.name == "loss":
        return None
    texts, labels = _texts(data.train), np.array(column_values(data.train, "label"))
    if len(texts) > MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(texts))[:MOST_ROWS]
        texts, labels = [texts[place] for place in chosen], labels[chosen]
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(texts, labels)
    scores = scorer(model.predict(_texts(data.test)), np.array(column_values(data.test, "label")))
    return "TF-IDF + logistic regression", scores[scorer.name]


def _texts(rows: Dataset) -> list[str]:
    columns = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
    return [" ".join(texts) for texts in zip(*columns, strict=True)]
