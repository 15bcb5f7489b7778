"""The load test: Locust loads a host, or a system that is started on this machine; gates and a report."""
