"""The surrogate model of configurations, learning curves and costs, and its acquisition function."""
