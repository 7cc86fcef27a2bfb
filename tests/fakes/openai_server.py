"""The part of OpenAI's API that batch inference uses, in a form that the client of PyPI accepts."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_ROLES = ("system", "developer", "user", "assistant", "tool")
_KNOWN = {
    "model",
    "messages",
    "temperature",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "top_p",
    "user",
}


class OpenAIServer:
    """Answers chat completions of the model ``tiny`` in upper case, to those who have the key."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.asked: list[dict[str, Any]] = []
        server = self

        class Handler(_Handler):
            fake = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address, without ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A chat completion. Raises ValueError with the parameter that is wrong."""
        messages = asked.get("messages")
        if unknown := sorted(set(asked) - _KNOWN):
            raise ValueError(f"Unrecognized request argument supplied: {unknown[0]}")
        if asked.get("stream"):
            raise ValueError("stream is not supported here")
        if not isinstance(messages, list) or not messages:
            raise ValueError("'messages' should be a list that is not empty")
        for message in messages:
            if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
                raise ValueError(f"Invalid message: {message}")
        if not 0 <= asked.get("temperature", 1) <= 2:
            raise ValueError("'temperature' should be from 0 to 2")
        self.asked.append(asked)
        text = messages[-1]["content"].upper()
        spoken, sent = len(text.split()), sum(len(one["content"].split()) for one in messages)
        answer = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": f"chatcmpl-{len(self.asked)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked["model"],
            "choices": [{"index": 0, "message": answer, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": sent, "completion_tokens": spoken, "total_tokens": sent + spoken},
        }


class _Handler(BaseHTTPRequestHandler):
    fake: OpenAIServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        if self._allowed():
            model = {"id": "tiny", "object": "model", "created": 0, "owned_by": "nobody"}
            found = self.path == "/v1/models"
            self._answer(200, {"object": "list", "data": [model]}) if found else self._refuse(404, "Unknown address")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._allowed():
            return
        if self.path != "/v1/chat/completions":
            self._refuse(404, f"Unknown address {self.path}")
            return
        try:
            asked = json.loads(body)
            if asked.get("model") != "tiny":
                self._refuse(404, f"The model `{asked.get('model')}` does not exist", "model_not_found")
                return
            self._answer(200, self.fake.complete(asked))
        except ValueError as error:
            self._refuse(400, str(error))

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.fake.key}":
            return True
        self._refuse(401, "Incorrect API key provided", "invalid_api_key")
        return False

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self._answer(status, {"error": error})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
