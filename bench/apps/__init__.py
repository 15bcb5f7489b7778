"""The ways to accept a task that are compared, each a FastAPI app: `uvicorn bench.apps.<name>:app`."""
