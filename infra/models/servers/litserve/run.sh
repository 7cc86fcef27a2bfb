exec python server.py
