"""The surrogate model of configurations, curves and costs."""
