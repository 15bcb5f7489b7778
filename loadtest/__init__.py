"""The load test: Locust against any host, or against the whole system started here; gates, and one report."""
