"""Search with a task, a metric and a callback of your own, in files that no package holds, by two workers.

    python examples/own_task/run.py [FOLDER]     # under a minute on two cores; no hub, no GPU

With such a study file it is `hpo run study.yaml`.
"""

import itertools
import random
import shutil
import sys
import tempfile
from pathlib import Path

import hpo

STUDY = """\
task: ./task.py
metric: ./my_metric.py
callbacks: [./callback.py]
data: pairs.csv
models: [{models}/bert-3x128, {models}/electra-6x112]
search_space:
  learning_rate: {{low: 3e-4, high: 3e-3, log: true}}
  epochs: 3
first_trials: [{{learning_rate: 1e-3}}]
budget: {{max_trials: {trials}}}
confirm: {{top: 1, seeds: 1}}
workers: 2
devices: cpu
"""
WORDS = {
    "animal": "dog cat horse cow bird fish wolf bear lion mouse".split(),
    "plant": "oak rose tree grass flower fern pine moss wheat apple".split(),
    "large": "big huge large giant tall".split(),
    "small": "small tiny little short thin".split(),
}


def main(folder: Path, trials: int = 4) -> hpo.Result:
    here = Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("task.py", "my_metric.py", "callback.py"):
        shutil.copy(here / name, folder)
    rows = [
        f"{adjective} {noun},{kind},{size}"
        for kind, size in itertools.product(("animal", "plant"), ("large", "small"))
        for noun, adjective in itertools.product(WORDS[kind], WORDS[size])
    ]
    random.Random(0).shuffle(rows)
    (folder / "pairs.csv").write_text("\n".join(["words,kind,size", *rows]) + "\n")
    study = folder / "study.yaml"
    study.write_text(STUDY.format(models=here.parent / "models", trials=trials))
    result = hpo.run(study)
    print(result)
    for answer in result.predict(["huge lion", "tiny rose"]):
        print(f"{answer['text']} → {answer['label']}")
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
