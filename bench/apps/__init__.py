"""The compared implementations, each a FastAPI app that accepts tasks: `uvicorn bench.apps.<name>:app`."""
