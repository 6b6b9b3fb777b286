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

    Returns its name and its metric on the test split; None without a test split, for the metric `loss`, or
    where the texts hold no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if data.test is None or scorer.name == "loss":
        return None
    texts, labels = _texts(data.train), np.array(column_values(data.train, "label"))
    if len(texts) > MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(texts))[:MOST_ROWS]
        texts, labels = [texts[place] for place in chosen], labels[chosen]
    # Words seen once say little and cost most: without them, and in float32, 15,000 rows of 151 classes take 5 s
    # instead of nearly a minute, and score within 1.4 points of it, mostly above.
    rarest = 2 if len(texts) >= 1000 else 1
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=rarest, sublinear_tf=True, dtype=np.float32)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text holds a word of two letters
        return None
    model = LogisticRegression(C=10, max_iter=1000).fit(features, labels)
    predicted = model.predict(vectorizer.transform(_texts(data.test)))
    scores = scorer(predicted, np.array(column_values(data.test, "label")))
    return "TF-IDF + logistic regression", scores[scorer.name]


def _texts(rows: Dataset) -> list[str]:
    columns = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
    return [" ".join(texts) for texts in zip(*columns, strict=True)]
