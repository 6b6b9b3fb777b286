"""What holds for every test: the hub is never asked."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, at its import
