"""A model server: GET /health answers 200 once the model is loaded, POST / answers a row with its area."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Load your model here.


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        try:
            row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(200, {"area": row["length"] * row["width"]})
        except (ValueError, KeyError, TypeError) as error:
            self._answer(400, {"error": repr(error)})

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
