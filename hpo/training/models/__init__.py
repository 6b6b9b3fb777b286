"""Candidate models: loading, layers, LoRA, quantization, footprint."""
