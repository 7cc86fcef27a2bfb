# Starts the model server in the foreground; it listens on 127.0.0.1 at $PORT. What a requirements.txt next to this
# file names is installed first, and then `python` is that of its environment.
exec python3 server.py
