"""A FastAPI endpoint that does nothing: the least that one request costs."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.servers.loop import Asked, arguments, serve


def main() -> None:
    app = FastAPI()

    @app.post("/v1/completions")
    async def complete(asked: Asked) -> dict[str, list[dict[str, str]]]:
        return {"choices": [{"text": "a"}]}

    serve(app, arguments().port)


if __name__ == "__main__":
    main()
